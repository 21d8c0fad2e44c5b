// Weighs a user's behaviours for a tile of candidates and sums their values.
//
//     out[r,:] = Σ_l w(s[r,l]) · v[l,:]         s from a scoring file that stands in front of this one
//
// One workgroup of 64 threads takes one piece of work: up to `tile` rows of output (candidates, or candidates × heads)
// of one user against a part of the user's history, a step at a time:
//   1. each thread scores 4 behaviours against 8 rows of the tile, in registers (`score`);
//   2. softmax only: raises the peaks of its rows; where one rose, older sums fade;
//   3. each thread turns its scores into weights and leaves them in workgroup memory;
//   4. each thread owns 4 columns of the value for the same 8 rows and adds the weighted values, in registers.
// So one load of a behaviour serves 8 rows, one of a query 4 behaviours, one of a weight 4 columns; two barriers a
// step. A part of a history leaves unnormalised sums with their peak and total in `partial`, which
// target_attention/combine.wgsl puts together; the only piece of a tile writes the output itself.
//
// `tile` (4, 8, 16 or 32 rows) grows with the candidates of a user, `columns` (groups of four columns, a power of two)
// with the value. tile/8 · columns is at most 64; where it is less, several threads share the columns and split the
// behaviours. A step is 256 behaviours, or 2048 / tile where that is less.
// Variants: GROUP4 fours of rows a thread, 1 for a tile of 4 rows, 2 for the others. QUADS 1 stands for
// target_attention/blocks_by_quad.wgsl, 0 for target_attention/blocks_alone.wgsl: how queries and weights reach the threads that share them.
// Workgroup memory: 8 KiB of weights, 2 KiB for adding up, 256 bytes. The register tile is written out, number by
// number: an array that a loop indexes lives in memory on some drivers.
// Keys are read where they lie, a row a thread: a part of a row that a thread leaves for its next round waits in the
// cache. Values are read in whole rows.
//
// Precision: f32 throughout, in the order of the history; merged in the order of the parts. The order of the atomics
// plays no part in the highest score.

const THREADS: u32 = 64u;

