// The bin of a similarity: ⌈r·n⌉ + n, from 0 to 2n. The product is rounded to f32, as everywhere. A similarity beyond ±2 is in
// the first or the last bin anyway, and its product may not be finite.

fn is_counted(similarity: f32) -> bool {
    let bits = bitcast<u32>(similarity);
    return bits != NEGATIVE_INFINITY && (bits & 0x7fffffffu) <= EXPONENT;
}

fn bin_of(similarity: f32) -> u32 {
    // By bits: arithmetic on infinity is not guaranteed.
    if (bitcast<u32>(similarity) & EXPONENT) == EXPONENT {
        return 2u * params.steps;
    }
    let steps = f32(params.steps);
    let step = ceil(clamp(similarity, -2.0, 2.0) * steps);
    return u32(clamp(step, -steps, steps) + steps);
}
