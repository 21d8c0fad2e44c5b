// For each part of a bag, how many ids of the whole bag count in its mean, at least 1. (An empty part has the count of any bag: its sum is
// zeros.)
//
// One thread per part.

struct CountsOfPartsParams {
    groups: u32,
    grid_width: u32,
    parts: u32,
    bags: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: CountsOfPartsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let part = group_index(id) * 64u + thread;
    if part < params.parts {
        out[params.out_base + part] = f32(max(counts[bag_of(edges[part])], 1u));
    }
}
