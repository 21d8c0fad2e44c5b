// Weights a user's behaviours for a tile of candidates and sums their values.
//
//     out[r,:] = Σ_l w(s[r,l]) · v[l,:]         s from a scoring file, which is included before this one
//
// One workgroup of 64 threads processes one piece: up to `tile` output rows (candidates, or candidates × heads) of
// one user and a span of the user's history, one step at a time:
//   1. each thread scores 4 behaviours against 8 rows of the tile, in registers (`score`);
//   2. softmax only: the maxima of the rows are raised; where one grew, older sums are rescaled;
//   3. each thread turns its scores into weights and stores them in workgroup memory;
//   4. each thread owns 4 columns of the value for 8 rows and adds the weighted values, in registers.
// So one load of a behaviour serves 8 rows, one load of a query 4 behaviours, one load of a weight 4 columns; a step
// has two barriers. A piece of a longer history writes its result with its softmax state (max and sum) to `partial`,
// which target_attention/combine.wgsl combines; the only piece of a tile writes the output itself.
//
// A row whose sums are not finite is computed again by target_attention/attend_again.wgsl.
//
// `tile` (4, 8, 16 or 32 rows) grows with the candidates per user, `columns` (vec4s of columns, a power of two) with
// the width of the value. tile/8 · columns is at most 64; where it is less, several threads share the columns and
// split the behaviours. A step is 256 behaviours, or 2048 / tile if that is less.
// Variants: GROUP4, vec4s of rows per thread: 1 for a tile of 4 rows, otherwise 2. QUADS selects how queries and
// weights reach the threads that share them: 1 target_attention/blocks_by_quad.wgsl, 0
// target_attention/blocks_alone.wgsl.
// Workgroup memory: 8 KiB of weights, 2 KiB of sums, 256 bytes. The register tile is written out element by element,
// because some drivers keep an array that is indexed by a loop in memory.
// Each thread reads the keys of its own behaviours, a vec4 at a time; the rest of a cache line is still cached when
// the thread comes to it. Values are read in whole rows.
//
// Precision: f32 throughout, summed in the order of the history; pieces are combined in the order of their slots. The
// maximum does not depend on the order of the atomics.

const THREADS: u32 = 64u;

// How the threads divide a tile.
struct Tile {
    rows: u32,
    // Groups of 4 · GROUP4 rows; vec4s of rows.
    groups: u32,
    rows4: u32,
    // Threads per group of rows: each takes behaviours lane, lane + lanes, …
    lanes: u32,
    // Threads that share the same columns.
    shares: u32,
}

fn tile_of() -> Tile {
    let groups = params.tile / (4u * GROUP4);
    return Tile(params.tile, groups, params.tile / 4u, THREADS / groups, THREADS / (groups * params.columns));
}

// Weightings.
const SOFTMAX: u32 = 0u;
const RELU: u32 = 1u;
const SILU: u32 = 2u;
// 3: identity.

// What SiLU is divided by, for the user of the piece: `divisor`, of which 0 stands for the length of the whole history.
var<private> silu_divisor: f32;
var<workgroup> tile_weights: array<vec4<f32>, 512>;
// The maximum of each row so far, as `ordered` words.
var<workgroup> tile_max: array<atomic<u32>, 32>;
// At the end: the softmax sums of each thread, then of each row.
var<workgroup> thread_sums: array<vec4<f32>, 128>;
var<workgroup> tile_sum: array<f32, 32>;
// One bit per row that is computed again.
var<workgroup> broken: atomic<u32>;
var<workgroup> broken_rows: u32;

