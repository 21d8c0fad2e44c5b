// Sums of the rows of grad_out by id (lookup/window_sums.wgsl): Σ_{positions of the run} weight · row.

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
