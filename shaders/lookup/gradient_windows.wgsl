// Sums of the rows of grad_out by id: out[run] = Σ_{positions of the run} weight · row, of the part of each run in its first window; and
// the heads of windows.
//
// One thread takes four columns of one window, neighbouring threads neighbouring columns: every thread adds as many rows, whether ids
// occur once or all are one.

struct GradientWindowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    ids_base: u32,
    starts_base: u32,
    positions_base: u32,
    grad_base: u32,
    out_base: u32,
    grad_width: u32,
    first_column: u32,
    width: u32,
    // The row of a run is that of its id, and not its own number.
    dense: u32,
    has_bags: u32,
}
@group(0) @binding(0) var<uniform> params: GradientWindowsParams;

fn store(place: u32, value: vec4<f32>, left: u32, is_head: bool) {
    for (var e = 0u; e < min(left, 4u); e++) {
        if is_head {
            heads[place + e] = value[e];
        } else {
            out[place + e] = value[e];
        }
    }
}

fn weighted_row(position: u32, column: u32) -> vec4<f32> {
    var bag = vec2<u32>(position, bitcast<u32>(1.0));
    if params.has_bags == 1u {
        bag = bags[position];
    }
    let place = params.grad_base + bag.x * params.grad_width + params.first_column + column;
    return bitcast<f32>(bag.y) * grad_vec4(place, params.width - column);
}

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
