// DIN's local activation unit: a small network scores every pair of candidate and behaviour; the scores pool the
// behaviours.
//
//     a[r,l] = w_out · f(… f((W_k − W_d + W_p·diag(q_r))·s_l + c_r) …) + b_out        c_r from din/targets.wgsl
//     out[r,:] = Σ_l w(a[r,l]) · s_l
//
// One workgroup of 64 threads takes one piece of work: up to 4 candidates of one user against a part of the user's
// history, a step at a time: BEHAVIOURS of it with one candidate after the other, or half or a quarter as many with
// two or four candidates beside each other, so that short histories fill the lanes too:
//   1. layer by layer: each thread computes 4 units of a layer for 4 · GROUP4 behaviours of one candidate in registers,
//      then the next 4 units. The layers lie in workgroup memory; the last leaves only its units' share of the score;
//   2. softmax only: the peak of each candidate over the step, and how far older sums must fade;
//   3. each thread owns 4 columns of the output for all 4 candidates and adds the weighted behaviours, in registers.
// So a load of four numbers of a behaviour serves 4 units, a block of 4 × 4 weights 4 · GROUP4 behaviours, and the
// behaviours of a step stay in the nearest cache for all candidates. A part of a history leaves unnormalised sums with
// their peak and total in `partial`, which target_attention/combine.wgsl puts together; the only piece of a tile writes the
// output itself.
//
// The weights of the first layer are put together for a candidate on the fly, 16 multiply-adds for the 64 · GROUP4
// that use them: they would fill workgroup memory, and global memory with as many matrices as there are candidates.
//
// Variants: LAYERS hidden layers. BEHAVIOURS 32, 16, 8 or 4: as many as have room for two layers side by side; more
// behaviours share each load of a weight from beyond the nearest cache. GROUP4 fours of behaviours a thread: 2, but 1
// where BEHAVIOURS is 4.
// Workgroup memory: 15 KiB of units, 560 bytes. The register tile is written out, number by number: an array that a
// loop indexes lives in memory on some drivers.
//
// Precision: f32 throughout, in the order of the history; merged in the order of the parts.

