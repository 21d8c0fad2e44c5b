// Slots whose rows are gathered from tables, so that each has a row of its own: the slots with those rows, the behaviours that they
// keep, and the ids of these; NONE where a slot keeps nothing.
//
// One thread per slot and feature.

struct SelectedSlotsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    features: u32,
    ids_base: u32,
    slot_ids_base: u32,
}
@group(0) @binding(0) var<uniform> params: SelectedSlotsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let slot = index / params.features;
    let feature = index % params.features;
    let row = kept[slot].y;
    var key = NONE;
    if row != NONE {
        key = ids[params.ids_base + row * params.features + feature];
    }
    slot_ids[params.slot_ids_base + index] = key;
    if feature == 0u {
        own_kept[slot] = vec2<u32>(kept[slot].x, select(slot, NONE, row == NONE));
        behaviours[slot] = row;
    }
}
