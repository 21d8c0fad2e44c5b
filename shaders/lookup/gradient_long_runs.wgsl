// Adds to the row of a run that leaves its first window the heads that follow: at each level those up to the end of the next larger
// node, at the last level all.
//
// One thread per number of a window.

struct GradientLongRunsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    ids_base: u32,
    starts_base: u32,
    out_base: u32,
    width: u32,
    // The row of a run is that of its id, and not its own number.
    dense: u32,
    // Windows of all positions that there may be.
    windows: u32,
}
@group(0) @binding(0) var<uniform> params: GradientLongRunsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(group) * 64u + thread;
    let count = live[0];
    if index >= params.threads || count == 0u {
        return;
    }
    let window = index / params.width;
    let column = index % params.width;
    var at = (window + 1u) * WINDOW;
    if at >= start_of(count) {
        return;
    }
    let run = run_of(count, at - 1u);
    let end = start_of(run + 1u);
    if start_of(run) < window * WINDOW || end <= at {
        return;
    }
    var row = run;
    if params.dense == 1u {
        row = ids[params.ids_base + run];
    }
    let place = params.out_base + row * params.width + column;
    var sum = out[place];
    var nodes = params.windows;
    var first = 0u;
    var span = WINDOW;
    while at < end {
        let is_last = nodes <= WINDOW;
        var part = 0.0;
        while at < end && (is_last || at % (span * WINDOW) != 0u) {
            part += heads[(first + at / span) * params.width + column];
            at += span;
        }
        sum += part;
        first += nodes;
        nodes = next_nodes(nodes);
        span *= WINDOW;
    }
    out[place] = sum;
}
