// Powers of two, and inverse square roots.

// 1/√x of a normal number, within 2 roundings: the built-in may be off by 2 units in the last place, which a step of
// Newton's method mends.
fn inverse_root(x: f32) -> f32 {
    let y = inverseSqrt(x);
    return y + 0.5 * y * (1.0 - (x * y) * y);
}

fn power_of_two(exponent: u32) -> f32 {
    return bitcast<f32>(exponent << 23u);
}
