// The ids of a sparse gradient, and their number.

struct GradientIdsParams {
    groups: u32,
    grid_width: u32,
    ids_base: u32,
    out_ids_base: u32,
    out_count_base: u32,
}
@group(0) @binding(0) var<uniform> params: GradientIdsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    let count = live[0];
    if index == 0u {
        out_count[params.out_count_base] = count;
    }
    if index < count {
        out_ids[params.out_ids_base + index] = ids[params.ids_base + index];
    }
}
