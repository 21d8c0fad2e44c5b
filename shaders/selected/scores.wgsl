// The scores of a part's slots, 64 at a time:
//
//     s = scale · ⟨q, k⟩ + bias        α = γ₁·s + γ₂·R + γ₃·s·R
//
// `key_lanes` threads, a power of two up to 16, share a slot: neighbouring threads read neighbouring columns of a row, and
// each has several rows under way. Then every thread adds up the products of one slot, in the order of the columns.
//
// A γ of 0 leaves its term out. A similarity or bias of -∞ removes a slot, as does a score of -∞ that is not left out, or an
// α of -∞. The similarity of a slot that is not in the selection is not read.

const BLOCK: u32 = 64u;
// Products of a slot: those of 16 lanes, padded so that threads that add up their own slots use different banks.
const STRIDE: u32 = 17u;

var<workgroup> products: array<f32, 1088>;

struct Score {
    score: f32,
    // -∞ if the slot is removed.
    alpha: f32,
}

// γ₁, γ₂, γ₃.
fn gammas_of(head: u32) -> vec3<f32> {
    if params.has_gammas == 0u {
        return vec3<f32>(1.0, 0.0, 0.0);
    }
    let place = params.gammas_base + 3u * head;
    return vec3<f32>(gammas[place], gammas[place + 1u], gammas[place + 2u]);
}

fn use_scores(gamma: vec3<f32>) -> bool {
    return gamma.x != 0.0 || gamma.z != 0.0;
}

// factor · number, or nothing if the factor is 0.
fn term(factor: f32, number: f32) -> f32 {
    if factor == 0.0 {
        return 0.0;
    }
    return factor * number;
}

// The products of the query and the keys of 64 slots.
fn multiply_keys(part: Part, block: u32, thread: u32) {
    let lanes = params.key_lanes;
    let lane = thread % lanes;
    let column = 4u * lane;
    let query = params.queries_base + query_of(part) * params.width;
    var own = vec4<f32>();
    if column < params.width {
        own = queries_vec4(query + column, params.width - column);
    }
    for (var s = thread / lanes; s < BLOCK; s += BLOCK / lanes) {
        var sum = 0.0;
        if block + s < part.count && column < params.width {
            let row = slot_rows[block + s];
            if row != NONE {
                let key = params.keys_base + place_of(row, part.head) * params.width;
                var sums = own * keys_vec4(key + column, params.width - column);
                for (var c = column + 4u * lanes; c < params.width; c += 4u * lanes) {
                    let left = params.width - c;
                    sums += queries_vec4(query + c, left) * keys_vec4(key + c, left);
                }
                sum = (sums.x + sums.y) + (sums.z + sums.w);
            }
        }
        products[s * STRIDE + lane] = sum;
    }
}

// The sum of what so many threads have of a slot.
fn sum_of_lanes(s: u32, lanes: u32) -> f32 {
    var sum = products[s * STRIDE];
    for (var lane = 1u; lane < lanes; lane++) {
        sum += products[s * STRIDE + lane];
    }
    return sum;
}

// Of a slot whose product with the query is `product`.
fn score_of(part: Part, slot: u32, product: f32, gamma: vec3<f32>) -> Score {
    let row = slot_rows[slot];
    if row == NONE {
        return Score(0.0, negative_infinity());
    }
    var score = params.scale * product;
    if params.has_bias == 1u {
        let added = bias[params.bias_base + row * params.heads + part.head];
        if is_removed(added) {
            return Score(0.0, negative_infinity());
        }
        score += added;
    }
    let similarity = bitcast<f32>(kept[part.first + slot].x);
    var alpha = term(gamma.y, similarity);
    if use_scores(gamma) {
        if is_removed(score) {
            return Score(score, negative_infinity());
        }
        alpha += term(gamma.x, score) + term(gamma.z, score * similarity);
    }
    return Score(score, alpha);
}
