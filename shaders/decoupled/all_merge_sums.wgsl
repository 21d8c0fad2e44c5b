// Adds the partial gradients of the spans of a chunk to the rows of candidates, in order.
//
// One thread per number: a merge of up to 16 candidates, [first target, rows] [first partial result, step] [spans, 0], has 16 · width threads.

struct AllMergeSumsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    first_merge: u32,
    width: u32,
}
@group(0) @binding(0) var<uniform> params: AllMergeSumsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let first = 3u * (params.first_merge + index / (16u * params.width));
    let item = index % (16u * params.width);
    let rows = merges[first];
    let places = merges[first + 1u];
    if item >= rows.y * params.width {
        return;
    }
    var sum = 0.0;
    for (var span = 0u; span < merges[first + 2u].x; span++) {
        sum += partial[(places.x + span * places.y) * params.width + item];
    }
    out[rows.x * params.width + item] += sum;
}
