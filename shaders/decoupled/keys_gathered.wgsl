// Rows of behaviours for decoupled/search.wgsl: those of all tables, gathered into one beforehand.

fn key_vec4(feature: u32, place: u32, left: u32, id: u32) -> vec4<f32> {
    return table0_vec4(place, left);
}
