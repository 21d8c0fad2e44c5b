// Reads the buckets of a candidate: out[m,:] = (1/G) Σ_g normalise(T[b,g,sig[m,g],:]).
//
// One workgroup of 64 threads computes 64 columns of one candidate, 64 groups at a time: first each thread computes the
// norm of one group's bucket row, then each thread adds one column of these rows, which are then in the cache. The user
// of a candidate is found by bisection of the offsets; all threads take the same branches. Where `tables` is not 0, owners[b] is the table of
// user b.
// SUMMED 0 reads bucket tables; SUMMED 1 reads the sums that sdim/attend.wgsl wrote for each candidate, and
// shared/sum_parts.wgsl added up.
// Precision: f32. Rows are scaled by a power of two before they are squared, so that neither squares nor norms overflow;
// without normalisation, by one that keeps the sum over the groups from overflowing.

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
    tables: u32,
    owners_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimQueryParams;

const MIN_NORM: f32 = 1e-12;

// Squares that are added up before their sum is added to the others: a sum of sums loses fewer digits.
const NUMBERS_PER_SUM: u32 = 256u;

// The start of each group's bucket row, and two factors on it: their product may be too small for an f32.
var<workgroup> places: array<u32, 64>;
var<workgroup> scales: array<f32, 64>;
var<workgroup> factors: array<f32, 64>;

// 2^-e for e up to 126.
fn power_below(e: u32) -> f32 {
    return bitcast<f32>((127u - min(e, 126u)) << 23u);
}

// The scale of a row whose largest element is `largest`: it brings elements beyond 1 below 4, and leaves others.
fn scale_of(largest: f32) -> f32 {
    return power_below(max(bitcast<u32>(largest) >> 23u, 127u) - 127u);
}

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
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let column_tiles = (params.width + 63u) / 64u;
    let m = group / column_tiles;
    let column = group % column_tiles * 64u + thread;
    var first = 0u;
    var out_row = m;
    if SUMMED == 1u {
        out_row = offsets[8u * m] + offsets[8u * m + 1u];
        first = m;
    } else {
        first = user_of(m);
        if params.tables > 0u {
            // A user without a table is reported by another kernel.
            first = min(owners[params.owners_base + first], params.tables - 1u);
        }
    }
    // Without normalisation: a power of two that is at least the number of groups.
    let all = power_below(32u - countLeadingZeros(params.hash_groups));
    var sum = 0.0;
    for (var first_group = 0u; first_group < params.hash_groups; first_group += 64u) {
        let g = first_group + thread;
        if g < params.hash_groups {
            // A given signature may be out of range; another kernel reports it.
            var row = first * params.hash_groups + g;
            if SUMMED == 0u {
                let code = codes_at(params.codes_base + m * params.hash_groups + g);
                row = row * params.buckets + min(code, params.buckets - 1u);
            }
            let place = params.table_base + row * params.width;
            places[thread] = place;
            scales[thread] = all;
            factors[thread] = 1.0;
            if params.normalise == 1u {
                var largest = 0.0;
                for (var j = 0u; j < params.width; j++) {
                    largest = max(largest, abs(table[place + j]));
                }
                // A row of small elements is scaled up to square it, unless its norm is at the floor.
                var scale = scale_of(largest);
                if largest < 1.0 && largest > MIN_NORM {
                    scale = 1099511627776.0;
                }
                var squares = 0.0;
                for (var start = 0u; start < params.width; start += NUMBERS_PER_SUM) {
                    var part = 0.0;
                    for (var j = start; j < min(start + NUMBERS_PER_SUM, params.width); j++) {
                        let x = table[place + j] * scale;
                        part += x * x;
                    }
                    squares += part;
                }
                let norm = sqrt(squares);
                let least = MIN_NORM * scale;
                scales[thread] = scale;
                // NaN stays NaN.
                factors[thread] = 1.0 / select(norm, least, norm < least);
            }
        }
        workgroupBarrier();
        if column < params.width {
            var part = 0.0;
            for (var i = 0u; i < min(64u, params.hash_groups - first_group); i++) {
                part += table[places[i] + column] * scales[i] * factors[i];
            }
            sum += part;
        }
        workgroupBarrier();
    }
    if column < params.width {
        var result = sum / f32(params.hash_groups);
        if params.normalise == 0u {
            result = doubled(vec4<f32>(sum / (2.0 * all * f32(params.hash_groups)))).x;
        }
        out[params.out_base + out_row * params.width + column] = result;
    }
}
