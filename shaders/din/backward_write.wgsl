// Writes a gradient of DIN's network from its sums: rows of `width` numbers from rows of `stride` numbers.
//
// ROWS: as they are. FIRST: of the first layer, [W_q, W_k, W_d, W_p] from the sums of W_q + W_d, W_k − W_d and W_p: the gradient of W_d
// is that of W_q minus that of W_k. ONE: the sum of all, for what units share. One thread writes one number.

struct DinBackwardWriteParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    mode: u32,
    width: u32,
    stride: u32,
    // Of the sums, and numbers of a matrix of them.
    first: u32,
    matrix: u32,
    // Of ONE: the numbers to add.
    count: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardWriteParams;

const ROWS: u32 = 0u;
const ONE: u32 = 2u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = index / params.width;
    let column = index % params.width;
    var value = 0.0;
    if params.mode == ROWS {
        value = sums[params.first + row * params.stride + column];
    } else if params.mode == ONE {
        for (var i = 0u; i < params.count; i++) {
            value += sums[params.first + i];
        }
    } else {
        let inputs = params.width / 4u;
        let matrix = column / inputs;
        let at = params.first + row * params.stride + column % inputs;
        let query = sums[at];
        let key = sums[at + params.matrix];
        if matrix == 0u {
            value = query;
        } else if matrix == 1u {
            value = key;
        } else if matrix == 2u {
            value = query - key;
        } else {
            value = sums[at + 2u * params.matrix];
        }
    }
    out[params.out_base + index] = value;
}
