// Merges softmax attention over two disjoint parts of the same histories.
//
//     lse = log(exp lse_a + exp lse_b)       out = exp(lse_a − lse)·out_a + exp(lse_b − lse)·out_b
//
// One thread per element of the output. Log-sum-exps are read as bits: -∞ (no behaviours) is detected by comparing
// bits, because WGSL does not guarantee arithmetic on infinities.

struct MergeParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    first_base: u32,
    second_base: u32,
    first_lse_base: u32,
    second_lse_base: u32,
    out_base: u32,
    lse_base: u32,
    has_lse: u32,
}
@group(0) @binding(0) var<uniform> params: MergeParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = index / params.width;
    let a_bits = first_lse[params.first_lse_base + row];
    let b_bits = second_lse[params.second_lse_base + row];
    let a = select(bitcast<f32>(a_bits), LOWEST, a_bits == NEGATIVE_INFINITY);
    let b = select(bitcast<f32>(b_bits), LOWEST, b_bits == NEGATIVE_INFINITY);
    let max_lse = max(a, b);
    let weight_a = select(exp_one(a - max_lse), 0.0, a_bits == NEGATIVE_INFINITY);
    let weight_b = select(exp_one(b - max_lse), 0.0, b_bits == NEGATIVE_INFINITY);
    let weight_sum = weight_a + weight_b;
    var value = 0.0;
    // A result of weight zero does not contribute, even if its row holds NaN.
    if weight_a > 0.0 {
        value += weight_a * first_at(params.first_base + index);
    }
    if weight_b > 0.0 {
        value += weight_b * second_at(params.second_base + index);
    }
    out[params.out_base + index] = select(0.0, value / weight_sum, weight_sum > 0.0);
    if params.has_lse == 1u && index % params.width == 0u {
        lse_bits[params.lse_base + row] =
            select(NEGATIVE_INFINITY, bitcast<u32>(max_lse + log(weight_sum)), weight_sum > 0.0);
    }
}
