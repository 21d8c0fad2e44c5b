// Copies bytes from any byte on to any other: copied[copied_start + i] = source[source_start + i].
//
// One thread writes one word of the output. Bytes of the first and the last word that are not copied keep their values.

struct CopyBytesParams {
    groups: u32,
    grid_width: u32,
    // Bytes from the start of either binding.
    source_start: u32,
    copied_start: u32,
    bytes: u32,
    // Words that are written, at least in part.
    words: u32,
}
@group(0) @binding(0) var<uniform> params: CopyBytesParams;

fn source_byte(at: u32) -> u32 {
    return extractBits(source[at / 4u], at % 4u * 8u, 8u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.words {
        return;
    }
    let word = params.copied_start / 4u + index;
    var value = copied[word];
    for (var lane = 0u; lane < 4u; lane++) {
        let byte = word * 4u + lane;
        if byte >= params.copied_start && byte - params.copied_start < params.bytes {
            value = insertBits(value, source_byte(byte - params.copied_start + params.source_start), lane * 8u, 8u);
        }
    }
    copied[word] = value;
}
