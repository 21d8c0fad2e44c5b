// Adds up the parts that a kernel wrote for one row each: out[r, first_column + c] = Σ_p w_p · parts[p, c].
//
// Row r has the parts ranges[r].x .. ranges[r].y. One thread adds one column of one row, 32 parts at a time, and then
// these sums. MODE: SUM, w = 1; MEAN, parts are the means of parts of a bag, and w is a part's share of the bag; HALVES,
// parts are halves of parts of a convex combination, w = 1.

struct SumPartsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    out_base: u32,
    out_width: u32,
    first_column: u32,
    mode: u32,
}
@group(0) @binding(0) var<uniform> params: SumPartsParams;

const SUM: u32 = 0u;
const MEAN: u32 = 1u;
// 2: halves.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = index / params.width;
    let column = index % params.width;
    let range = ranges[row];
    // Of a mean, the number of ids of the bag; an empty bag has one part, of zeros.
    var all = 1.0;
    if params.mode == MEAN {
        all = f32(max(edges[range.y] - edges[range.x], 1u));
    }
    var sum = 0.0;
    for (var begin = range.x; begin < range.y; begin += 32u) {
        var block = 0.0;
        for (var p = begin; p < min(begin + 32u, range.y); p++) {
            let value = parts[p * params.width + column];
            if params.mode == MEAN {
                block += 0.5 * (f32(edges[p + 1u] - edges[p]) / all) * value;
            } else {
                block += value;
            }
        }
        sum += block;
    }
    if params.mode != SUM {
        sum = doubled(vec4<f32>(sum)).x;
    }
    out[params.out_base + row * params.out_width + params.first_column + column] = sum;
}
