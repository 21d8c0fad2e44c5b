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
