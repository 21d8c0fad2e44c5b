// The gradients of similarities: what the heads add, in order.
//
// One thread per slot.

struct SumHeadsParams {
    groups: u32,
    grid_width: u32,
    slots: u32,
    heads: u32,
    first_similarity: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: SumHeadsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let slot = group_index(id) * 64u + thread;
    if slot >= params.slots {
        return;
    }
    let first = params.first_similarity + slot * params.heads;
    var sum = 0.0;
    for (var head = 0u; head < params.heads; head++) {
        sum += bitcast<f32>(numbers[first + head]);
    }
    out[params.out_base + slot] = sum;
}
