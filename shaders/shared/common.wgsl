// Included in every kernel, after the constants of the variant and the bindings. Each binding comes with the
// functions that read it: `<name>_at(i)` returns one element, `<name>_vec4(i, left)` the four elements from `i` on,
// of which those from `left` on are zero (`left` is the number of elements up to the end of the row).

// No row, no slot: a selection entry that is empty, or a piece that writes the output itself.
const NONE: u32 = 0xffffffffu;
// Below every score: a removed behaviour, or the maximum of nothing. WGSL does not guarantee arithmetic on infinities.
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

// Widens four signed bytes.
fn widen_i8(word: u32) -> vec4<f32> {
    let bytes = vec4<i32>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
    return vec4<f32>(bytes);
}

// The index of the workgroup. One dimension of a dispatch is limited to 65,535, so large grids have two.
fn group_index(id: vec3<u32>) -> u32 {
    return id.y * params.grid_width + id.x;
}

// exp with a relative error of about 1e-7; the built-in may be off by 1e-5 far from 0. The result is 0 below -87, and
// the argument is clamped at 88. x = n·ln 2 + r with |r| ≤ ln 2 / 2, where ln 2 is split into two constants so that r
// is exact; exp(r) is a polynomial, and n is added to the exponent.
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
