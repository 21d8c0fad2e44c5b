// What a cosine of search/rows.wgsl has: the powers of two with which no square leaves the range of f32, and the inverse
// lengths of rows, from search/lengths.wgsl. Both are 0 for a row of zeros.

fn powers_of(l: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(lengths[l.x].x, lengths[l.y].x, lengths[l.z].x, lengths[l.w].x);
}

fn factors_of(l: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(lengths[l.x].y, lengths[l.y].y, lengths[l.z].y, lengths[l.w].y);
}

fn added(score: vec4<f32>, l: u32) -> vec4<f32> {
    return score;
}
