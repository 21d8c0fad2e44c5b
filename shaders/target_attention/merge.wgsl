// Merges softmax attention over two disjoint parts of the same histories.
//
//     lse = log(exp lse_a + exp lse_b)       out = exp(lse_a − lse)·out_a + exp(lse_b − lse)·out_b
//
// One thread per element of the output. Log-sum-exps are read as bits, because WGSL does not guarantee arithmetic on
// infinities: a part of -∞ (no behaviours) has no weight, whatever its result holds; +∞ or NaN in a part gives NaN.

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
    let live_a = a_bits != NEGATIVE_INFINITY;
    let live_b = b_bits != NEGATIVE_INFINITY;
    let a = bitcast<f32>(a_bits);
    let b = bitcast<f32>(b_bits);
    let max_lse = select(select(0.0, b, live_b), select(a, max(a, b), live_b), live_a);
    let weight_a = select(0.0, exp_one(a - max_lse), live_a);
    let weight_b = select(0.0, exp_one(b - max_lse), live_b);
    let weight_sum = weight_a + weight_b;
    var value = 0.0;
    if live_a {
        value += 0.5 * (weight_a / weight_sum) * first_at(params.first_base + index);
    }
    if live_b {
        value += 0.5 * (weight_b / weight_sum) * second_at(params.second_base + index);
    }
    var lse = NEGATIVE_INFINITY;
    if live_a || live_b {
        lse = bitcast<u32>(max_lse + log(weight_sum));
    }
    var result = bitcast<u32>(doubled(vec4<f32>(value)).x);
    if !is_number(a_bits) || !is_number(b_bits) {
        result = NOT_A_NUMBER;
        lse = NOT_A_NUMBER;
    }
    out[params.out_base + index] = result;
    if params.has_lse == 1u && index % params.width == 0u {
        lse_bits[params.lse_base + row] = lse;
    }
}

const NOT_A_NUMBER: u32 = 0x7fc00000u;

// Whether a log-sum-exp is finite or -∞.
fn is_number(bits: u32) -> bool {
    return (bits & EXPONENT) != EXPONENT || bits == NEGATIVE_INFINITY;
}
