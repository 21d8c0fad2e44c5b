// The ids of the behaviours that slots keep, for gradients of tables to be summed by; NONE where a slot keeps nothing.
//
// One thread per slot and feature.

struct KeptIdsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    features: u32,
    ids_base: u32,
}
@group(0) @binding(0) var<uniform> params: KeptIdsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = kept[index / params.features].y;
    var key = NONE;
    if row != NONE {
        key = ids[params.ids_base + row * params.features + index % params.features];
    }
    slot_ids[index] = key;
}
