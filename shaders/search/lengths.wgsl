// What cosines multiply rows with (search/row_length.wgsl).
//
// One thread per row.

struct SearchLengthsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    rows_base: u32,
}
@group(0) @binding(0) var<uniform> params: SearchLengthsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index < params.threads {
        lengths[index] = length_of(params.rows_base + index * params.width);
    }
}
