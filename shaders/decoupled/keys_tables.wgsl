// Rows of behaviours for decoupled/search.wgsl: up to three tables of one storage type, read in place.

// A vec4 of a row of the table of `feature`, which is a constant at every call, so that one branch remains.
fn key_vec4(feature: u32, place: u32, left: u32, id: u32) -> vec4<f32> {
    if feature == 0u {
        return table0_vec4(place, left);
    }
    if feature == 1u {
        return table1_vec4(place, left);
    }
    return table2_vec4(place, left);
}
