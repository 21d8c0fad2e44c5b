// Sums by run: out[run] = Σ_{positions of the run} weighted_row(position), of the part of each run in its first window; and the heads of
// windows.
//
// One thread takes four columns of one window, neighbouring threads neighbouring columns: every thread adds as many rows, whether ids
// occur once or all are one. The kernels have `weighted_row` and `store`, which take columns of a row.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(group) * 64u + thread;
    let count = live[0];
    if index >= params.threads || count == 0u {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let window = index / width4;
    let column = index % width4 * 4u;
    let left = params.width - column;
    let total = start_of(count);
    let first = window * WINDOW;
    if first >= total {
        return;
    }
    let end = min(first + WINDOW, total);
    var run = run_of(count, first);
    var begins_here = start_of(run) == first;
    var run_end = start_of(run + 1u);
    var sum = vec4<f32>();
    for (var place = first; place < end; place++) {
        sum += weighted_row(positions[params.positions_base + place], column);
        if place + 1u == min(run_end, end) {
            if begins_here {
                var row = run;
                if params.dense == 1u {
                    row = ids[params.ids_base + run];
                }
                store(params.out_base + row * params.width + column, sum, left, false);
            } else {
                store(window * params.width + column, sum, left, true);
            }
            sum = vec4<f32>();
            begins_here = true;
            if place + 1u < end {
                run++;
                run_end = start_of(run + 1u);
            }
        }
    }
}
