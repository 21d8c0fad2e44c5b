// What the gradient of each position is: (row, number as bits). Candidates come first, if they have rows of their own: these follow
// those of all candidates, which slots multiply.
//
// One thread per position.

struct KeptBagsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // 0: they have none.
    candidates: u32,
    top_k: u32,
    // On all numbers.
    factor: f32,
}
@group(0) @binding(0) var<uniform> params: KeptBagsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    if index < params.candidates {
        bags[index] = vec2<u32>(params.candidates + index, bitcast<u32>(params.factor));
        return;
    }
    let slot = index - params.candidates;
    bags[index] = vec2<u32>(slot / params.top_k, bitcast<u32>(bitcast<f32>(kept[slot].x) * params.factor));
}
