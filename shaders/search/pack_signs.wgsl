// Packs the signs of rotated rows: bit i of a row is 1 where ⟨x, R[:,i]⟩ > 0.
//
// One workgroup of 64 threads packs 64 bits, two words, of 8 rows. Each thread has one rotation: a load of it serves 8
// rows, neighbouring threads read neighbouring rotations, and all read the same numbers of the rows. Sums are f32, in the
// order of the width, four at a time; one of exactly 0, or NaN, gives the bit 0. Workgroup memory: 64 bytes.

struct PackSignsParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    width: u32,
    bits: u32,
    words: u32,
    rows_base: u32,
    rotations_base: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: PackSignsParams;

// The words of 8 rows, two each.
var<workgroup> packed_words: array<atomic<u32>, 16>;

// The rotation's numbers k .. k + 4, with zeros past the end.
fn rotation_vec4(bit: u32, k: u32) -> vec4<f32> {
    let last = params.width - 1u;
    let place = params.rotations_base + bit;
    let value = vec4<f32>(
        rotations[place + k * params.bits], rotations[place + min(k + 1u, last) * params.bits],
        rotations[place + min(k + 2u, last) * params.bits], rotations[place + min(k + 3u, last) * params.bits]);
    return select(vec4<f32>(), value, k + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(last));
}

fn row_vec4(row: u32, k: u32) -> vec4<f32> {
    return rows_vec4(params.rows_base + row * params.width + k, params.width - k);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let pairs = (params.words + 1u) / 2u;
    let first_word = group % pairs * 2u;
    let first_row = group / pairs * 8u;
    let last_row = params.rows - 1u;
    if thread < 16u {
        atomicStore(&packed_words[thread], 0u);
    }
    workgroupBarrier();
    let bit = first_word * 32u + thread;
    // Threads past the last bit and rows past the last one repeat it, and are not written.
    let rotation = min(bit, params.bits - 1u);
    var low = vec4<f32>();
    var high = vec4<f32>();
    for (var k = 0u; k < params.width; k += 4u) {
        let r = rotation_vec4(rotation, k);
        low += r * mat4x4<f32>(
            row_vec4(first_row, k), row_vec4(min(first_row + 1u, last_row), k),
            row_vec4(min(first_row + 2u, last_row), k), row_vec4(min(first_row + 3u, last_row), k));
        high += r * mat4x4<f32>(
            row_vec4(min(first_row + 4u, last_row), k), row_vec4(min(first_row + 5u, last_row), k),
            row_vec4(min(first_row + 6u, last_row), k), row_vec4(min(first_row + 7u, last_row), k));
    }
    if bit < params.bits {
        let own = 1u << (thread % 32u);
        let word = thread / 32u;
        for (var i = 0u; i < 4u; i++) {
            if low[i] > 0.0 { atomicOr(&packed_words[2u * i + word], own); }
            if high[i] > 0.0 { atomicOr(&packed_words[2u * (i + 4u) + word], own); }
        }
    }
    workgroupBarrier();
    let row = first_row + thread / 2u;
    let word = first_word + thread % 2u;
    if thread < 16u && row <= last_row && word < params.words {
        out[params.out_base + row * params.words + word] = atomicLoad(&packed_words[thread]);
    }
}
