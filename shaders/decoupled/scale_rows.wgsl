// Multiplies columns of rows by factors of the same shape, and then by a number, which doubles halves of sums.
//
// One thread per number.

struct ScaleRowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    base: u32,
    row_width: u32,
    first_column: u32,
    width: u32,
    has_factors: u32,
    factors_base: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: ScaleRowsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let place = index / params.width * params.row_width + params.first_column + index % params.width;
    var row = rows[params.base + place];
    if params.has_factors == 1u {
        row *= factors[params.factors_base + place];
    }
    rows[params.base + place] = row * params.scale;
}
