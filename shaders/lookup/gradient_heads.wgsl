// The heads of the next level: 32 of one run each, or as many as the run has.
//
// One thread per number.

struct GradientHeadsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    starts_base: u32,
    width: u32,
    // Windows of all positions that there may be.
    windows: u32,
    // The level whose heads are added up.
    level: u32,
}
@group(0) @binding(0) var<uniform> params: GradientHeadsParams;

// The first head of a level.
fn first_head(level: u32) -> u32 {
    var first = 0u;
    var nodes = params.windows;
    for (var l = 0u; l < level; l++) {
        first += nodes;
        nodes = next_nodes(nodes);
    }
    return first;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(group) * 64u + thread;
    let count = live[0];
    if index >= params.threads || count == 0u {
        return;
    }
    let node = index / params.width;
    let column = index % params.width;
    var span = WINDOW;
    for (var level = 0u; level < params.level; level++) {
        span *= WINDOW;
    }
    let first = node * span * WINDOW;
    if first >= start_of(count) {
        return;
    }
    let run = run_of(count, first);
    if start_of(run) == first {
        return;
    }
    let end = start_of(run + 1u);
    let first_child = first_head(params.level) + node * WINDOW;
    var sum = 0.0;
    for (var child = 0u; child < WINDOW; child++) {
        if first + child * span >= end {
            break;
        }
        sum += heads[(first_child + child) * params.width + column];
    }
    heads[(first_head(params.level + 1u) + node) * params.width + column] = sum;
}
