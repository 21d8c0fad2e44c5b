// Reads a candidate's buckets: out[m,:] = (1/G) Σ_g normalise(T[b,g,sig[m,g],:]).
//
// One workgroup of 64 threads takes one candidate, 64 groups at a time: first a thread a group finds the length of
// its bucket row, then a thread a column adds the rows. The second reading comes from the cache. A candidate's user
// is found by bisection of the offsets, which all threads do alike.
// SUMMED 0 reads bucket tables; SUMMED 1 the sums that sdim/attend.wgsl left for each candidate, part by part.
// Precision: f32; lengths are taken of rows divided by their largest number, so that squares do not overflow.

struct Params {
    groups: u32,
    grid_width: u32,
    width: u32,
    hash_groups: u32,
    buckets: u32,
    users: u32,
    table_base: u32,
    codes_base: u32,
    out_base: u32,
    normalise: u32,
    // SUMMED: where the sums of candidates begin whose history was not cut.
    first_whole: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const MIN_NORM: f32 = 1e-12;

// Where each group's bucket row begins, and the factor on it.
var<workgroup> places: array<u32, 64>;
var<workgroup> factors: array<f32, 64>;

fn user_of(m: u32) -> u32 {
    var low = 0u;
    var high = params.users;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if offsets[middle] <= m { low = middle; } else { high = middle; }
    }
    return low;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.groups {
        return;
    }
    // Parts of one candidate's sums, and how far they lie apart.
    var parts = 1u;
    var first = 0u;
    let stride = params.hash_groups * params.width;
    var out_row = m;
    if SUMMED == 1u {
        let tile = offsets[8u * m + 5u];
        out_row = offsets[8u * m] + offsets[8u * m + 1u];
        parts = max(tile, 1u);
        first = select(offsets[8u * m + 4u], params.first_whole + m, tile == 0u);
    } else {
        first = user_of(m);
    }
    // Four columns a thread: widths to 256 in one go, wider ones in several.
    for (var first_column = 0u; first_column < params.width; first_column += 64u) {
        let column = first_column + thread;
        var sum = 0.0;
        for (var first_group = 0u; first_group < params.hash_groups; first_group += 64u) {
            let g = first_group + thread;
            if g < params.hash_groups {
                var place = 0u;
                if SUMMED == 1u {
                    place = first * stride + g * params.width;
                } else {
                    // Too large a given signature is reported elsewhere.
                    let code = min(codes_at(params.codes_base + m * params.hash_groups + g), params.buckets - 1u);
                    place = params.table_base
                        + ((first * params.hash_groups + g) * params.buckets + code) * params.width;
                }
                places[thread] = place;
                factors[thread] = 1.0;
                if params.normalise == 1u {
                    var largest = 0.0;
                    for (var j = 0u; j < params.width; j++) {
                        largest = max(largest, abs(bucket(place + j, parts, stride)));
                    }
                    var squares = 0.0;
                    let scale = select(1.0, largest, largest > MIN_NORM);
                    for (var j = 0u; j < params.width; j++) {
                        let x = bucket(place + j, parts, stride) / scale;
                        squares += x * x;
                    }
                    factors[thread] = 1.0 / max(scale * sqrt(squares), MIN_NORM);
                }
            }
            workgroupBarrier();
            if column < params.width {
                for (var i = 0u; i < min(64u, params.hash_groups - first_group); i++) {
                    sum += bucket(places[i] + column, parts, stride) * factors[i];
                }
            }
            workgroupBarrier();
        }
        if column < params.width {
            out[params.out_base + out_row * params.width + column] = sum / f32(params.hash_groups);
        }
    }
}

fn bucket(place: u32, parts: u32, stride: u32) -> f32 {
    var sum = table[place];
    for (var i = 1u; i < parts; i++) {
        sum += table[place + i * stride];
    }
    return sum;
}