// The tile, as each piece of work has it.
struct Tile {
    rows: u32,
    // Groups of 4 · GROUP4 rows, and of 4 rows.
    groups: u32,
    fours: u32,
    // Threads of a group of rows: each has behaviours lane, lane + lanes, …
    lanes: u32,
    // Threads that share columns.
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
// 3: the score itself.

var<workgroup> tile_weights: array<vec4<f32>, 512>;
// The highest score so far of each row, as `ordered` words.
var<workgroup> tile_peak: array<atomic<u32>, 32>;
// In the end: the totals of each thread, then of each row.
var<workgroup> tile_parts: array<vec4<f32>, 128>;
var<workgroup> tile_total: array<f32, 32>;

// Scores of 4 behaviours (0..3) for rows 0..3 (a) and 4..7 (b) of a group.
struct Scores {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

fn weigh(score: vec4<f32>, peak: vec4<f32>, live: bool) -> vec4<f32> {
    if !live {
        return vec4<f32>();
    }
    if params.weighting == SOFTMAX {
        // A removed behaviour has the lowest score there is; it must not count where nothing else does either.
        return select(exp_of(score - peak), vec4<f32>(), score <= vec4<f32>(LOWEST));
    }
    if params.weighting == RELU {
        return max(score, vec4<f32>());
    }
    if params.weighting == SILU {
        // Clamped: the sum must stay finite.
        let weight = score / ((1.0 + exp_of(-clamp(score, vec4<f32>(-80.0), vec4<f32>(80.0)))) * params.divisor);
        return select(weight, vec4<f32>(), score < vec4<f32>(-80.0));
    }
    return score;
}

// A float as a word that compares like it.
fn ordered(x: f32) -> u32 {
    let word = bitcast<u32>(x);
    return select(word | 0x80000000u, ~word, word >= 0x80000000u);
}

fn peak_at(r: u32) -> f32 {
    let word = atomicLoad(&tile_peak[r]);
    return bitcast<f32>(select(~word, word ^ 0x80000000u, word >= 0x80000000u));
}

fn peaks_at(r: u32) -> vec4<f32> {
    return vec4<f32>(peak_at(r), peak_at(r + 1u), peak_at(r + 2u), peak_at(r + 3u));
}

fn attend(id: vec3<u32>, thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group / params.kv_heads;
    let kv_head = group % params.kv_heads;
    let rows = pieces[2u * piece];
    let part = pieces[2u * piece + 1u];
    let end = part.y;

    let tile = tile_of();
    let step = 4u * tile.lanes;
    // In steps 1 to 3: which behaviours and rows; in step 4: which columns, behaviours and rows.
    let lane = thread % tile.lanes;
    let row_group = thread / tile.lanes;
    let column = 4u * (thread % params.columns);
    let share = thread / params.columns % tile.shares;
    let first_row = row_group * GROUP4 * 4u;
    // Columns behind the last are computed like the last ones and not written.
    let own_column = min(column, (params.value_columns - 1u) / 4u * 4u);
    let left = params.value_columns - own_column;
    let first_value = params.values_base + kv_head * params.value_width + params.first_column + own_column;

    var sum0 = vec4<f32>(); var sum1 = vec4<f32>(); var sum2 = vec4<f32>(); var sum3 = vec4<f32>();
    var sum4 = vec4<f32>(); var sum5 = vec4<f32>(); var sum6 = vec4<f32>(); var sum7 = vec4<f32>();
    var total_a = vec4<f32>(); var total_b = vec4<f32>();
    var peak_a = vec4<f32>(LOWEST); var peak_b = vec4<f32>(LOWEST);
    if thread < tile.rows {
        atomicStore(&tile_peak[thread], ordered(LOWEST));
    }
    workgroupBarrier();

    for (var start = part.x; start < end; start += step) {
        // 1.
        let l = vec4<u32>(start + lane) + vec4<u32>(0u, tile.lanes, 2u * tile.lanes, 3u * tile.lanes);
        let live = l < vec4<u32>(end);
        let s = score(min(l, vec4<u32>(end - 1u)), row_group, rows, kv_head, thread);
        // 2.
        if params.weighting == SOFTMAX {
            // Behaviours behind the end repeat the last one: they do not change the peak.
            raise_peaks(first_row, max(max(s.a0, s.a1), max(s.a2, s.a3)), max(max(s.b0, s.b1), max(s.b2, s.b3)), thread);
        }
        // Peaks are whole, and the weights of the step before are used up.
        workgroupBarrier();
        if params.weighting == SOFTMAX {
            let new_a = peaks_at(first_row);
            if any(new_a != peak_a) {
                let fade = exp_of(peak_a - new_a);
                peak_a = new_a;
                total_a *= fade;
                sum0 *= fade.x; sum1 *= fade.y; sum2 *= fade.z; sum3 *= fade.w;
            }
            if GROUP4 > 1u {
                let new_b = peaks_at(first_row + 4u);
                if any(new_b != peak_b) {
                    let fade = exp_of(peak_b - new_b);
                    peak_b = new_b;
                    total_b *= fade;
                    sum4 *= fade.x; sum5 *= fade.y; sum6 *= fade.z; sum7 *= fade.w;
                }
            }
        }
        // 3.
        let place = lane * tile.fours + row_group * GROUP4;
        let next = tile.lanes * tile.fours;
        let a0 = weigh(s.a0, peak_a, live.x); let a1 = weigh(s.a1, peak_a, live.y);
        let a2 = weigh(s.a2, peak_a, live.z); let a3 = weigh(s.a3, peak_a, live.w);
        total_a += a0 + a1 + a2 + a3;
        tile_weights[place] = a0; tile_weights[place + next] = a1;
        tile_weights[place + 2u * next] = a2; tile_weights[place + 3u * next] = a3;
        if GROUP4 > 1u {
            let b0 = weigh(s.b0, peak_b, live.x); let b1 = weigh(s.b1, peak_b, live.y);
            let b2 = weigh(s.b2, peak_b, live.z); let b3 = weigh(s.b3, peak_b, live.w);
            total_b += b0 + b1 + b2 + b3;
            tile_weights[place + 1u] = b0; tile_weights[place + next + 1u] = b1;
            tile_weights[place + 2u * next + 1u] = b2; tile_weights[place + 3u * next + 1u] = b3;
        }
        workgroupBarrier();
        // 4. Weights behind the end are zero. All threads go round alike: quads exchange weights.
        let count = min(end - start, step);
        for (var first = 0u; first < count; first += 4u * tile.shares) {
            let i = first + 4u * share;
            let row = min(vec4<u32>(start + i) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u)) - params.first_history;
            let places = row * params.value_stride + first_value;
            let w = weight_block(i * tile.fours + row_group * GROUP4, tile.fours, thread);
            let v0 = values_four(places.x, left); let v1 = values_four(places.y, left);
            let v2 = values_four(places.z, left); let v3 = values_four(places.w, left);
            sum0 += w.a0.x * v0 + w.a1.x * v1 + w.a2.x * v2 + w.a3.x * v3;
            sum1 += w.a0.y * v0 + w.a1.y * v1 + w.a2.y * v2 + w.a3.y * v3;
            sum2 += w.a0.z * v0 + w.a1.z * v1 + w.a2.z * v2 + w.a3.z * v3;
            sum3 += w.a0.w * v0 + w.a1.w * v1 + w.a2.w * v2 + w.a3.w * v3;
            if GROUP4 > 1u {
                sum4 += w.b0.x * v0 + w.b1.x * v1 + w.b2.x * v2 + w.b3.x * v3;
                sum5 += w.b0.y * v0 + w.b1.y * v1 + w.b2.y * v2 + w.b3.y * v3;
                sum6 += w.b0.z * v0 + w.b1.z * v1 + w.b2.z * v2 + w.b3.z * v3;
                sum7 += w.b0.w * v0 + w.b1.w * v1 + w.b2.w * v2 + w.b3.w * v3;
            }
        }
    }

