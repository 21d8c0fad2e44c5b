// What every kernel shares. In front of it stand the constants of the variant and the bindings, each with the
// functions that read it: `<name>_at(i)` one element, `<name>_four(i, left)` four of a row with `left` elements left.

// The place of a row that a user's history does not have, and of a partial result that goes straight to the output.
const NONE: u32 = 0xffffffffu;
// Below every score: stands for "removed" and "nothing yet". WGSL promises no arithmetic on infinities.
const LOWEST: f32 = -3.0e38;
const NEGATIVE_INFINITY: u32 = 0xff800000u;

fn widen_f16(word: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y));
}

// A bf16 is the upper half of an f32.
fn widen_bf16(word: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(
        bitcast<f32>(word.x << 16u), bitcast<f32>(word.x & 0xffff0000u),
        bitcast<f32>(word.y << 16u), bitcast<f32>(word.y & 0xffff0000u));
}

// Four signed bytes.
fn widen_i8(word: u32) -> vec4<f32> {
    let four = vec4<i32>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
    return vec4<f32>(four);
}

// Workgroups are counted along x, then y: one dimension holds only 65,535.
fn group_index(id: vec3<u32>) -> u32 {
    return id.y * params.grid_width + id.x;
}

// exp, to about 1e-7: the built-in may be off by 1e-5 far from 0. Below -87 it is 0; above 88 the argument is cut.
// x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts so that r is exact; then a polynomial, and n into the exponent.
fn exp_of(x: vec4<f32>) -> vec4<f32> {
    let n = round(clamp(x, vec4<f32>(-88.0), vec4<f32>(88.0)) * 1.44269504);
    let r = (clamp(x, vec4<f32>(-88.0), vec4<f32>(88.0)) - n * 0.693359375) + n * 2.12194440e-4;
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
