// Rows of behaviours for search/rows.wgsl: 8-bit codes with a scale and an offset per row: value = scale[l]·code + offset[l].

// Numbers k .. k + 4 of row l, with zeros past its end.
fn number_vec4(l: u32, k: u32) -> vec4<f32> {
    let left = params.width - k;
    let codes = rows_vec4(params.rows_base + l * params.width + k, left);
    let value = scale[params.scale_base + l] * codes + offset[params.offset_base + l];
    // Numbers past the end of the row are zeros in the queries, but the offset may not be finite.
    return select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}
