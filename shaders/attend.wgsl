// Weighs a user's behaviours for a tile of candidates and sums their values.
//
//     out[r,:] = Σ_l w(s[r,l]) · v[l,:]         s from a scoring file that stands in front of this one
//
// One workgroup of 64 threads takes one piece of work: up to `tile` rows of output (candidates, or candidates × heads)
// of one user against a part of the user's history, a step at a time:
//   1. each thread scores 4 behaviours against 8 rows of the tile, in registers (`score`);
//   2. softmax only: the peak of each row over the step, and how far older sums must fade;
//   3. each thread turns its scores into weights and leaves them in workgroup memory;
//   4. each thread owns 4 columns of the value for 8 rows and adds the weighted values, in registers.
// So one load of a behaviour serves 8 rows, one of a query 4 behaviours, one of a weight 4 columns. A part of a
// history leaves unnormalised sums with their peak and total in `partial`, which merge_attention.wgsl puts together;
// the only piece of a tile writes the output itself.
//
// `tile` (4, 8, 16 or 32 rows) grows with the candidates of a user, `columns` (groups of four columns, a power of two)
// with the value. tile/8 · columns is at most 64; where it is less, several threads share the columns and split the
// behaviours. A step is 256 behaviours, or 2048 / tile where that is less.
// Variant: GROUP4 fours of rows a thread; 1 for a tile of 4 rows, 2 for the others.
// Workgroup memory: 8 KiB of weights, 2 KiB for adding up, 256 bytes. The register tile is written out, number by
// number: an array that a loop indexes lives in memory on some drivers.
//
// Precision: f32 throughout, in the order of the history; merged in the order of the parts.

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
// Peaks, and in the end totals, of each thread.
var<workgroup> tile_parts: array<vec4<f32>, 128>;
// The highest score so far of each row, and the factor on sums that were taken below an older peak.
var<workgroup> tile_peak: array<f32, 32>;
var<workgroup> tile_fade: array<f32, 32>;

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

fn peak_of(r: u32) -> vec4<f32> {
    return vec4<f32>(tile_peak[r], tile_peak[r + 1u], tile_peak[r + 2u], tile_peak[r + 3u]);
}

fn fade_of(r: u32) -> vec4<f32> {
    return vec4<f32>(tile_fade[r], tile_fade[r + 1u], tile_fade[r + 2u], tile_fade[r + 3u]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
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
    let sum_group = thread / (params.columns * tile.shares);
    // Columns behind the last are computed like the last ones and not written.
    let own_column = min(column, (params.value_columns - 1u) / 4u * 4u);
    let left = params.value_columns - own_column;
    let first_value = params.values_base + kv_head * params.value_width + params.first_column + own_column;

    var sum0 = vec4<f32>(); var sum1 = vec4<f32>(); var sum2 = vec4<f32>(); var sum3 = vec4<f32>();
    var sum4 = vec4<f32>(); var sum5 = vec4<f32>(); var sum6 = vec4<f32>(); var sum7 = vec4<f32>();
    var total_a = vec4<f32>(); var total_b = vec4<f32>();
    if thread < tile.rows {
        tile_peak[thread] = LOWEST;
    }

    for (var start = part.x; start < end; start += step) {
        // 1.
        let l = vec4<u32>(start + lane) + vec4<u32>(0u, tile.lanes, 2u * tile.lanes, 3u * tile.lanes);
        let live = l < vec4<u32>(end);
        let s = score(min(l, vec4<u32>(end - 1u)), row_group, rows, kv_head);
        // 2.
        let place = lane * tile.fours + row_group * GROUP4;
        var peak_a = vec4<f32>(); var peak_b = vec4<f32>();
        if params.weighting == SOFTMAX {
            // Behaviours behind the end repeat the last one: they do not change the peak.
            tile_parts[place] = max(max(s.a0, s.a1), max(s.a2, s.a3));
            if GROUP4 > 1u { tile_parts[place + 1u] = max(max(s.b0, s.b1), max(s.b2, s.b3)); }
            workgroupBarrier();
            if thread < tile.rows {
                let old = tile_peak[thread];
                var peak = old;
                for (var other = 0u; other < tile.lanes; other++) {
                    peak = max(peak, tile_parts[other * tile.fours + thread / 4u][thread % 4u]);
                }
                tile_peak[thread] = peak;
                tile_fade[thread] = exp_one(old - peak);
            }
            workgroupBarrier();
            let r = row_group * GROUP4 * 4u;
            peak_a = peak_of(r);
            total_a *= fade_of(r);
            if GROUP4 > 1u {
                peak_b = peak_of(r + 4u);
                total_b *= fade_of(r + 4u);
            }
            let q = sum_group * GROUP4 * 4u;
            let fade_a = fade_of(q);
            sum0 *= fade_a.x; sum1 *= fade_a.y; sum2 *= fade_a.z; sum3 *= fade_a.w;
            if GROUP4 > 1u {
                let fade_b = fade_of(q + 4u);
                sum4 *= fade_b.x; sum5 *= fade_b.y; sum6 *= fade_b.z; sum7 *= fade_b.w;
            }
        }
        // 3.
        let a0 = weigh(s.a0, peak_a, live.x); let a1 = weigh(s.a1, peak_a, live.y);
        let a2 = weigh(s.a2, peak_a, live.z); let a3 = weigh(s.a3, peak_a, live.w);
        total_a += a0 + a1 + a2 + a3;
        let next = tile.lanes * tile.fours;
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
        // 4.
        let count = min(end - start, step);
        for (var i = share; i < count; i += tile.shares) {
            let value = values_four((start + i - params.first_history) * params.value_stride + first_value, left);
            let a = tile_weights[i * tile.fours + sum_group * GROUP4];
            sum0 += a.x * value; sum1 += a.y * value; sum2 += a.z * value; sum3 += a.w * value;
            if GROUP4 > 1u {
                let b = tile_weights[i * tile.fours + sum_group * GROUP4 + 1u];
                sum4 += b.x * value; sum5 += b.y * value; sum6 += b.z * value; sum7 += b.w * value;
            }
        }
        // The next round overwrites the weights.
        workgroupBarrier();
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
            tile_fade[thread] = total;
        }
        workgroupBarrier();
    }
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
    let first_row = sum_group * GROUP4 * 4u;
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
    let total = tile_fade[r];
    if slot != NONE {
        let place = params.first_stats + ((slot * params.kv_heads + kv_head) * params.tile + r) * 2u;
        partial[place] = tile_peak[r];
        partial[place + 1u] = total;
    } else if params.has_lse == 1u {
        var lse = NEGATIVE_INFINITY;
        if total > 0.0 {
            lse = bitcast<u32>(tile_peak[r] + log(total));
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
        let total = tile_fade[r];
        result = select(vec4<f32>(), sum / total, total > 0.0);
    }
    let place = params.out_base + output_row(rows, kv_head, r) * params.value_width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}
