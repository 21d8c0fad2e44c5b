// Prepares each candidate for din/attend.wgsl: its contribution to the first layer, then the candidate itself,
// widened to f32.
//
//     packed[m,:] = [(W_q + W_d)·q + b₁ ; q]        both padded to whole vec4s
//
// One thread writes one vec4. Neighbouring threads process neighbouring candidates, so one load of a block of weights
// serves all.

struct DinTargetsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    candidates: u32,
    width: u32,
    units4: u32,
    targets_base: u32,
    first_query_block: u32,
}
@group(0) @binding(0) var<uniform> params: DinTargetsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let m = index % params.candidates;
    let column4 = index / params.candidates;
    let width4 = (params.width + 3u) / 4u;
    let row = params.targets_base + m * params.width;
    var result = vec4<f32>();
    if column4 >= params.units4 {
        let k = 4u * (column4 - params.units4);
        result = targets_vec4(row + k, params.width - k);
    } else {
        // The bias is the first of the five vectors of these units.
        result = vectors[5u * column4];
        for (var k = 0u; k < width4; k++) {
            let q = targets_vec4(row + 4u * k, params.width - 4u * k);
            result += q * blocks[params.first_query_block + column4 * width4 + k];
        }
    }
    packed[m * (params.units4 + width4) + column4] = result;
}
