// DIN's local activation unit: a small network scores every pair of candidate and behaviour; the scores pool the
// behaviours.
//
//     a[r,l] = w_out · f(… f((W_k − W_d + W_p·diag(q_r))·s_l + c_r) …) + b_out        c_r from din/targets.wgsl
//     out[r,:] = Σ_l w(a[r,l]) · s_l
//
// One workgroup of 64 threads processes one piece: up to 4 candidates of one user and a span of the user's history,
// one step at a time. A step is BEHAVIOURS pairs: that many behaviours of one candidate after the other, or half or a
// quarter as many behaviours of two or four candidates in parallel, so that short histories fill the lanes too:
//   1. layer by layer: each thread computes 4 units of a layer for 4 · GROUP4 behaviours of one candidate in
//      registers, then the next 4 units. Layers are stored in workgroup memory; the last one stores only its units'
//      shares of the score;
//   2. softmax only: the maximum of each candidate over the step, and the factor by which older sums are rescaled;
//   3. each thread owns 4 columns of the output for all 4 candidates and adds the weighted behaviours, in registers.
// So a load of a vec4 of a behaviour serves 4 units, a 4 × 4 block of weights 4 · GROUP4 behaviours, and the
// behaviours of a step stay in the first-level cache for all candidates. A piece of a longer history writes its result
// with its softmax state (max and sum) to `partial`, which target_attention/combine.wgsl combines; the only piece of a
// tile writes the output itself.
//
// With softmax, candidates whose sums are not finite are computed again: weights are divided by their sum before they
// are multiplied, so that what overflowed does not, and removed behaviours are left out rather than multiplied by 0.
//
// The weights of the first layer are combined with the candidate on the fly: 16 multiply-adds for the 64 · GROUP4
// that use them. Stored, they would fill workgroup memory, and take one matrix per candidate in global memory.
//
// Variants: LAYERS hidden layers. BEHAVIOURS is 32, 16, 8 or 4: the most for which two layers fit workgroup memory;
// more behaviours share each load of a weight from beyond the first-level cache. GROUP4, vec4s of behaviours per
// thread: 2, but 1 where BEHAVIOURS is 4.
// Workgroup memory: 15 KiB of units, 560 bytes. The register tile is written out element by element, because some
// drivers keep an array that is indexed by a loop in memory.
//
// Precision: f32 throughout, summed in the order of the history; pieces are combined in the order of their slots.

struct DinAttendParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    width: u32,
    // The columns of the row that this dispatch sums.
    first_column: u32,
    value_columns: u32,
    // vec4s of columns, a power of two.
    columns: u32,
    // The history row at the start of the binding.
    first_history: u32,
    history_base: u32,
    output_bias_base: u32,
    out_base: u32,
    // The start of the maxima and sums in `partial`.
    first_stats: u32,
    weighting: u32,
    // vec4s of units and activation of each layer; the first block of weights of the later ones.
    units4_0: u32,
    units4_1: u32,
    units4_2: u32,
    activation_0: u32,
    activation_1: u32,
    activation_2: u32,
    first_block_1: u32,
    first_block_2: u32,
    // The start of the second layer in workgroup memory; the first and the third start at 0.
    second_place: u32,
    // Candidates that are scored in parallel, and the lanes of each.
    parallel: u32,
    candidate_lanes: u32,
}
@group(0) @binding(0) var<uniform> params: DinAttendParams;

const THREADS: u32 = 64u;
const TILE: u32 = 4u;
// Threads that share the units of a layer. A lane has the pairs lane, lane + LANES, … of candidate and behaviour.
const LANES: u32 = BEHAVIOURS / (4u * GROUP4);

const SOFTMAX: u32 = 0u;

// Activations.
const RELU: u32 = 0u;
const SIGMOID: u32 = 1u;
const PRELU: u32 = 2u;
// 3: Dice.

// Units of a layer: vec4 `unit4` of pair p is at unit4 · BEHAVIOURS + p.
var<workgroup> layer_units: array<vec4<f32>, 960>;
// Scores, then weights: candidate r and behaviour p at r · (behaviours per step) + p.
var<workgroup> tile_scores: array<f32, TILE * BEHAVIOURS>;
// The softmax state of each candidate, and the factor that rescales its older sums.
var<workgroup> tile_max: array<f32, TILE>;
var<workgroup> tile_rescale: array<f32, TILE>;
var<workgroup> tile_sum: array<f32, TILE>;
// One bit per candidate that is computed again.
var<workgroup> broken: atomic<u32>;
var<workgroup> broken_rows: u32;