struct Params {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    width: u32,
    // The part of the row that this dispatch sums.
    first_column: u32,
    value_columns: u32,
    // Groups of four columns, a power of two.
    columns: u32,
    // The history row with which the binding begins.
    first_history: u32,
    history_base: u32,
    output_bias_base: u32,
    out_base: u32,
    // Where peaks and totals begin in `partial`.
    first_stats: u32,
    weighting: u32,
    // Of each layer: fours of units, activation; of the later ones: where their blocks begin.
    units4_0: u32,
    units4_1: u32,
    units4_2: u32,
    activation_0: u32,
    activation_1: u32,
    activation_2: u32,
    first_block_1: u32,
    first_block_2: u32,
    // Where the second layer lies in workgroup memory; the first and the third lie at the start.
    second_room: u32,
    // Candidates beside each other, and the lanes of each.
    beside: u32,
    candidate_lanes: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const THREADS: u32 = 64u;
const TILE: u32 = 4u;
// Threads that share the units of a layer. The pairs of candidate and behaviour of a lane lie at lane, lane + LANES, …
const LANES: u32 = BEHAVIOURS / (4u * GROUP4);

const SOFTMAX: u32 = 0u;

// Activations.
const RELU: u32 = 0u;
const SIGMOID: u32 = 1u;
const PRELU: u32 = 2u;
// 3: Dice.

// Units of a layer: four of pair p at (fours before them) · BEHAVIOURS + p.
var<workgroup> room: array<vec4<f32>, 960>;
// Scores, then weights, of candidate r and behaviour p at r · (behaviours of a step) + p.
var<workgroup> tile_scores: array<f32, TILE * BEHAVIOURS>;
// The highest score so far of each candidate, the factor on sums that were taken below an older peak, the totals.
var<workgroup> tile_peak: array<f32, TILE>;
var<workgroup> tile_fade: array<f32, TILE>;
var<workgroup> tile_total: array<f32, TILE>;

// Four units for behaviours 0..3 (a) and 4..7 (b) of a lane.
struct Units {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

struct Layer {
    index: u32,
    activation: u32,
    units4: u32,
    // Its vectors, and where it goes in workgroup memory.
    first_vector: u32,
    place: u32,
}

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    // Clamped: the sum must stay finite.
    return 1.0 / (1.0 + exp_of(-clamp(x, vec4<f32>(-80.0), vec4<f32>(80.0))));
}

// `vector`: the first of the five vectors of the four units.
fn activate(x: vec4<f32>, activation: u32, vector: u32) -> vec4<f32> {
    if activation == RELU {
        return max(x, vec4<f32>());
    }
    if activation == SIGMOID {
        return sigmoid(x);
    }
    let alpha = vectors[vector + 3u];
    if activation == PRELU {
        return max(x, vec4<f32>()) + alpha * min(x, vec4<f32>());
    }
    let p = sigmoid(vectors[vector + 1u] * x + vectors[vector + 2u]);
    return x * (p + alpha * (1.0 - p));
}

// Activates four units of a layer, `added` included, and leaves them, or their share of the score.
fn leave(sums: Units, added: vec4<f32>, layer: Layer, unit4: u32, lane: u32) {
    let vector = layer.first_vector + 5u * unit4;
    let kind = layer.activation;
    let a0 = activate(sums.a0 + added, kind, vector); let a1 = activate(sums.a1 + added, kind, vector);
    let a2 = activate(sums.a2 + added, kind, vector); let a3 = activate(sums.a3 + added, kind, vector);
    var b0 = vec4<f32>(); var b1 = vec4<f32>(); var b2 = vec4<f32>(); var b3 = vec4<f32>();
    if GROUP4 > 1u {
        b0 = activate(sums.b0 + added, kind, vector); b1 = activate(sums.b1 + added, kind, vector);
        b2 = activate(sums.b2 + added, kind, vector); b3 = activate(sums.b3 + added, kind, vector);
    }
    if layer.index == LAYERS - 1u {
        let weight = vectors[vector + 4u];
        let place = layer.place + (unit4 * LANES + lane) * GROUP4;
        room[place] = vec4<f32>(dot(a0, weight), dot(a1, weight), dot(a2, weight), dot(a3, weight));
        if GROUP4 > 1u {
            room[place + 1u] = vec4<f32>(dot(b0, weight), dot(b1, weight), dot(b2, weight), dot(b3, weight));
        }
        return;
    }
    let place = layer.place + unit4 * BEHAVIOURS + lane;
    room[place] = a0; room[place + LANES] = a1; room[place + 2u * LANES] = a2; room[place + 3u * LANES] = a3;
    if GROUP4 > 1u {
        room[place + 4u * LANES] = b0; room[place + 5u * LANES] = b1;
        room[place + 6u * LANES] = b2; room[place + 7u * LANES] = b3;
    }
}

// The first layer, of behaviours `start..end` at most, for candidates `m` to `last_m` at most.
fn first_layer(thread: u32, layer: Layer, start: u32, end: u32, m: u32, last_m: u32) {
    let width4 = (params.width + 3u) / 4u;
    for (var job = thread; job < layer.units4 * LANES; job += THREADS) {
        let lane = job % LANES;
        let unit4 = job / LANES;
        // Candidates and behaviours behind the end repeat the last one; their scores take no part.
        let constant = min(m + lane / params.candidate_lanes, last_m) * (layer.units4 + width4);
        let query = constant + layer.units4;
        let lanes = params.candidate_lanes;
        let l = vec4<u32>(start + lane % lanes) + lanes * vec4<u32>(0u, 1u, 2u, 3u);
        let last = vec4<u32>(end - 1u);
        let a = params.history_base + (min(l, last) - params.first_history) * params.width;
        let b = params.history_base + (min(l + 4u * lanes, last) - params.first_history) * params.width;
        var block = 2u * unit4 * width4;
        var sums = Units();
        for (var k = 0u; k < width4; k++) {
            let q = targets[query + k];
            let key = blocks[block];
            let product = blocks[block + 1u];
            let w = mat4x4<f32>(
                key[0] + q * product[0], key[1] + q * product[1], key[2] + q * product[2], key[3] + q * product[3]);
            let i = 4u * k;
            let left = params.width - i;
            sums.a0 += history_four(a.x + i, left) * w; sums.a1 += history_four(a.y + i, left) * w;
            sums.a2 += history_four(a.z + i, left) * w; sums.a3 += history_four(a.w + i, left) * w;
            if GROUP4 > 1u {
                sums.b0 += history_four(b.x + i, left) * w; sums.b1 += history_four(b.y + i, left) * w;
                sums.b2 += history_four(b.z + i, left) * w; sums.b3 += history_four(b.w + i, left) * w;
            }
            block += 2u;
        }
        leave(sums, targets[constant + unit4], layer, unit4, lane);
    }
}

// A layer whose inputs, `inputs4` fours of them, lie in workgroup memory from `inputs` on.
fn later_layer(thread: u32, layer: Layer, first_block: u32, inputs: u32, inputs4: u32) {
    for (var job = thread; job < layer.units4 * LANES; job += THREADS) {
        let lane = job % LANES;
        let unit4 = job / LANES;
        var block = first_block + unit4 * inputs4;
        var place = inputs + lane;
        var sums = Units();
        for (var k = 0u; k < inputs4; k++) {
            let w = blocks[block];
            sums.a0 += room[place] * w; sums.a1 += room[place + LANES] * w;
            sums.a2 += room[place + 2u * LANES] * w; sums.a3 += room[place + 3u * LANES] * w;
            if GROUP4 > 1u {
                sums.b0 += room[place + 4u * LANES] * w; sums.b1 += room[place + 5u * LANES] * w;
                sums.b2 += room[place + 6u * LANES] * w; sums.b3 += room[place + 7u * LANES] * w;
            }
            block += 1u;
            place += BEHAVIOURS;
        }
        leave(sums, vectors[layer.first_vector + 5u * unit4], layer, unit4, lane);
    }
}

// Adds up the units' shares of the scores of candidate `r` and those beside it.
fn gather_scores(thread: u32, layer: Layer, r: u32) {
    if thread >= BEHAVIOURS / 4u {
        return;
    }
    var score = vec4<f32>(output_bias_at(params.output_bias_base));
    for (var unit4 = 0u; unit4 < layer.units4; unit4++) {
        score += room[layer.place + unit4 * (BEHAVIOURS / 4u) + thread];
    }
    let lane = thread / GROUP4;
    let lanes = params.candidate_lanes;
    let candidate = r + lane / lanes;
    let place = candidate * step_of() + lane % lanes + thread % GROUP4 * 4u * lanes;
    tile_scores[place] = score.x; tile_scores[place + lanes] = score.y;
    tile_scores[place + 2u * lanes] = score.z; tile_scores[place + 3u * lanes] = score.w;
}

// Behaviours of a step.
fn step_of() -> u32 {
    return 4u * GROUP4 * params.candidate_lanes;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group;
    let rows = pieces[2u * piece];
    let part = pieces[2u * piece + 1u];
    let end = part.y;
    let candidates = rows.z;
    let first = Layer(0u, params.activation_0, params.units4_0, 0u, 0u);
    let second = Layer(1u, params.activation_1, params.units4_1, 5u * params.units4_0, params.second_room);
    let third = Layer(
        2u, params.activation_2, params.units4_2, 5u * (params.units4_0 + params.units4_1), 0u);

    // In step 3: which columns, and which of the behaviours.
    let shares = THREADS / params.columns;
    let column = 4u * (thread % params.columns);
    let share = thread / params.columns;
    // Columns behind the last are computed like the last ones and not written.
    let own_column = min(column, (params.value_columns - 1u) / 4u * 4u);
    let left = params.value_columns - own_column;
    let first_value = params.history_base + params.first_column + own_column;

    var sum0 = vec4<f32>(); var sum1 = vec4<f32>(); var sum2 = vec4<f32>(); var sum3 = vec4<f32>();
    if thread < TILE {
        tile_peak[thread] = LOWEST;
        tile_fade[thread] = 1.0;
        tile_total[thread] = 0.0;
    }
    // Weights of candidates that a tile does not have are read like the others, into sums that nobody writes.
    for (var i = thread; i < TILE * BEHAVIOURS; i += THREADS) {
        tile_scores[i] = 0.0;
    }
    workgroupBarrier();

    let step = step_of();
    for (var start = part.x; start < end; start += step) {
        let count = min(end - start, step);
        // 1.
        for (var r = 0u; r < candidates; r += params.beside) {
            first_layer(thread, first, start, end, rows.x + rows.y + r, rows.x + rows.y + candidates - 1u);
            workgroupBarrier();
            if LAYERS > 1u {
                later_layer(thread, second, params.first_block_1, first.place, first.units4);
                workgroupBarrier();
            }
            if LAYERS > 2u {
                later_layer(thread, third, params.first_block_2, second.place, second.units4);
                workgroupBarrier();
            }
            if LAYERS == 1u {
                gather_scores(thread, first, r);
            } else if LAYERS == 2u {
                gather_scores(thread, second, r);
            } else {
                gather_scores(thread, third, r);
            }
            // The next candidate overwrites the shares.
            workgroupBarrier();
        }
        // 2.
        if params.weighting == SOFTMAX {
            if thread < candidates {
                let old = tile_peak[thread];
                var peak = old;
                for (var p = 0u; p < count; p++) {
                    peak = max(peak, tile_scores[thread * step + p]);
                }
                tile_peak[thread] = peak;
                tile_fade[thread] = exp_one(old - peak);
            }
            workgroupBarrier();
            for (var i = thread; i < candidates * step; i += THREADS) {
                tile_scores[i] = exp_one(tile_scores[i] - tile_peak[i / step]);
            }
            workgroupBarrier();
            if thread < candidates {
                var total = tile_total[thread] * tile_fade[thread];
                for (var p = 0u; p < count; p++) {
                    total += tile_scores[thread * step + p];
                }
                tile_total[thread] = total;
            }
            sum0 *= tile_fade[0]; sum1 *= tile_fade[1]; sum2 *= tile_fade[2]; sum3 *= tile_fade[3];
        }
        // 3.
        for (var p = share; p < count; p += shares) {
            let value = history_four((start + p - params.first_history) * params.width + first_value, left);
            sum0 += tile_scores[p] * value;
            sum1 += tile_scores[p + step] * value;
            sum2 += tile_scores[p + 2u * step] * value;
            sum3 += tile_scores[p + 3u * step] * value;
        }
        // The next step overwrites the weights.
        workgroupBarrier();
    }

    if shares > 1u {
        room[4u * thread] = sum0; room[4u * thread + 1u] = sum1;
        room[4u * thread + 2u] = sum2; room[4u * thread + 3u] = sum3;
        workgroupBarrier();
        if share > 0u {
            return;
        }
        for (var other = 1u; other < shares; other++) {
            let place = 4u * (thread + other * params.columns);
            sum0 += room[place]; sum1 += room[place + 1u]; sum2 += room[place + 2u]; sum3 += room[place + 3u];
        }
    }
    let slot = part.z;
    if column == 0u && slot != NONE {
        for (var r = 0u; r < candidates; r++) {
            let place = params.first_stats + (slot * TILE + r) * 2u;
            partial[place] = tile_peak[r];
            partial[place + 1u] = tile_total[r];
        }
    }
    if column < params.value_columns {
        write(sum0, 0u, column, left, rows, slot);
        write(sum1, 1u, column, left, rows, slot);
        write(sum2, 2u, column, left, rows, slot);
        write(sum3, 3u, column, left, rows, slot);
    }
}

// Writes four columns of candidate `r`: to the output, or beside it where other parts follow.
fn write(sum: vec4<f32>, r: u32, column: u32, left: u32, rows: vec4<u32>, slot: u32) {
    if r >= rows.z {
        return;
    }
    if slot != NONE {
        let place = (slot * TILE + r) * params.value_columns + column;
        partial[place] = sum.x;
        if left > 1u { partial[place + 1u] = sum.y; }
        if left > 2u { partial[place + 2u] = sum.z; }
        if left > 3u { partial[place + 3u] = sum.w; }
        return;
    }
    var result = sum;
    if params.weighting == SOFTMAX {
        let total = tile_total[r];
        result = select(vec4<f32>(), sum / total, total > 0.0);
    }
    let place = params.out_base + (rows.x + rows.y + r) * params.width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}
