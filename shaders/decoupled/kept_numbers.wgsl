// Replaces the weights of a selection by given numbers: numbered[m,k] = (number, row of the history or NONE).
//
// One thread per slot.

struct KeptNumbersParams {
    groups: u32,
    grid_width: u32,
    slots: u32,
    numbers_base: u32,
}
@group(0) @binding(0) var<uniform> params: KeptNumbersParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let slot = group_index(id) * 64u + thread;
    if slot < params.slots {
        numbered[slot] = vec2<u32>(numbers[params.numbers_base + slot], kept[slot].y);
    }
}
