// The gradients of a merge of two results of softmax attention, of one of its two parts.
//
//     dout_i = w_i·grad_out     dlse_i = w_i·(⟨grad_out, out_i⟩ − ⟨grad_out, out⟩ + grad_lse)
//                                      = w_i·(w_j·⟨grad_out, out_i − out_j⟩ + grad_lse)       w_i = exp(lse_i − lse)
//
// One thread per row. Log-sum-exps are read as bits, because WGSL does not guarantee arithmetic on infinities: a part of -∞
// counts for nothing and gets zeros, whatever its row holds; +∞ or NaN in a part gives NaN.

struct MergeBackwardParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    width: u32,
    own_base: u32,
    other_base: u32,
    own_lse_base: u32,
    other_lse_base: u32,
    grad_out_base: u32,
    grad_lse_base: u32,
    out_base: u32,
    lse_base: u32,
    has_grad_lse: u32,
    wants_out: u32,
    wants_lse: u32,
}
@group(0) @binding(0) var<uniform> params: MergeBackwardParams;

const NOT_A_NUMBER: u32 = 0x7fc00000u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(id) * 64u + thread;
    if row >= params.rows {
        return;
    }
    let own_bits = own_lse[params.own_lse_base + row];
    let other_bits = other_lse[params.other_lse_base + row];
    let is_live = own_bits != NEGATIVE_INFINITY;
    let other_is_live = other_bits != NEGATIVE_INFINITY;
    let own = bitcast<f32>(own_bits);
    let other = bitcast<f32>(other_bits);
    let max_lse = select(own, max(own, other), other_is_live);
    let own_weight = exp_one(own - max_lse);
    let other_weight = select(0.0, exp_one(other - max_lse), other_is_live);
    let weight = own_weight / (own_weight + other_weight);
    let is_sound = is_number(own_bits) && is_number(other_bits);
    if params.wants_out == 1u {
        for (var c = 0u; c < params.width; c++) {
            var grad = bitcast<u32>(weight * grad_out_at(params.grad_out_base + row * params.width + c));
            if !is_sound { grad = NOT_A_NUMBER; }
            if !is_live { grad = 0u; }
            grad_own[params.out_base + row * params.width + c] = grad;
        }
    }
    if params.wants_lse == 1u {
        let product = other_weight / (own_weight + other_weight);
        var result = weight * (product * difference(row, other_is_live, 1.0));
        if is_infinite_or_nan(result) {
            // The sum alone may leave the range.
            result = weight * (product * difference(row, other_is_live, SMALL)) / SMALL;
        }
        if params.has_grad_lse == 1u {
            result += weight * grad_lse_at(params.grad_lse_base + row);
        }
        var grad = bitcast<u32>(result);
        if !is_sound { grad = NOT_A_NUMBER; }
        if !is_live { grad = 0u; }
        grad_own_lse[params.lse_base + row] = grad;
    }
}

// 2⁻³².
const SMALL: f32 = 2.3283064365386963e-10;

// ⟨grad_out, own − other⟩, times `factor`; a dead part counts as zeros.
fn difference(row: u32, other_is_live: bool, factor: f32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < params.width; c++) {
        let i = row * params.width + c;
        var apart = factor * own_at(params.own_base + i);
        if other_is_live {
            apart -= factor * other_at(params.other_base + i);
        }
        sum += grad_out_at(params.grad_out_base + i) * apart;
    }
    return sum;
}

fn is_infinite_or_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & EXPONENT) == EXPONENT;
}

// Whether a log-sum-exp is finite or -∞.
fn is_number(bits: u32) -> bool {
    return (bits & EXPONENT) != EXPONENT || bits == NEGATIVE_INFINITY;
}
