// The ids of the slots that add to the gradients of tables: of those with a number for some head. NONE of all others.
//
// One thread per slot and feature. Numbers are those of selected/backward_weights.wgsl.

struct SelectedSlotKeysParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    features: u32,
    heads: u32,
    first_number: u32,
}
@group(0) @binding(0) var<uniform> params: SelectedSlotKeysParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let first = params.first_number + index / params.features * params.heads;
    var key = NONE;
    for (var head = 0u; head < params.heads; head++) {
        if numbers[first + head] != NONE {
            key = slot_ids[index];
        }
    }
    keys[index] = key;
}
