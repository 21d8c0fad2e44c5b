// The weights and the gradients of the scores of a head of a candidate, from the α and products of all its slots:
//
//     dα = w·(⟨grad_out, v⟩ − D + grad_lse)      D = Σ w·⟨grad_out, v⟩
//     ds = dα·(γ₁ + γ₃·R)      dR[m,k] = Σ_h dα·(γ₂ + γ₃·s)      dγ[h] = Σ dα·(s, R, s·R)
//
// One workgroup of 64 threads per candidate and head. numbers[m,k,h] are the weights, then ds, as bits: NONE where a slot is
// removed, ds also where scores are left out. Then come what heads add to dR, where it is wanted: 0 where nothing is added.
// gamma_parts[m,h] is what a candidate adds to dγ.

struct SelectedWeightsParams {
    groups: u32,
    grid_width: u32,
    heads: u32,
    top_k: u32,
    gammas_base: u32,
    grad_lse_base: u32,
    // Where each kind of numbers begins.
    first_weight: u32,
    first_grad: u32,
    first_similarity: u32,
    // The first of the dispatch.
    first_gamma_part: u32,
    has_gammas: u32,
    has_grad_lse: u32,
    wants_similarities: u32,
    wants_gammas: u32,
}
@group(0) @binding(0) var<uniform> params: SelectedWeightsParams;

const NOT_A_NUMBER: u32 = 0x7fc00000u;

// The bits of a number. A NaN could have those of NONE.
fn bits_of(number: f32) -> u32 {
    let bits = bitcast<u32>(number);
    return select(bits, NOT_A_NUMBER, (bits & 0x7fffffffu) > EXPONENT);
}

fn gammas_of(head: u32) -> vec3<f32> {
    if params.has_gammas == 0u {
        return vec3<f32>(1.0, 0.0, 0.0);
    }
    let place = params.gammas_base + 3u * head;
    return vec3<f32>(gammas[place], gammas[place + 1u], gammas[place + 2u]);
}

// factor · number, or nothing if the factor is 0.
fn term(factor: f32, number: f32) -> f32 {
    if factor == 0.0 {
        return 0.0;
    }
    return factor * number;
}

// The shift and the sum of the exponentials.
fn state_of(first_pair: u32, thread: u32) -> vec2<f32> {
    var own_max = negative_infinity();
    for (var k = thread; k < params.top_k; k += 64u) {
        own_max = max(own_max, pairs[first_pair + k].x);
    }
    let shift = shift_of(vec4<f32>(max_of_all(own_max, thread))).x;
    var own_sum = 0.0;
    for (var begin = thread; begin < params.top_k; begin += 2048u) {
        var some = 0.0;
        for (var k = begin; k < min(begin + 2048u, params.top_k); k += 64u) {
            let alpha = pairs[first_pair + k].x;
            if !is_removed(alpha) {
                some += exp_one(alpha - shift);
            }
        }
        own_sum += some;
    }
    return vec2<f32>(shift, sum_of_all(own_sum, thread));
}

// D.
fn mean_of(first_pair: u32, state: vec2<f32>, thread: u32) -> f32 {
    var own_mean = 0.0;
    for (var begin = thread; begin < params.top_k; begin += 2048u) {
        var some = 0.0;
        for (var k = begin; k < min(begin + 2048u, params.top_k); k += 64u) {
            let pair = pairs[first_pair + k];
            if !is_removed(pair.x) {
                some += exp_one(pair.x - state.x) / state.y * pair.z;
            }
        }
        own_mean += some;
    }
    return sum_of_all(own_mean, thread);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let candidate = group / params.heads;
    let head = group % params.heads;
    let gamma = gammas_of(head);
    let first_pair = group * params.top_k;
    let state = state_of(first_pair, thread);
    var subtracted = mean_of(first_pair, state, thread);
    if params.has_grad_lse == 1u {
        subtracted -= grad_lse[params.grad_lse_base + group];
    }
    var own_gammas = vec3<f32>();
    for (var begin = thread; begin < params.top_k; begin += 2048u) {
        var some = vec3<f32>();
        for (var k = begin; k < min(begin + 2048u, params.top_k); k += 64u) {
            let pair = pairs[first_pair + k];
            let slot = candidate * params.top_k + k;
            let place = slot * params.heads + head;
            var weight_bits = NONE;
            var grad_bits = NONE;
            var added = 0.0;
            if !is_removed(pair.x) {
                let similarity = bitcast<f32>(kept[slot].x);
                let weight = exp_one(pair.x - state.x) / state.y;
                let grad = weight * (pair.z - subtracted);
                weight_bits = bits_of(weight);
                if !(gamma.x == 0.0 && gamma.z == 0.0) {
                    grad_bits = bits_of(grad * (gamma.x + term(gamma.z, similarity)));
                }
                if !(gamma.y == 0.0 && gamma.z == 0.0) {
                    added = grad * (gamma.y + term(gamma.z, pair.y));
                }
                some += grad * vec3<f32>(pair.y, similarity, pair.y * similarity);
            }
            numbers[params.first_weight + place] = weight_bits;
            numbers[params.first_grad + place] = grad_bits;
            if params.wants_similarities == 1u {
                numbers[params.first_similarity + place] = bitcast<u32>(added);
            }
        }
        own_gammas += some;
    }
    if params.wants_gammas == 1u {
        for (var i = 0u; i < 3u; i++) {
            let sum = sum_of_all(own_gammas[i], thread);
            if thread == 0u {
                gamma_parts[params.first_gamma_part + 3u * group + i] = sum;
            }
        }
    }
}
