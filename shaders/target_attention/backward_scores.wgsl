// For target_attention/backward.wgsl: the weights of four behaviours for the rows of a thread, and the gradients of their
// scores.
//
//     s[r,l] = factor · ⟨scale · q[r], k[l]⟩ + bias[l, head of r]
//     softmax:  P = exp(s − shift) · factor of the row      dS = P · (⟨grad_out, v⟩ − D + grad_lse)
//     others:   P = w(s)                                    dS = w′(s) · ⟨grad_out, v⟩
//
// `rows` holds, packed by target_attention/pack_queries.wgsl, the scaled queries and the gradients of the output, each as one
// 4 × 4 matrix for four rows of the tile and a vec4 of the width; and the states of the rows, from
// target_attention/backward_rows.wgsl: the shifts, the factors, and D − grad_lse. Keys and values are read through
// target_attention/keys.wgsl and target_attention/values.wgsl, or through tin/rows.wgsl.

struct BackwardParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The tiles of each user that this dispatch goes over.
    first_tile: u32,
    last_tile: u32,
    kv_heads: u32,
    // Query heads that share a key/value head.
    group_heads: u32,
    width: u32,
    value_width: u32,
    // Distance between the values of two behaviours, which includes all heads.
    value_stride: u32,
    // The history row at the start of the bindings.
    first_history: u32,
    keys_base: u32,
    values_base: u32,
    bias_base: u32,
    grad_keys_base: u32,
    grad_values_base: u32,
    // Where the gradients of the output and the states begin in `rows`, in vec4s; where the gradients of the bias begin in
    // `partial`, in numbers.
    first_grad_out: u32,
    first_state: u32,
    first_bias: u32,
    // What remains of the scale; the queries carry the rest, which is the factor on their own gradients.
    factor: f32,
    query_factor: f32,
    divisor: f32,
    tile: u32,
    // Partial results of a span for one query.
    shares: u32,
    weighting: u32,
    has_bias: u32,
    // One bit for each gradient that is asked for, of queries, keys, values and bias.
    wants: u32,
    // The gradients of the values are added to those of the keys, which they are.
    aliased: u32,
    // For tin/rows.wgsl: whether positions are given, and the last row of their table.
    has_places: u32,
    last_position: u32,
}
@group(0) @binding(0) var<uniform> params: BackwardParams;

// Weightings.
const SOFTMAX: u32 = 0u;
const RELU: u32 = 1u;
const SILU: u32 = 2u;
// 3: identity.

// What SiLU is divided by, for the user of the piece.
var<private> silu_divisor: f32;

// Numbers of 4 behaviours (0..3) for rows 0..3 (a) and 4..7 (b) of a thread.
struct Block {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

// The states of the rows of a thread.
struct States {
    shift_a: vec4<f32>, shift_b: vec4<f32>,
    factor_a: vec4<f32>, factor_b: vec4<f32>,
    subtracted_a: vec4<f32>, subtracted_b: vec4<f32>,
}

// What a thread computes of 4 behaviours: their weights, the gradients of their scores, and one bit for each row that a
// behaviour gives nothing.
struct Weighed {
    weights: Block,
    grads: Block,
    left_out: vec4<u32>,
}

fn rows_matrix(place: u32) -> mat4x4<f32> {
    return mat4x4<f32>(rows[place], rows[place + 1u], rows[place + 2u], rows[place + 3u]);
}

// The products of four keys and the queries from `first` on. `tile` is the first of the user's.
fn key_products(row: vec4<u32>, kv_head: u32, tile: u32, first: u32) -> Block {
    let place0 = key_place(row.x, kv_head, tile); let place1 = key_place(row.y, kv_head, tile);
    let place2 = key_place(row.z, kv_head, tile); let place3 = key_place(row.w, kv_head, tile);
    var s = Block();
    var place = first;
    for (var k = 0u; k < params.width; k += 4u) {
        let left = params.width - k;
        let key0 = key_vec4(place0, k, left); let key1 = key_vec4(place1, k, left);
        let key2 = key_vec4(place2, k, left); let key3 = key_vec4(place3, k, left);
        let a = rows_matrix(place);
        s.a0 += key0 * a; s.a1 += key1 * a; s.a2 += key2 * a; s.a3 += key3 * a;
        if GROUP4 > 1u {
            let b = rows_matrix(place + 4u);
            s.b0 += key0 * b; s.b1 += key1 * b; s.b2 += key2 * b; s.b3 += key3 * b;
        }
        place += params.tile;
    }
    return s;
}

// The products of four values and the gradients of the output from `first` on.
fn value_products(row: vec4<u32>, kv_head: u32, tile: u32, first: u32) -> Block {
    let own_value = first_value(kv_head, 0u);
    let place0 = value_place(row.x, own_value, tile); let place1 = value_place(row.y, own_value, tile);
    let place2 = value_place(row.z, own_value, tile); let place3 = value_place(row.w, own_value, tile);
    var s = Block();
    var place = first;
    for (var k = 0u; k < params.value_width; k += 4u) {
        let left = params.value_width - k;
        let value0 = value_vec4(place0, k, left); let value1 = value_vec4(place1, k, left);
        let value2 = value_vec4(place2, k, left); let value3 = value_vec4(place3, k, left);
        let a = rows_matrix(place);
        s.a0 += value0 * a; s.a1 += value1 * a; s.a2 += value2 * a; s.a3 += value3 * a;
        if GROUP4 > 1u {
            let b = rows_matrix(place + 4u);
            s.b0 += value0 * b; s.b1 += value1 * b; s.b2 += value2 * b; s.b3 += value3 * b;
        }
        place += params.tile;
    }
    return s;
}

fn bias_of(row: u32, kv_head: u32, r: u32) -> vec4<f32> {
    let head = (vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u)) % params.group_heads;
    let place = params.bias_base + (row * params.kv_heads + kv_head) * params.group_heads;
    return vec4<f32>(
        bias_at(place + head.x), bias_at(place + head.y), bias_at(place + head.z), bias_at(place + head.w));
}

