// Signatures of rows: sig[i,g] = Σ_t [⟨x_i, R[:,g,t]⟩ > 0]·2^t.
//
// One thread per row and group; neighbouring threads share a row and read neighbouring rotations. Four bits at a
// time: the row is read again for every four bits. Sums are f32, in the order of the width; a projection of exactly 0
// gives the bit 0.

struct SdimSignaturesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    hash_groups: u32,
    bits: u32,
    rows_base: u32,
    rotations_base: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimSignaturesParams;

// The rotations of bits t..t+3 for element j of the row; past the last bit, the last one again.
fn rotations_of(j: u32, g: u32, t: u32) -> vec4<f32> {
    let place = params.rotations_base + (j * params.hash_groups + g) * params.bits;
    let last = params.bits - 1u;
    return vec4<f32>(
        rotations[place + t], rotations[place + min(t + 1u, last)],
        rotations[place + min(t + 2u, last)], rotations[place + min(t + 3u, last)]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = params.rows_base + index / params.hash_groups * params.width;
    let g = index % params.hash_groups;
    var signature = 0u;
    for (var t = 0u; t < params.bits; t += 4u) {
        var sum = vec4<f32>();
        for (var j = 0u; j < params.width; j += 4u) {
            let x = rows_vec4(row + j, params.width - j);
            sum += x.x * rotations_of(j, g, t);
            // Elements past the end of the row are zeros, but there are no rotations for them.
            if j + 1u < params.width { sum += x.y * rotations_of(j + 1u, g, t); }
            if j + 2u < params.width { sum += x.z * rotations_of(j + 2u, g, t); }
            if j + 3u < params.width { sum += x.w * rotations_of(j + 3u, g, t); }
        }
        let bits = select(vec4<u32>(), vec4<u32>(1u, 2u, 4u, 8u), sum > vec4<f32>());
        signature |= (bits.x | bits.y | bits.z | bits.w) << t;
    }
    out[params.out_base + index] = signature & ((1u << params.bits) - 1u);
}
