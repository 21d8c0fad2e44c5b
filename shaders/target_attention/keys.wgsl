// Keys for attention. Where behaviours have positions, tin/rows.wgsl takes the place of this file and of target_attention/values.wgsl.

// Where a row begins.
alias RowPlace = u32;

// `row` is counted from the start of the bindings. What a behaviour's position is counted from, that of a tile, is not needed here.
fn key_place(row: u32, kv_head: u32, tile: u32) -> RowPlace {
    return params.keys_base + (row * params.kv_heads + kv_head) * params.width;
}

fn key_vec4(place: RowPlace, column: u32, left: u32) -> vec4<f32> {
    return keys_vec4(place + column, left);
}
