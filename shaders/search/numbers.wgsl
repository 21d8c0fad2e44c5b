// Rows of behaviours for search/rows.wgsl: floats, or 8-bit codes that are the numbers themselves.

// Numbers k .. k + 4 of row l, with zeros past its end.
fn number_vec4(l: u32, k: u32) -> vec4<f32> {
    return rows_vec4(params.rows_base + l * params.width + k, params.width - k);
}
