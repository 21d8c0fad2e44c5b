// What a cosine multiplies a row with: [2^j, 1 / max(2^j · 1e-12, ‖2^j x‖)].
//
// 2^j makes the largest number of the row lie between 4 and 8, so that squares neither overflow nor vanish; a row whose
// numbers are all far below 1e-12 is scaled as one of 2^-60. Of a row of zeros both are 0, which is seen from the bits:
// a device may flush subnormal numbers. Of a row with a number that is not finite the factor is NaN.
// shared/powers.wgsl is included before.

// Of the row whose first number this is.
fn length_of(row: u32) -> vec2<f32> {
    var most4 = vec4<u32>();
    for (var k = 0u; k < params.width; k += 4u) {
        most4 = max(most4, bitcast<vec4<u32>>(rows_vec4(row + k, params.width - k)) & vec4<u32>(0x7fffffffu));
    }
    let most = max(max(most4.x, most4.y), max(most4.z, most4.w));
    if most == 0u {
        return vec2<f32>();
    }
    if most >= EXPONENT {
        var nan = 0x7fc00000u;
        return vec2<f32>(1.0, bitcast<f32>(nan));
    }
    // 127 + 2 - e for a largest number from 2^e to 2^(e+1), where e is at least -60.
    let exponent = max(most >> 23u, 67u);
    let power = power_of_two(256u - exponent);
    // A sum of sums of 4096 columns, whose rounding errors do not grow with the width.
    var squares = vec4<f32>();
    for (var begin = 0u; begin < params.width; begin += 4096u) {
        var part = vec4<f32>();
        for (var k = begin; k < min(begin + 4096u, params.width); k += 4u) {
            let scaled = power * rows_vec4(row + k, params.width - k);
            part += scaled * scaled;
        }
        squares += part;
    }
    let square = (squares.x + squares.y) + (squares.z + squares.w);
    // The floor matters to small rows alone; squares below 1e-12 belong to lengths far below it.
    let most_inverse = 1e12 * power_of_two(min(exponent, 200u) - 2u);
    let inverse = min(inverse_root(max(square, 1e-12)), most_inverse);
    return vec2<f32>(power, inverse);
}