// Scores of 4 behaviours (0..3) for rows 0..3 (a) and 4..7 (b) of a group.
struct Scores {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

fn weigh(score: vec4<f32>, shift: vec4<f32>, live: bool) -> vec4<f32> {
    if !live {
        return vec4<f32>();
    }
    if params.weighting == SOFTMAX {
        return exp_of(score - shift);
    }
    if params.weighting == RELU {
        return select(score, vec4<f32>(), score < vec4<f32>());
    }
    if params.weighting == SILU {
        let weight = score * sigmoid_of(score) / silu_divisor;
        let removed = bitcast<vec4<u32>>(score) == vec4<u32>(NEGATIVE_INFINITY);
        return select(weight, vec4<f32>(), removed);
    }
    return score;
}

// Maps a float to an unsigned integer that compares in the same order.
fn ordered(x: f32) -> u32 {
    let word = bitcast<u32>(x);
    return select(word | 0x80000000u, ~word, word >= 0x80000000u);
}

fn max_at(r: u32) -> f32 {
    let word = atomicLoad(&tile_max[r]);
    return bitcast<f32>(select(~word, word ^ 0x80000000u, word >= 0x80000000u));
}

fn max_vec4_at(r: u32) -> vec4<f32> {
    return vec4<f32>(max_at(r), max_at(r + 1u), max_at(r + 2u), max_at(r + 3u));
}

// What a thread keeps of rows 0..3 (a) and 4..7 (b) of its group: the maxima so far, its share of the softmax sums, and
// the weighted sums of 4 columns.
struct State {
    max_a: vec4<f32>, max_b: vec4<f32>,
    sum_a: vec4<f32>, sum_b: vec4<f32>,
    acc0: vec4<f32>, acc1: vec4<f32>, acc2: vec4<f32>, acc3: vec4<f32>,
    acc4: vec4<f32>, acc5: vec4<f32>, acc6: vec4<f32>, acc7: vec4<f32>,
}

// Rescales older sums where a maximum grew.
fn rescale(before: State, first_row: u32) -> State {
    var state = before;
    let new_a = max_vec4_at(first_row);
    if any(new_a != state.max_a) {
        let factor = rescale_of(state.max_a, new_a);
        state.max_a = new_a;
        state.sum_a *= factor;
        state.acc0 *= factor.x; state.acc1 *= factor.y; state.acc2 *= factor.z; state.acc3 *= factor.w;
    }
    if GROUP4 > 1u {
        let new_b = max_vec4_at(first_row + 4u);
        if any(new_b != state.max_b) {
            let factor = rescale_of(state.max_b, new_b);
            state.max_b = new_b;
            state.sum_b *= factor;
            state.acc4 *= factor.x; state.acc5 *= factor.y; state.acc6 *= factor.z; state.acc7 *= factor.w;
        }
    }
    return state;
}

// Stores the weights of 4 behaviours at `place`, and adds them to the softmax sums.
fn store_weights(before: State, s: Scores, live: vec4<bool>, place: u32, next: u32) -> State {
    var state = before;
    let a = shift_of(state.max_a);
    let a0 = weigh(s.a0, a, live.x); let a1 = weigh(s.a1, a, live.y);
    let a2 = weigh(s.a2, a, live.z); let a3 = weigh(s.a3, a, live.w);
    state.sum_a += a0 + a1 + a2 + a3;
    tile_weights[place] = a0; tile_weights[place + next] = a1;
    tile_weights[place + 2u * next] = a2; tile_weights[place + 3u * next] = a3;
    if GROUP4 > 1u {
        let b = shift_of(state.max_b);
        let b0 = weigh(s.b0, b, live.x); let b1 = weigh(s.b1, b, live.y);
        let b2 = weigh(s.b2, b, live.z); let b3 = weigh(s.b3, b, live.w);
        state.sum_b += b0 + b1 + b2 + b3;
        tile_weights[place + 1u] = b0; tile_weights[place + next + 1u] = b1;
        tile_weights[place + 2u * next + 1u] = b2; tile_weights[place + 3u * next + 1u] = b3;
    }
    return state;
}

// Adds 4 weighted behaviours. `first` is where the values of the first row of the bindings begin.
fn add_values(before: State, w: WeightBlock, row: vec4<u32>, first: u32, tile: u32, left: u32) -> State {
    var state = before;
    let v0 = value_vec4(value_place(row.x, first, tile), 0u, left);
    let v1 = value_vec4(value_place(row.y, first, tile), 0u, left);
    let v2 = value_vec4(value_place(row.z, first, tile), 0u, left);
    let v3 = value_vec4(value_place(row.w, first, tile), 0u, left);
    state.acc0 += w.a0.x * v0 + w.a1.x * v1 + w.a2.x * v2 + w.a3.x * v3;
    state.acc1 += w.a0.y * v0 + w.a1.y * v1 + w.a2.y * v2 + w.a3.y * v3;
    state.acc2 += w.a0.z * v0 + w.a1.z * v1 + w.a2.z * v2 + w.a3.z * v3;
    state.acc3 += w.a0.w * v0 + w.a1.w * v1 + w.a2.w * v2 + w.a3.w * v3;
    if GROUP4 > 1u {
        state.acc4 += w.b0.x * v0 + w.b1.x * v1 + w.b2.x * v2 + w.b3.x * v3;
        state.acc5 += w.b0.y * v0 + w.b1.y * v1 + w.b2.y * v2 + w.b3.y * v3;
        state.acc6 += w.b0.z * v0 + w.b1.z * v1 + w.b2.z * v2 + w.b3.z * v3;
        state.acc7 += w.b0.w * v0 + w.b1.w * v1 + w.b2.w * v2 + w.b3.w * v3;
    }
    return state;
}

// The state before the first behaviour.
fn clear(rows: u32, thread: u32) -> State {
    if thread < rows {
        atomicStore(&tile_max[thread], ordered(negative_infinity()));
    }
    if thread == 0u {
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    var state = State();
    state.max_a = vec4<f32>(negative_infinity()); state.max_b = state.max_a;
    return state;
}

fn attend(id: vec3<u32>, thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group / params.kv_heads;
    let kv_head = group % params.kv_heads;
    let rows = pieces[2u * piece];
    let span = pieces[2u * piece + 1u];
    let end = span.y;
    silu_divisor = select(params.divisor, f32(span.w), bitcast<u32>(params.divisor) == 0u);

    let tile = tile_of();
    let step = 4u * tile.lanes;
    // In steps 1 to 3 a thread has a lane of behaviours and a group of rows; in step 4 columns, a share of the
    // behaviours, and the same rows.
    let lane = thread % tile.lanes;
    let row_group = thread / tile.lanes;
    let share = thread / params.columns % tile.shares;
    let first_row = row_group * GROUP4 * 4u;
    let column = 4u * (thread % params.columns);
    // Columns past the end repeat the last ones and are not written.
    let own_column = min(column, (params.value_columns - 1u) / 4u * 4u);
    let left = params.value_columns - own_column;
    let own_value = first_value(kv_head, params.first_column + own_column);

    var state = clear(tile.rows, thread);
    for (var start = span.x; start < end; start += step) {
        // 1. Scores.
        let l = vec4<u32>(start + lane) + vec4<u32>(0u, tile.lanes, 2u * tile.lanes, 3u * tile.lanes);
        let live = l < vec4<u32>(end);
        let s = score(min(l, vec4<u32>(end - 1u)), row_group, rows, kv_head, thread);
        // 2. Maxima.
        if params.weighting == SOFTMAX {
            // Behaviours past the end repeat the last one and do not change the maximum.
            raise_max(first_row, max(max(s.a0, s.a1), max(s.a2, s.a3)), max(max(s.b0, s.b1), max(s.b2, s.b3)), thread);
        }
        // The maxima are complete, and the weights of the previous step have been read.
        workgroupBarrier();
        if params.weighting == SOFTMAX {
            state = rescale(state, first_row);
        }
        // 3. Weights.
        let place = lane * tile.rows4 + row_group * GROUP4;
        state = store_weights(state, s, live, place, tile.lanes * tile.rows4);
        workgroupBarrier();
        // 4. Values. Weights past the end are zero. All threads loop equally often, because quads exchange weights.
        let count = min(end - start, step);
        for (var first = 0u; first < count; first += 4u * tile.shares) {
            let i = first + 4u * share;
            let row = min(vec4<u32>(start + i) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u)) - params.first_history;
            let w = weight_block(i * tile.rows4 + row_group * GROUP4, tile.rows4, thread);
            state = add_values(state, w, row, own_value, rows.w, left);
        }
    }

    if params.weighting == SOFTMAX {
        add_sums(state, tile, thread, lane * tile.rows4 + row_group * GROUP4);
    }
    // The sums are complete, and the last weights have been read.
    workgroupBarrier();
    if tile.shares > 1u {
        store_share(state, thread);
        workgroupBarrier();
        if share == 0u {
            state = add_shares(state, thread, tile.shares);
        }
    }
    let writes = share == 0u && column < params.value_columns;
    let again = broken_among(select(0u, broken_of(state, left) << first_row, writes), thread);
    if writes {
        write_tile(state, first_row, column, left, rows, kv_head, span.z, again);
    }
    // Rows past the end of the tile are nobody's.
    var rest = again & (0xffffffffu >> (32u - rows.z));
    while rest != 0u {
        attend_row(firstTrailingBit(rest), rows, span, kv_head, thread);
        rest &= rest - 1u;
    }
}

// The rows, one bit each, that any thread found broken.
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

// One bit per row of the thread whose sums are not finite.
fn broken_of(state: State, left: u32) -> u32 {
    // Columns past the end are not values.
    let own = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left);
    var bits = select(0u, 1u, any(own & is_not_finite(state.acc0))) | select(0u, 2u, any(own & is_not_finite(state.acc1)))
        | select(0u, 4u, any(own & is_not_finite(state.acc2))) | select(0u, 8u, any(own & is_not_finite(state.acc3)));
    if GROUP4 > 1u {
        bits |= select(0u, 16u, any(own & is_not_finite(state.acc4)))
            | select(0u, 32u, any(own & is_not_finite(state.acc5)))
            | select(0u, 64u, any(own & is_not_finite(state.acc6)))
            | select(0u, 128u, any(own & is_not_finite(state.acc7)));
    }
    return bits;
}

