// Rows of behaviours for decoupled/search.wgsl: one table of 8-bit rows, read in place: value = scale[id]·code +
// offset[id].

fn key_vec4(feature: u32, place: u32, left: u32, id: u32) -> vec4<f32> {
    let value = scale[params.scale_base + id] * table0_vec4(place, left) + offset[params.offset_base + id];
    // Elements past the end of the row are zeros in the queries, but the offset may not be finite.
    return select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}
