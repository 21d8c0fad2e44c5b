// Rows of behaviours with those of their positions: ẽ_l = e_l + p[f(l)], for attention whose keys and values they both are. Takes the place of
// target_attention/keys.wgsl and target_attention/values.wgsl: the sum is made in registers, as rows are read.
//
// Rows e are bound as keys. The table p is bound in place of values, from `values_base` on, and `places` in place of the bias, from
// `bias_base` on: the positions of the behaviours if they are given, and otherwise the tiles of the plan. The eighth word of a tile is where its
// user's history ends, from which positions are counted.

// Where a row begins, and that of its position.
alias RowPlace = vec2<u32>;

// `row` is counted from the start of the bindings; `tile` is one of the user's.
fn position_of(row: u32, tile: u32) -> u32 {
    if params.has_places == 1u {
        // A given position may be outside the table; another kernel reports it.
        return min(places[params.bias_base + row], params.last_position);
    }
    return min(places[8u * tile + 7u] - (params.first_history + row), params.last_position);
}

fn key_place(row: u32, kv_head: u32, tile: u32) -> RowPlace {
    let position = position_of(row, tile);
    return vec2<u32>(params.keys_base + row * params.width, params.values_base + position * params.width);
}

fn key_vec4(place: RowPlace, column: u32, left: u32) -> vec4<f32> {
    return keys_vec4(place.x + column, left) + positions_vec4(place.y + column, left);
}

fn first_value(kv_head: u32, column: u32) -> u32 {
    return column;
}

fn value_place(row: u32, first: u32, tile: u32) -> RowPlace {
    return key_place(row, 0u, tile) + vec2<u32>(first);
}

fn value_vec4(place: RowPlace, column: u32, left: u32) -> vec4<f32> {
    return key_vec4(place, column, left);
}

// There is no bias.
fn bias_at(i: u32) -> f32 {
    return 0.0;
}