// Adds up the softmax sums of the threads of each row. `place` is that of the thread's own sums.
fn add_sums(state: State, tile: Tile, thread: u32, place: u32) {
    thread_sums[place] = state.sum_a;
    if GROUP4 > 1u { thread_sums[place + 1u] = state.sum_b; }
    workgroupBarrier();
    if thread < tile.rows {
        var row_sum = 0.0;
        for (var other = 0u; other < tile.lanes; other++) {
            row_sum += thread_sums[other * tile.rows4 + thread / 4u][thread % 4u];
        }
        tile_sum[thread] = row_sum;
    }
}

// Stores the weighted sums for the thread that adds up the shares.
fn store_share(state: State, thread: u32) {
    let place = thread * 4u * GROUP4;
    tile_weights[place] = state.acc0; tile_weights[place + 1u] = state.acc1;
    tile_weights[place + 2u] = state.acc2; tile_weights[place + 3u] = state.acc3;
    if GROUP4 > 1u {
        tile_weights[place + 4u] = state.acc4; tile_weights[place + 5u] = state.acc5;
        tile_weights[place + 6u] = state.acc6; tile_weights[place + 7u] = state.acc7;
    }
}

// Adds the weighted sums of the other shares of the behaviours.
fn add_shares(before: State, thread: u32, shares: u32) -> State {
    var state = before;
    for (var other = 1u; other < shares; other++) {
        let place = (thread + other * params.columns) * 4u * GROUP4;
        state.acc0 += tile_weights[place]; state.acc1 += tile_weights[place + 1u];
        state.acc2 += tile_weights[place + 2u]; state.acc3 += tile_weights[place + 3u];
        if GROUP4 > 1u {
            state.acc4 += tile_weights[place + 4u]; state.acc5 += tile_weights[place + 5u];
            state.acc6 += tile_weights[place + 6u]; state.acc7 += tile_weights[place + 7u];
        }
    }
    return state;
}