// The scores of four behaviours; `r` is the first row of the thread, counted from the user's first.
fn scores_of(before: Block, row: vec4<u32>, kv_head: u32, r: u32) -> Block {
    var s = before;
    s.a0 *= params.factor; s.a1 *= params.factor; s.a2 *= params.factor; s.a3 *= params.factor;
    s.b0 *= params.factor; s.b1 *= params.factor; s.b2 *= params.factor; s.b3 *= params.factor;
    if params.has_bias == 1u {
        s.a0 += bias_of(row.x, kv_head, r); s.a1 += bias_of(row.y, kv_head, r);
        s.a2 += bias_of(row.z, kv_head, r); s.a3 += bias_of(row.w, kv_head, r);
        if GROUP4 > 1u {
            s.b0 += bias_of(row.x, kv_head, r + 4u); s.b1 += bias_of(row.y, kv_head, r + 4u);
            s.b2 += bias_of(row.z, kv_head, r + 4u); s.b3 += bias_of(row.w, kv_head, r + 4u);
        }
    }
    return s;
}

// The states of a thread's rows; `place` is that of the tile's shifts.
fn states_of(place: u32, row_group: u32) -> States {
    var states = States();
    if params.weighting == SOFTMAX {
        let rows4 = params.tile / 4u;
        let own = place + row_group * GROUP4;
        states.shift_a = rows[own];
        states.factor_a = rows[own + rows4];
        states.subtracted_a = rows[own + 2u * rows4];
        if GROUP4 > 1u {
            states.shift_b = rows[own + 1u];
            states.factor_b = rows[own + rows4 + 1u];
            states.subtracted_b = rows[own + 2u * rows4 + 1u];
        }
    }
    return states;
}

struct Pair {
    weight: vec4<f32>,
    grad: vec4<f32>,
}

// Weights and gradients of scores, given the products of grad_out and values.
fn pair_of(score: vec4<f32>, product: vec4<f32>, shift: vec4<f32>, factor: vec4<f32>, subtracted: vec4<f32>) -> Pair {
    if params.weighting == SOFTMAX {
        // No score exceeds log-sum-exp, or the largest score, but by rounding. NaN stays.
        let above = score - shift;
        let weight = exp_of(select(above, vec4<f32>(), above > vec4<f32>())) * factor;
        return Pair(weight, weight * (product - subtracted));
    }
    if params.weighting == RELU {
        let weight = select(score, vec4<f32>(), score < vec4<f32>());
        // 0 at 0, NaN for NaN.
        let is_nan = (bitcast<vec4<u32>>(score) & vec4<u32>(0x7fffffffu)) > vec4<u32>(EXPONENT);
        let slope = select(select(vec4<f32>(), vec4<f32>(1.0), score > vec4<f32>()), score, is_nan);
        return Pair(weight, slope * product);
    }
    if params.weighting == SILU {
        let sigmoid = sigmoid_of(score);
        let slope = sigmoid * (1.0 + score * sigmoid_of(-score));
        return Pair(score * sigmoid / silu_divisor, slope / silu_divisor * product);
    }
    return Pair(score, product);
}