// A vec4 of units for behaviours 0..3 (a) and 4..7 (b) of a lane.
struct Units {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

// Sums of four columns, one for each candidate of the tile.
struct Sums {
    s0: vec4<f32>, s1: vec4<f32>, s2: vec4<f32>, s3: vec4<f32>,
}

struct Layer {
    index: u32,
    activation: u32,
    units4: u32,
    // Its first vector, and its place in workgroup memory.
    first_vector: u32,
    place: u32,
}

// Adds up the units' shares of the scores of candidate `r` and those computed in parallel with it.
fn gather_scores(thread: u32, layer: Layer, r: u32) {
    if thread >= BEHAVIOURS / 4u {
        return;
    }
    var score = vec4<f32>(output_bias_at(params.output_bias_base));
    for (var unit4 = 0u; unit4 < layer.units4; unit4++) {
        score += layer_units[layer.place + unit4 * (BEHAVIOURS / 4u) + thread];
    }
    let lane = thread / GROUP4;
    let lanes = params.candidate_lanes;
    let candidate = r + lane / lanes;
    let place = candidate * step_of() + lane % lanes + thread % GROUP4 * 4u * lanes;
    tile_scores[place] = score.x; tile_scores[place + lanes] = score.y;
    tile_scores[place + 2u * lanes] = score.z; tile_scores[place + 3u * lanes] = score.w;
}

// Behaviours per step.
fn step_of() -> u32 {
    return 4u * GROUP4 * params.candidate_lanes;
}

// Scores all candidates of the tile against the behaviours from `start` to `end`.
fn score_step(thread: u32, start: u32, end: u32, rows: vec4<u32>) {
    let first = Layer(0u, params.activation_0, params.units4_0, 0u, 0u);
    let second = Layer(1u, params.activation_1, params.units4_1, 5u * params.units4_0, params.second_place);
    let third = Layer(
        2u, params.activation_2, params.units4_2, 5u * (params.units4_0 + params.units4_1), 0u);
    for (var r = 0u; r < rows.z; r += params.parallel) {
        first_layer(thread, first, start, end, rows.x + rows.y + r, rows.x + rows.y + rows.z - 1u);
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
}

// Turns the scores of `count` behaviours into softmax weights, and updates the softmax state.
fn softmax_step(thread: u32, candidates: u32, count: u32, step: u32) {
    if thread < candidates {
        let old_max = tile_max[thread];
        var row_max = old_max;
        for (var p = 0u; p < count; p++) {
            row_max = max(row_max, tile_scores[thread * step + p]);
        }
        tile_max[thread] = row_max;
        tile_rescale[thread] = rescale_of(vec4<f32>(old_max), vec4<f32>(row_max)).x;
    }
    workgroupBarrier();
    for (var i = thread; i < candidates * step; i += THREADS) {
        tile_scores[i] = exp_one(tile_scores[i] - shift_of(vec4<f32>(tile_max[i / step])).x);
    }
    workgroupBarrier();
    if thread < candidates {
        var row_sum = tile_sum[thread] * tile_rescale[thread];
        for (var p = 0u; p < count; p++) {
            row_sum += tile_scores[thread * step + p];
        }
        tile_sum[thread] = row_sum;
    }
}

// The weights of a removed behaviour, which is left out.
const REMOVED: f32 = -1.0;

// Turns scores into half their final weights. The softmax state is complete.
fn weigh_again(thread: u32, candidates: u32, step: u32) {
    for (var i = thread; i < candidates * step; i += THREADS) {
        let score = tile_scores[i];
        let r = i / step;
        let weight = exp_one(score - shift_of(vec4<f32>(tile_max[r])).x) / tile_sum[r];
        tile_scores[i] = select(0.5 * weight, REMOVED, is_removed(score));
    }
    workgroupBarrier();
}

// A weighted behaviour; nothing for a removed one.
fn weighted(weight: f32, value: vec4<f32>) -> vec4<f32> {
    return select(weight * value, vec4<f32>(), weight == REMOVED);
}

fn clear_tile(thread: u32) {
    if thread == 0u {
        atomicStore(&broken, 0u);
    }
    if thread < TILE {
        tile_max[thread] = negative_infinity();
        tile_rescale[thread] = 1.0;
        tile_sum[thread] = 0.0;
    }
    // The weights of candidates that a tile does not have are read too, but their sums are not written.
    for (var i = thread; i < TILE * BEHAVIOURS; i += THREADS) {
        tile_scores[i] = 0.0;
    }
    workgroupBarrier();
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group;
    let rows = pieces[2u * piece];
    let span = pieces[2u * piece + 1u];
    let end = span.y;

    // The columns and the share of the behaviours that this thread has in step 3.
    let shares = THREADS / params.columns;
    let column = 4u * (thread % params.columns);
    let share = thread / params.columns;
    // Columns past the end repeat the last ones and are not written.
    let own_column = min(column, (params.value_columns - 1u) / 4u * 4u);
    let left = params.value_columns - own_column;
    let first_value = params.history_base + params.first_column + own_column;

    clear_tile(thread);
    let step = step_of();
    let is_softmax = params.weighting == SOFTMAX;
    // The candidates that are computed again; all threads agree.
    var again = 0u;
    loop {
        var sums = Sums();
        for (var start = span.x; start < end; start += step) {
            let count = min(end - start, step);
            // 1. Scores.
            score_step(thread, start, end, rows);
            // 2. Softmax.
            if again != 0u {
                weigh_again(thread, rows.z, step);
            } else if is_softmax {
                softmax_step(thread, rows.z, count, step);
                sums.s0 *= tile_rescale[0]; sums.s1 *= tile_rescale[1];
                sums.s2 *= tile_rescale[2]; sums.s3 *= tile_rescale[3];
            }
            // 3. Sums.
            for (var p = share; p < count; p += shares) {
                let value = history_vec4((start + p - params.first_history) * params.width + first_value, left);
                if again == 0u {
                    sums.s0 += tile_scores[p] * value;
                    sums.s1 += tile_scores[p + step] * value;
                    sums.s2 += tile_scores[p + 2u * step] * value;
                    sums.s3 += tile_scores[p + 3u * step] * value;
                } else {
                    sums.s0 += weighted(tile_scores[p], value);
                    sums.s1 += weighted(tile_scores[p + step], value);
                    sums.s2 += weighted(tile_scores[p + 2u * step], value);
                    sums.s3 += weighted(tile_scores[p + 3u * step], value);
                }
            }
            // The next step overwrites the weights.
            workgroupBarrier();
        }
        if shares > 1u {
            sums = add_shares(sums, thread, select(0u, shares, share == 0u));
        }
        let writes = share == 0u && column < params.value_columns;
        if again != 0u {
            if writes {
                write_tile(sums, again, true, column, left, rows, span.z);
            }
            break;
        }
        let own = broken_of(sums.s0, 0u, left) | broken_of(sums.s1, 1u, left)
            | broken_of(sums.s2, 2u, left) | broken_of(sums.s3, 3u, left);
        again = broken_among(select(0u, own, writes && is_softmax), thread) & ((1u << rows.z) - 1u);
        if writes && column == 0u && span.z != NONE {
            write_state(rows.z, span.z);
        }
        if writes {
            write_tile(sums, ~again, false, column, left, rows, span.z);
        }
        if again == 0u {
            break;
        }
    }
}

// The sums of all shares, for the threads of the first one, which read `shares`; the others read none.
fn add_shares(own: Sums, thread: u32, shares: u32) -> Sums {
    layer_units[4u * thread] = own.s0; layer_units[4u * thread + 1u] = own.s1;
    layer_units[4u * thread + 2u] = own.s2; layer_units[4u * thread + 3u] = own.s3;
    workgroupBarrier();
    var sums = own;
    for (var other = 1u; other < shares; other++) {
        let place = 4u * (thread + other * params.columns);
        sums.s0 += layer_units[place]; sums.s1 += layer_units[place + 1u];
        sums.s2 += layer_units[place + 2u]; sums.s3 += layer_units[place + 3u];
    }
    return sums;
}

// The candidates, one bit each, that any thread found broken.
fn broken_among(own: u32, thread: u32) -> u32 {
    if own != 0u {
        atomicOr(&broken, own);
    }
    workgroupBarrier();
    if thread == 0u {
        broken_rows = atomicLoad(&broken);
    }
    return workgroupUniformLoad(&broken_rows);
}

// The bit of candidate `r` if its sums are not finite. Columns past the end are not values.
fn broken_of(acc: vec4<f32>, r: u32, left: u32) -> u32 {
    return select(0u, 1u << r, any((vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left)) & is_not_finite(acc)));
}

// Writes four columns of the wanted candidates, from their sums or from half of their results.
fn write_tile(
    sums: Sums, wanted: u32, is_half: bool, column: u32, left: u32, rows: vec4<u32>, slot: u32
) {
    if (wanted & 1u) != 0u { write(sums.s0, 0u, is_half, column, left, rows, slot); }
    if (wanted & 2u) != 0u { write(sums.s1, 1u, is_half, column, left, rows, slot); }
    if (wanted & 4u) != 0u { write(sums.s2, 2u, is_half, column, left, rows, slot); }
    if (wanted & 8u) != 0u { write(sums.s3, 3u, is_half, column, left, rows, slot); }
}

// Writes the softmax state of a piece.
fn write_state(candidates: u32, slot: u32) {
    for (var r = 0u; r < candidates; r++) {
        let place = params.first_stats + (slot * TILE + r) * 2u;
        partial[place] = tile_max[r];
        partial[place + 1u] = tile_sum[r];
    }
}

// Writes four columns of candidate `r`: to the output, or to `partial` if the tile has several pieces.
fn write(acc: vec4<f32>, r: u32, is_half: bool, column: u32, left: u32, rows: vec4<u32>, slot: u32) {
    if r >= rows.z {
        return;
    }
    var result = acc;
    if is_half {
        result = doubled(acc);
    } else if params.weighting == SOFTMAX {
        let row_sum = tile_sum[r];
        // Nothing but removed behaviours.
        result = select(acc / row_sum, vec4<f32>(), row_sum == 0.0);
    }
    if slot != NONE {
        let place = (slot * TILE + r) * params.value_columns + column;
        partial[place] = result.x;
        if left > 1u { partial[place + 1u] = result.y; }
        if left > 2u { partial[place + 2u] = result.z; }
        if left > 3u { partial[place + 3u] = result.w; }
        return;
    }
    let place = params.out_base + (rows.x + rows.y + r) * params.width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}
