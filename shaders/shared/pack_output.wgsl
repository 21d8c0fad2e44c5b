// Packs 32-bit results into 16-bit or 8-bit elements.
//
// One thread writes one 32-bit word of the output. Elements of the first and the last word that are not part of the
// output keep their values. Rounding is to nearest, ties to even; NaN stays NaN.
// PACKING: 1 f16, 2 bf16, 3 u8, 4 u16. LANES: elements per word.

struct PackOutputParams {
    groups: u32,
    grid_width: u32,
    // Index of the output's first element in the binding.
    base: u32,
    length: u32,
    words: u32,
}
@group(0) @binding(0) var<uniform> params: PackOutputParams;

fn narrow(bits: u32) -> u32 {
    if PACKING == 1u {
        return pack2x16float(vec2<f32>(bitcast<f32>(bits), 0.0)) & 0xffffu;
    }
    if PACKING == 2u {
        if (bits & 0x7fffffffu) > 0x7f800000u {
            // Rounding up could turn a NaN into an infinity.
            return (bits >> 16u) | 0x40u;
        }
        return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    }
    return bits & ((1u << (32u / LANES)) - 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let word = group_index(id) * 64u + thread;
    if word >= params.words {
        return;
    }
    let bits = 32u / LANES;
    var value = packed[word];
    for (var lane = 0u; lane < LANES; lane++) {
        let element = word * LANES + lane;
        if element >= params.base && element - params.base < params.length {
            value = insertBits(value, narrow(source[element - params.base]), lane * bits, bits);
        }
    }
    packed[word] = value;
}