// Which of four rows a behaviour gives nothing: those that a score of -∞ removes, and those that are none.
fn is_left_out(score: vec4<f32>, none: vec4<bool>) -> vec4<bool> {
    return none | ((bitcast<vec4<u32>>(score) == vec4<u32>(NEGATIVE_INFINITY)) & vec4<bool>(params.weighting <= SILU));
}

fn bits_of(flags: vec4<bool>) -> u32 {
    let bits = select(vec4<u32>(), vec4<u32>(1u, 2u, 4u, 8u), flags);
    return bits.x | bits.y | bits.z | bits.w;
}

// Weights and gradients of four behaviours. `live` says which of them there are, `missing` which rows there are not.
fn weigh(s: Block, products: Block, states: States, live: vec4<bool>, missing_a: vec4<bool>, missing_b: vec4<bool>) -> Weighed {
    var w: Weighed;
    let zero = vec4<f32>();
    let dead = !live;
    let out0 = is_left_out(s.a0, missing_a | vec4<bool>(dead.x)); let out1 = is_left_out(s.a1, missing_a | vec4<bool>(dead.y));
    let out2 = is_left_out(s.a2, missing_a | vec4<bool>(dead.z)); let out3 = is_left_out(s.a3, missing_a | vec4<bool>(dead.w));
    let a0 = pair_of(s.a0, products.a0, states.shift_a, states.factor_a, states.subtracted_a);
    let a1 = pair_of(s.a1, products.a1, states.shift_a, states.factor_a, states.subtracted_a);
    let a2 = pair_of(s.a2, products.a2, states.shift_a, states.factor_a, states.subtracted_a);
    let a3 = pair_of(s.a3, products.a3, states.shift_a, states.factor_a, states.subtracted_a);
    w.weights.a0 = select(a0.weight, zero, out0); w.weights.a1 = select(a1.weight, zero, out1);
    w.weights.a2 = select(a2.weight, zero, out2); w.weights.a3 = select(a3.weight, zero, out3);
    w.grads.a0 = select(a0.grad, zero, out0); w.grads.a1 = select(a1.grad, zero, out1);
    w.grads.a2 = select(a2.grad, zero, out2); w.grads.a3 = select(a3.grad, zero, out3);
    w.left_out = vec4<u32>(bits_of(out0), bits_of(out1), bits_of(out2), bits_of(out3));
    if GROUP4 > 1u {
        let out4 = is_left_out(s.b0, missing_b | vec4<bool>(dead.x)); let out5 = is_left_out(s.b1, missing_b | vec4<bool>(dead.y));
        let out6 = is_left_out(s.b2, missing_b | vec4<bool>(dead.z)); let out7 = is_left_out(s.b3, missing_b | vec4<bool>(dead.w));
        let b0 = pair_of(s.b0, products.b0, states.shift_b, states.factor_b, states.subtracted_b);
        let b1 = pair_of(s.b1, products.b1, states.shift_b, states.factor_b, states.subtracted_b);
        let b2 = pair_of(s.b2, products.b2, states.shift_b, states.factor_b, states.subtracted_b);
        let b3 = pair_of(s.b3, products.b3, states.shift_b, states.factor_b, states.subtracted_b);
        w.weights.b0 = select(b0.weight, zero, out4); w.weights.b1 = select(b1.weight, zero, out5);
        w.weights.b2 = select(b2.weight, zero, out6); w.weights.b3 = select(b3.weight, zero, out7);
        w.grads.b0 = select(b0.grad, zero, out4); w.grads.b1 = select(b1.grad, zero, out5);
        w.grads.b2 = select(b2.grad, zero, out6); w.grads.b3 = select(b3.grad, zero, out7);
        w.left_out |= vec4<u32>(bits_of(out4), bits_of(out5), bits_of(out6), bits_of(out7)) << vec4<u32>(4u);
    }
    return w;
}
