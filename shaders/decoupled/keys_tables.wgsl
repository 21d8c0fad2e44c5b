// Behaviours' numbers for decoupled/search.wgsl: up to three tables of one storage type, read in place.

// Four numbers of a row of the table of a feature. Where `feature` is known, one of the branches is left.
fn key_four(feature: u32, place: u32, left: u32, id: u32) -> vec4<f32> {
    if feature == 0u {
        return table0_four(place, left);
    }
    if feature == 1u {
        return table1_four(place, left);
    }
    return table2_four(place, left);
}