    if params.weighting == SOFTMAX {
        let place = lane * tile.fours + row_group * GROUP4;
        tile_parts[place] = total_a;
        if GROUP4 > 1u { tile_parts[place + 1u] = total_b; }
        workgroupBarrier();
        if thread < tile.rows {
            var total = 0.0;
            for (var other = 0u; other < tile.lanes; other++) {
                total += tile_parts[other * tile.fours + thread / 4u][thread % 4u];
            }
            tile_total[thread] = total;
        }
    }
    // Totals are whole, and the last weights used up.
    workgroupBarrier();
    if tile.shares > 1u {
        let place = thread * 4u * GROUP4;
        tile_weights[place] = sum0; tile_weights[place + 1u] = sum1;
        tile_weights[place + 2u] = sum2; tile_weights[place + 3u] = sum3;
        if GROUP4 > 1u {
            tile_weights[place + 4u] = sum4; tile_weights[place + 5u] = sum5;
            tile_weights[place + 6u] = sum6; tile_weights[place + 7u] = sum7;
        }
        workgroupBarrier();
        if share > 0u {
            return;
        }
        for (var other = 1u; other < tile.shares; other++) {
            let place = (thread + other * params.columns) * 4u * GROUP4;
            sum0 += tile_weights[place]; sum1 += tile_weights[place + 1u];
            sum2 += tile_weights[place + 2u]; sum3 += tile_weights[place + 3u];
            if GROUP4 > 1u {
                sum4 += tile_weights[place + 4u]; sum5 += tile_weights[place + 5u];
                sum6 += tile_weights[place + 6u]; sum7 += tile_weights[place + 7u];
            }
        }
    }

    let slot = part.z;
    if column == 0u {
        for (var r = first_row; r < min(rows.z, first_row + 4u * GROUP4); r++) {
            write_total(r, rows, kv_head, slot);
        }
    }
    if column < params.value_columns {
        write(sum0, first_row, column, left, rows, kv_head, slot);
        write(sum1, first_row + 1u, column, left, rows, kv_head, slot);
        write(sum2, first_row + 2u, column, left, rows, kv_head, slot);
        write(sum3, first_row + 3u, column, left, rows, kv_head, slot);
        if GROUP4 > 1u {
            write(sum4, first_row + 4u, column, left, rows, kv_head, slot);
            write(sum5, first_row + 5u, column, left, rows, kv_head, slot);
            write(sum6, first_row + 6u, column, left, rows, kv_head, slot);
            write(sum7, first_row + 7u, column, left, rows, kv_head, slot);
        }
    }
}

// Writes what belongs to a whole row: its log-sum-exp, or the peak and total of a part.
fn write_total(r: u32, rows: vec4<u32>, kv_head: u32, slot: u32) {
    if params.weighting != SOFTMAX {
        return;
    }
    let total = tile_total[r];
    if slot != NONE {
        let place = params.first_stats + ((slot * params.kv_heads + kv_head) * params.tile + r) * 2u;
        partial[place] = peak_at(r);
        partial[place + 1u] = total;
    } else if params.has_lse == 1u {
        var lse = NEGATIVE_INFINITY;
        if total > 0.0 {
            lse = bitcast<u32>(peak_at(r) + log(total));
        }
        lse_bits[params.lse_base + output_row(rows, kv_head, r)] = lse;
    }
}

// Writes four columns of row `r`: to the output, or beside it where other parts follow.
fn write(sum: vec4<f32>, r: u32, column: u32, left: u32, rows: vec4<u32>, kv_head: u32, slot: u32) {
    if r >= rows.z {
        return;
    }
    if slot != NONE {
        let place = ((slot * params.kv_heads + kv_head) * params.tile + r) * params.value_columns + column;
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
    let place = params.out_base + output_row(rows, kv_head, r) * params.value_width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}
