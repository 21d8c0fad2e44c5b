// What a dot product of search/row_scores.wgsl has: a bias, if there is one.

fn scales_of(l: vec4<u32>) -> Scales {
    return Scales(vec4<f32>(1.0), vec4<f32>(1.0));
}

fn added(score: vec4<f32>, l: u32) -> vec4<f32> {
    if params.has_bias == 0u {
        return score;
    }
    let number = bias[params.bias_base + l];
    // A sum with -∞ is not left to the device.
    let is_lowest = vec4<bool>(is_removed(number)) & !is_not_finite(score);
    return select(score + number, vec4<f32>(negative_infinity()), is_lowest);
}