// Writes the thread's rows and columns, but for the rows that are computed again.
fn write_tile(
    state: State, first_row: u32, column: u32, left: u32, rows: vec4<u32>, kv_head: u32, slot: u32, again: u32
) {
    if column == 0u {
        for (var r = first_row; r < min(rows.z, first_row + 4u * GROUP4); r++) {
            write_state(r, rows, kv_head, slot);
        }
    }
    let skip = again >> first_row;
    if (skip & 1u) == 0u { write(state.acc0, first_row, column, left, rows, kv_head, slot); }
    if (skip & 2u) == 0u { write(state.acc1, first_row + 1u, column, left, rows, kv_head, slot); }
    if (skip & 4u) == 0u { write(state.acc2, first_row + 2u, column, left, rows, kv_head, slot); }
    if (skip & 8u) == 0u { write(state.acc3, first_row + 3u, column, left, rows, kv_head, slot); }
    if GROUP4 > 1u {
        if (skip & 16u) == 0u { write(state.acc4, first_row + 4u, column, left, rows, kv_head, slot); }
        if (skip & 32u) == 0u { write(state.acc5, first_row + 5u, column, left, rows, kv_head, slot); }
        if (skip & 64u) == 0u { write(state.acc6, first_row + 6u, column, left, rows, kv_head, slot); }
        if (skip & 128u) == 0u { write(state.acc7, first_row + 7u, column, left, rows, kv_head, slot); }
    }
}

