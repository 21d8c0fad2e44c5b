// A step of an optimiser on the rows of a table that have a gradient; formulas in src/ops/lookup/update_rows.rs.
//
// One thread per 32-bit word of a row. A word of a 16-bit table may hold the last number of a row and the first of the next (or two
// whole rows): the thread of the first of them that has a gradient changes the word, and both numbers if both have one.
// STORED: 0 f32, 1 f16, 2 bf16. LANES: numbers per word. Rounding is to nearest, ties to even; NaN stays NaN.

struct UpdateRowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // The most words that a row touches.
    words: u32,
    ids_base: u32,
    gradient_base: u32,
    table_base: u32,
    first_base: u32,
    second_base: u32,
    rows: u32,
    width: u32,
    // SGD, ROW_WISE_ADAGRAD, ADAGRAD, or Adam.
    method: u32,
    rate: f32,
    // What remains of a weight.
    kept: f32,
    eps: f32,
    beta1: f32,
    beta2: f32,
    new1: f32,
    new2: f32,
    // Correct the bias of the moments.
    mean: f32,
    square: f32,
}
@group(0) @binding(0) var<uniform> params: UpdateRowsParams;

const SGD: u32 = 0u;
const ROW_WISE_ADAGRAD: u32 = 1u;
const ADAGRAD: u32 = 2u;

fn widen(bits: u32) -> f32 {
    if STORED == 1u {
        return unpack2x16float(bits).x;
    }
    return bitcast<f32>(select(bits, bits << 16u, STORED == 2u));
}

fn narrow(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    if STORED == 1u {
        return pack2x16float(vec2<f32>(value, 0.0)) & 0xffffu;
    }
    if STORED == 2u {
        if (bits & 0x7fffffffu) > 0x7f800000u {
            // Rounding up could turn a NaN into an infinity.
            return (bits >> 16u) | 0x40u;
        }
        return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    }
    return bits;
}

// The step of a number: `index` is that of its row in the gradient, `element` its own in the table.
fn stepped(w: f32, index: u32, element: u32) -> f32 {
    let g = gradient[params.gradient_base + index * params.width + element % params.width];
    let kept = params.kept * w;
    if params.method == SGD {
        return kept - params.rate * g;
    }
    if params.method == ROW_WISE_ADAGRAD {
        return kept - factors[index] * g;
    }
    let first_place = params.first_base + element;
    if params.method == ADAGRAD {
        let sum = first[first_place] + g * g;
        first[first_place] = sum;
        return kept - params.rate * (g / (sqrt(sum) + params.eps));
    }
    let second_place = params.second_base + element;
    let m = params.beta1 * first[first_place] + params.new1 * g;
    let v = params.beta2 * second[second_place] + params.new2 * (g * g);
    first[first_place] = m;
    second[second_place] = v;
    return kept - params.rate * (m * params.mean / (sqrt(v * params.square) + params.eps));
}

// The index in the gradient of a row, which is that of `index`, the one before or the one after; NONE if it has no gradient.
fn index_of(row: u32, id: u32, index: u32, count: u32) -> u32 {
    if row == id {
        return index;
    }
    if row < id {
        if index > 0u {
            if ids[params.ids_base + index - 1u] == row {
                return index - 1u;
            }
        }
        return NONE;
    }
    if index + 1u < count {
        if ids[params.ids_base + index + 1u] == row {
            return index + 1u;
        }
    }
    return NONE;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let item = group_index(group) * 64u + thread;
    let index = item / params.words;
    let count = live[0];
    if item >= params.threads || index >= count {
        return;
    }
    let id = ids[params.ids_base + index];
    let start = params.table_base + id * params.width;
    let word = start / LANES + item % params.words;
    if word * LANES >= start + params.width {
        return;
    }
    let bits = 32u / LANES;
    var value = table[word];
    var changed = value;
    for (var lane = 0u; lane < LANES; lane++) {
        let place = word * LANES + lane;
        if place < params.table_base || place - params.table_base >= params.rows * params.width {
            continue;
        }
        let element = place - params.table_base;
        let owner = index_of(element / params.width, id, index, count);
        if lane == 0u && owner < index {
            // The thread of the row before changes this word.
            return;
        }
        if owner != NONE {
            let number = widen(extractBits(value, lane * bits, bits));
            changed = insertBits(changed, narrow(stepped(number, owner, element)), lane * bits, bits);
        }
    }
    table[word] = changed;
}
