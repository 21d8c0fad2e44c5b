// Prepares the candidates of a part for DIN's backward pass, widened to f32 and padded with zeros:
//
//     candidates[m,:] = [q ; gradient of the output ; (W_q + W_d)·q + b₁]
//
// One thread writes one vec4. Neighbouring threads have neighbouring vec4s of a candidate.

struct DinBackwardCandidatesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    units4: u32,
    targets_base: u32,
    grad_out_base: u32,
    has_grad_out: u32,
    // Of W_q + W_d, with a row for each input, and of the bias.
    weights: u32,
    vectors: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardCandidatesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let stride = 2u * width4 + params.units4;
    let m = index / stride;
    let column4 = index % stride;
    let row = m * params.width;
    var result = vec4<f32>();
    if column4 < width4 {
        let k = 4u * column4;
        result = targets_vec4(params.targets_base + row + k, params.width - k);
    } else if column4 < 2u * width4 {
        let k = 4u * (column4 - width4);
        if params.has_grad_out == 1u {
            result = grad_out_vec4(params.grad_out_base + row + k, params.width - k);
        }
    } else {
        let unit4 = column4 - 2u * width4;
        result = network[params.vectors + unit4];
        for (var k = 0u; k < params.width; k++) {
            result += targets_at(params.targets_base + row + k) * network[params.weights + k * params.units4 + unit4];
        }
    }
    candidates[index] = result;
}
