// Reads the buckets of a candidate: out[m,:] = (1/G) Σ_g normalise(T[b,g,sig[m,g],:]).
//
// One workgroup of 64 threads computes one candidate, 64 groups at a time: first each thread computes the norm of one
// group's bucket row, then each thread adds one column of these rows, which are then in the cache. The user of a
// candidate is found by bisection of the offsets; all threads take the same branches.
// SUMMED 0 reads bucket tables; SUMMED 1 reads the sums that sdim/attend.wgsl wrote for each candidate, piece by
// piece.
// Precision: f32. Norms are computed of rows divided by their largest element, so that squares do not overflow.

struct SdimQueryParams {
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
    // SUMMED: the first slot of the candidates whose history is one piece.
    first_whole: u32,
}
@group(0) @binding(0) var<uniform> params: SdimQueryParams;

const MIN_NORM: f32 = 1e-12;

// The start of each group's bucket row, and the factor on it.
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
    // The pieces of one candidate's sums, and the distance between them.
    var pieces = 1u;
    var first = 0u;
    let stride = params.hash_groups * params.width;
    var out_row = m;
    if SUMMED == 1u {
        let tile = offsets[8u * m + 5u];
        out_row = offsets[8u * m] + offsets[8u * m + 1u];
        pieces = max(tile, 1u);
        first = select(offsets[8u * m + 4u], params.first_whole + m, tile == 0u);
    } else {
        first = user_of(m);
    }
    // 64 columns at a time, one per thread.
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
                    // A given signature may be out of range; another kernel reports it.
                    let code = min(codes_at(params.codes_base + m * params.hash_groups + g), params.buckets - 1u);
                    place = params.table_base
                        + ((first * params.hash_groups + g) * params.buckets + code) * params.width;
                }
                places[thread] = place;
                factors[thread] = 1.0;
                if params.normalise == 1u {
                    var largest = 0.0;
                    for (var j = 0u; j < params.width; j++) {
                        largest = max(largest, abs(bucket(place + j, pieces, stride)));
                    }
                    var squares = 0.0;
                    let scale = select(1.0, largest, largest > MIN_NORM);
                    for (var j = 0u; j < params.width; j++) {
                        let x = bucket(place + j, pieces, stride) / scale;
                        squares += x * x;
                    }
                    factors[thread] = 1.0 / max(scale * sqrt(squares), MIN_NORM);
                }
            }
            workgroupBarrier();
            if column < params.width {
                for (var i = 0u; i < min(64u, params.hash_groups - first_group); i++) {
                    sum += bucket(places[i] + column, pieces, stride) * factors[i];
                }
            }
            workgroupBarrier();
        }
        if column < params.width {
            out[params.out_base + out_row * params.width + column] = sum / f32(params.hash_groups);
        }
    }
}

fn bucket(place: u32, pieces: u32, stride: u32) -> f32 {
    var sum = table[place];
    for (var i = 1u; i < pieces; i++) {
        sum += table[place + i * stride];
    }
    return sum;
}
