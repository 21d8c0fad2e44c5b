// What a cosine of search/row_scores.wgsl has: scales from search/lengths.wgsl.

fn scales_of(l: vec4<u32>) -> Scales {
    let x = lengths[l.x];
    let y = lengths[l.y];
    let z = lengths[l.z];
    let w = lengths[l.w];
    return Scales(vec4<f32>(x.x, y.x, z.x, w.x), vec4<f32>(x.y, y.y, z.y, w.y));
}

fn added(score: vec4<f32>, l: u32) -> vec4<f32> {
    return score;
}
