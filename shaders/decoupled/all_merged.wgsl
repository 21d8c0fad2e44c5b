// Adds the sums of two parts of a history: (maximum, sum, Σ weight · product).
fn merged(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let highest = max(a.x, b.x);
    let factors = rescale_of(vec4<f32>(a.x, b.x, 0.0, 0.0), vec4<f32>(highest, highest, 0.0, 0.0));
    return vec4<f32>(highest, a.y * factors.x + b.y * factors.y, a.z * factors.x + b.z * factors.y, 0.0);
}
