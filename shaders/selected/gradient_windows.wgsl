// The gradients of behaviours: sums over the slots that hold one, in order (lookup/window_sums.wgsl). The row of a behaviour
// has a part for each key/value head, to which each head of its group adds number · row of the head's query:
//
//     dk = Σ scale·ds · q      dv = Σ w · grad_out      dbias[l,h] = Σ ds
//
// Numbers are those of selected/backward_weights.wgsl, of which NONE adds nothing, whatever the row holds. VECTORS: the part
// of a head consists of whole vec4s.

struct SelectedWindowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    ids_base: u32,
    starts_base: u32,
    positions_base: u32,
    out_base: u32,
    // Of the row of a behaviour, and of a head's part. 0: the row is the numbers themselves.
    width: u32,
    part_width: u32,
    dense: u32,
    heads: u32,
    group_heads: u32,
    top_k: u32,
    first_number: u32,
    rows_base: u32,
    // Of the columns of a behaviour's row: a table may have some of them.
    first_column: u32,
    // Added to what the rows are.
    adds: u32,
    factor: f32,
}
@group(0) @binding(0) var<uniform> params: SelectedWindowsParams;

fn store(place: u32, value: vec4<f32>, left: u32, is_head: bool) {
    for (var e = 0u; e < min(left, 4u); e++) {
        if is_head {
            heads[place + e] = value[e];
        } else if params.adds == 1u {
            out[place + e] += value[e];
        } else {
            out[place + e] = value[e];
        }
    }
}

// What a group of heads adds to columns of their part.
fn sum_of_group(position: u32, column: u32) -> vec4<f32> {
    let first = column / params.part_width * params.group_heads;
    let query = position / params.top_k * params.heads;
    let own = column % params.part_width;
    var sum = vec4<f32>();
    for (var head = first; head < first + params.group_heads; head++) {
        let bits = numbers[params.first_number + position * params.heads + head];
        if bits != NONE {
            let place = params.rows_base + (query + head) * params.part_width + own;
            if VECTORS == 1u {
                sum += bitcast<f32>(bits) * rows_vec4(place, 4u);
            } else {
                sum.x += bitcast<f32>(bits) * rows_at(place);
            }
        }
    }
    return sum;
}

fn weighted_row(position: u32, column: u32) -> vec4<f32> {
    if VECTORS == 1u && params.part_width > 0u {
        return params.factor * sum_of_group(position, params.first_column + column);
    }
    var value = vec4<f32>();
    for (var e = 0u; e < min(params.width - column, 4u); e++) {
        if params.part_width > 0u {
            value[e] = params.factor * sum_of_group(position, params.first_column + column + e).x;
        } else {
            let bits = numbers[params.first_number + position * params.heads + column + e];
            value[e] = select(bitcast<f32>(bits), 0.0, bits == NONE);
        }
    }
    return value;
}
