// Makes each candidate ready for din/attend.wgsl: what it adds to the first layer, then the candidate itself, widened.
//
//     packed[m,:] = [(W_q + W_d)·q + b₁ ; q]        both in fours, rounded up
//
// One thread writes four numbers. Neighbours take neighbouring candidates: one load of a block of weights serves all.

struct Params {
    groups: u32,
    grid_width: u32,
    threads: u32,
    candidates: u32,
    width: u32,
    units4: u32,
    targets_base: u32,
    first_query_block: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let m = index % params.candidates;
    let four = index / params.candidates;
    let width4 = (params.width + 3u) / 4u;
    let row = params.targets_base + m * params.width;
    var result = vec4<f32>();
    if four >= params.units4 {
        let k = 4u * (four - params.units4);
        result = targets_four(row + k, params.width - k);
    } else {
        // The bias is the first of the five vectors of these units.
        result = vectors[5u * four];
        for (var k = 0u; k < width4; k++) {
            let q = targets_four(row + 4u * k, params.width - 4u * k);
            result += q * blocks[params.first_query_block + four * width4 + k];
        }
    }
    packed[m * (params.units4 + width4) + four] = result;
}
