// Values for attention; see target_attention/keys.wgsl.

// Where the values of the first row begin, from a column on.
fn first_value(kv_head: u32, column: u32) -> u32 {
    return params.values_base + kv_head * params.value_width + column;
}

fn value_place(row: u32, first: u32, tile: u32) -> RowPlace {
    return row * params.value_stride + first;
}

fn value_vec4(place: RowPlace, column: u32, left: u32) -> vec4<f32> {
    return values_vec4(place + column, left);
}
