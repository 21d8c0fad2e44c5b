// Adds the partial results of the spans of a chunk to the states of candidates, in order.
//
// One thread per candidate; 16 threads per merge, of [first target, rows] [first partial result, step] [spans, 0].

struct AllMergeStatesParams {
    groups: u32,
    grid_width: u32,
    merges: u32,
    first_merge: u32,
}
@group(0) @binding(0) var<uniform> params: AllMergeStatesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 4u + thread / 16u;
    if index >= params.merges {
        return;
    }
    let first = 3u * (params.first_merge + index);
    let rows = merges[first];
    let places = merges[first + 1u];
    let row = thread % 16u;
    if row >= rows.y {
        return;
    }
    var state = states[rows.x + row];
    // Cleared at first.
    if state.y == 0.0 {
        state.x = negative_infinity();
    }
    for (var span = 0u; span < merges[first + 2u].x; span++) {
        state = merged(state, partial[places.x + span * places.y + row]);
    }
    states[rows.x + row] = state;
}
