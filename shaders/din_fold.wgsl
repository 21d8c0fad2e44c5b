// Widens a matrix to f32 rows of whole fours, and adds two of its blocks of columns on the way:
//
//     out[r, c] = a · in[r, first + c] + b · in[r, second + c]        zeros behind the last row and column
//
// One thread a number. A vector of one number may serve all columns (step 0).

struct Params {
    groups: u32,
    grid_width: u32,
    threads: u32,
    rows: u32,
    columns: u32,
    padded_columns: u32,
    in_base: u32,
    in_stride: u32,
    // 1, or 0 where one number serves all columns.
    step: u32,
    first: u32,
    second: u32,
    out_base: u32,
    out_stride: u32,
    a: f32,
    b: f32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let r = index / params.padded_columns;
    let c = index % params.padded_columns;
    var sum = 0.0;
    if r < params.rows && c < params.columns {
        let row = params.in_base + r * params.in_stride + c * params.step;
        sum = params.a * matrix_at(row + params.first);
        if params.b != 0.0 {
            sum += params.b * matrix_at(row + params.second);
        }
    }
    out[params.out_base + r * params.out_stride + c] = sum;
}
