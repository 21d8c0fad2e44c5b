// Included in every kernel, after the constants of the variant and the bindings. Each binding comes with the
// functions that read it: `<name>_at(i)` returns one element, `<name>_vec4(i, left)` the four elements from `i` on,
// of which those from `left` on are zero (`left` is the number of elements up to the end of the row).

// No row, no slot: a selection entry that is empty, or a piece that writes the output itself.
const NONE: u32 = 0xffffffffu;
// The bits of -∞, which alone removes a behaviour. WGSL does not guarantee arithmetic on infinities and NaN; where it
// matters, bits are compared. Most devices compute as IEEE does, and these kernels let NaN through: comparisons are
// written so that NaN takes the branch that keeps it, and min and max, which may drop it, are avoided.
const NEGATIVE_INFINITY: u32 = 0xff800000u;
const EXPONENT: u32 = 0x7f800000u;
// Half of the largest f32.
const HALF_MOST: f32 = 1.7014117331926443e38;

// A variable, because constant expressions may not be infinite.
fn negative_infinity() -> f32 {
    var bits = NEGATIVE_INFINITY;
    return bitcast<f32>(bits);
}

fn is_removed(score: f32) -> bool {
    return bitcast<u32>(score) == NEGATIVE_INFINITY;
}

// Infinite or NaN.
fn is_not_finite(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(EXPONENT)) == vec4<u32>(EXPONENT);
}

// What is subtracted from scores before their exponentials: their maximum, or 0 where there is no score.
fn shift_of(maximum: vec4<f32>) -> vec4<f32> {
    return select(maximum, vec4<f32>(), bitcast<vec4<u32>>(maximum) == vec4<u32>(NEGATIVE_INFINITY));
}

// The factor on older sums when a maximum grew; both may be -∞.
fn rescale_of(before: vec4<f32>, now: vec4<f32>) -> vec4<f32> {
    return select(exp_of(before - now), vec4<f32>(1.0), before == now);
}

// Twice a convex combination that was summed in halves: the sum of numbers near the largest f32 may be rounded past it,
// where the result itself is not beyond the largest of them.
fn doubled(half: vec4<f32>) -> vec4<f32> {
    let bounded = clamp(half, vec4<f32>(-HALF_MOST), vec4<f32>(HALF_MOST)) * 2.0;
    return select(bounded, half, is_not_finite(half));
}

fn widen_f16(word: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y));
}

// A bf16 is the upper half of an f32.
fn widen_bf16(word: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(
        bitcast<f32>(word.x << 16u), bitcast<f32>(word.x & 0xffff0000u),
        bitcast<f32>(word.y << 16u), bitcast<f32>(word.y & 0xffff0000u));
}

// Widens four signed bytes.
fn widen_i8(word: u32) -> vec4<f32> {
    let bytes = vec4<i32>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
    return vec4<f32>(bytes);
}

// The index of the workgroup. One dimension of a dispatch is limited to 65,535, so large grids have two.
fn group_index(id: vec3<u32>) -> u32 {
    return id.y * params.grid_width + id.x;
}

// exp of numbers up to 88 with a relative error of about 1e-7; the built-in may be off by 1e-5 far from 0. The result is
// 0 below -87, NaN for NaN. x = n·ln 2 + r with |r| ≤ ln 2 / 2, where ln 2 is split into two constants so that r is
// exact; exp(r) is a polynomial, and n is added to the exponent.
fn exp_of(x: vec4<f32>) -> vec4<f32> {
    let y = select(x, vec4<f32>(-88.0), x < vec4<f32>(-88.0));
    let n = round(y * 1.44269504);
    let r = (y - n * 0.693359375) + n * 2.12194440e-4;
    var p = vec4<f32>(1.0 / 5040.0);
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = bitcast<vec4<f32>>((vec4<i32>(n) + vec4<i32>(127)) << vec4<u32>(23u));
    return select(p * power, vec4<f32>(), x < vec4<f32>(-87.0));
}

fn exp_one(x: f32) -> f32 {
    return exp_of(vec4<f32>(x)).x;
}

// 1 / (1 + exp(-x)), of exponentials that do not overflow.
fn sigmoid_of(x: vec4<f32>) -> vec4<f32> {
    let e = exp_of(-abs(x));
    return select(e, vec4<f32>(1.0), x >= vec4<f32>()) / (1.0 + e);
}