// Writes the log-sum-exp of a row, or the softmax state of a piece.
fn write_state(r: u32, rows: vec4<u32>, kv_head: u32, slot: u32) {
    if params.weighting != SOFTMAX {
        return;
    }
    let row_sum = tile_sum[r];
    if slot != NONE {
        let place = params.first_stats + ((slot * params.kv_heads + kv_head) * params.tile + r) * 2u;
        partial[place] = max_at(r);
        partial[place + 1u] = row_sum;
    } else if params.has_lse == 1u {
        var lse = NEGATIVE_INFINITY;
        // Not `!=`: between floats it may be false for NaN.
        if !(row_sum == 0.0) {
            lse = bitcast<u32>(max_at(r) + log(row_sum));
        }
        lse_bits[params.lse_base + output_row(rows, kv_head, r)] = lse;
    }
}

// Writes four columns of row `r` from its sums.
fn write(acc: vec4<f32>, r: u32, column: u32, left: u32, rows: vec4<u32>, kv_head: u32, slot: u32) {
    if r >= rows.z {
        return;
    }
    var result = acc;
    if params.weighting == SOFTMAX {
        let row_sum = tile_sum[r];
        // Nothing but removed behaviours.
        result = select(acc / row_sum, vec4<f32>(), row_sum == 0.0);
    }
    store_row(result, r, column, left, rows, kv_head, slot);
}

// Stores four columns of row `r`: in the output, or in `partial` if the tile has several pieces.
fn store_row(result: vec4<f32>, r: u32, column: u32, left: u32, rows: vec4<u32>, kv_head: u32, slot: u32) {
    if slot != NONE {
        let place = ((slot * params.kv_heads + kv_head) * params.tile + r) * params.value_columns + column;
        partial[place] = result.x;
        if left > 1u { partial[place + 1u] = result.y; }
        if left > 2u { partial[place + 2u] = result.z; }
        if left > 3u { partial[place + 3u] = result.w; }
        return;
    }
    let place = params.out_base + output_row(rows, kv_head, r) * params.value_width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}
