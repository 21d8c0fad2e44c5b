// What a cosine of selected/newest.wgsl has: scales that each thread computes of its own rows (search/row_length.wgsl). Those of whole
// histories, which a search computes first, would be more than are counted.

fn scales_of(l: vec4<u32>) -> Scales {
    let rows = params.rows_base + l * params.width;
    let x = length_of(rows.x);
    let y = length_of(rows.y);
    let z = length_of(rows.z);
    let w = length_of(rows.w);
    return Scales(vec4<f32>(x.x, y.x, z.x, w.x), vec4<f32>(x.y, y.y, z.y, w.y));
}

fn added(score: vec4<f32>, l: u32) -> vec4<f32> {
    return score;
}
