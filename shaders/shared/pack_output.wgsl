// Packs 32-bit results into 16-bit or 8-bit elements.
//
// One thread owns one 32-bit word of the output. In the first and the last word some elements may belong to others:
// they are kept. Rounding is to nearest, ties to even; NaN stays NaN.
// PACKING: 1 f16, 2 bf16, 3 u8, 4 u16. LANES: elements a word.

struct Params {
    groups: u32,
    grid_width: u32,
    // The output's first element, counted from the binding's start.
    base: u32,
    length: u32,
    words: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

fn narrow(bits: u32) -> u32 {
    if PACKING == 1u {
        return pack2x16float(vec2<f32>(bitcast<f32>(bits), 0.0)) & 0xffffu;
    }
    if PACKING == 2u {
        if (bits & 0x7fffffffu) > 0x7f800000u {
            // Adding the rounding could carry a NaN over into an infinity.
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
