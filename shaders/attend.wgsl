// Weighs a user's behaviours for a tile of candidates and sums their values.
//
//     out[r,:] = Σ_l w(s[r,l]) · v[l,:]         s from a scoring file that stands in front of this one
//
// One workgroup of 64 threads takes one piece of work: up to 4·TILE4 rows of output (candidates, or candidates ×
// heads) of one user against a part of the user's history, 64 behaviours at a time:
//   1. each thread scores one behaviour against all rows of the tile (`score`): the behaviour is loaded once;
//   2. softmax only: one thread a row finds the peak of the 64 scores and how far older sums must fade;
//   3. each thread turns its own scores into weights;
//   4. each thread owns columns of the value and adds 64 weighted values to one sum a row, in registers.
// A part of a history leaves unnormalised sums with their peak and total in `partial`, which merge_attention.wgsl
// puts together; the only piece of a tile writes the output itself.
//
// Variants: TILE4 (rows / 4) grows with the candidates of a user; COLUMNS columns a thread owns, for values wider
// than 64; PARTS threads share a column, each with its share of the behaviours, for values narrower than 64.
// COLUMNS · TILE4 is at most 8: 32 sums a thread. Workgroup memory: at most 8 KiB + 256 bytes.
//
// Precision: f32 throughout; scores of all weightings in f32 sums in the order of the width.

const THREADS: u32 = 64u;
const ROWS: u32 = 4u * TILE4;

// Weightings.
const SOFTMAX: u32 = 0u;
const RELU: u32 = 1u;
const SILU: u32 = 2u;
// 3: the score itself.

// Of 64 behaviours by TILE4 groups of four rows: scores, then weights. Reused at the end to add up over threads.
var<workgroup> tile_weights: array<vec4<f32>, THREADS * TILE4>;
// The highest score so far of each row, and the factor on sums that were taken below an older peak.
var<workgroup> tile_peak: array<f32, ROWS>;
var<workgroup> tile_fade: array<f32, ROWS>;

fn weigh(score: vec4<f32>, peak: vec4<f32>) -> vec4<f32> {
    if WEIGHTING == SOFTMAX {
        // A removed behaviour has the lowest score there is; it must not count where nothing else does either.
        return select(exp(score - peak), vec4<f32>(0.0), score <= vec4<f32>(LOWEST));
    }
    if WEIGHTING == RELU {
        return max(score, vec4<f32>(0.0));
    }
    if WEIGHTING == SILU {
        // Clamped: exp of a large number may be anything on some devices.
        let weight = score / ((1.0 + exp(-clamp(score, vec4<f32>(-80.0), vec4<f32>(80.0)))) * params.divisor);
        return select(weight, vec4<f32>(0.0), score < vec4<f32>(-80.0));
    }
    return score;
}

fn row_peak(group: u32) -> vec4<f32> {
    let r = group * 4u;
    return vec4<f32>(tile_peak[r], tile_peak[r + 1u], tile_peak[r + 2u], tile_peak[r + 3u]);
}

fn row_fade(group: u32) -> vec4<f32> {
    let r = group * 4u;
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

    let column = thread % (THREADS / PARTS);
    let share = thread / (THREADS / PARTS);
    var sums: array<vec4<f32>, COLUMNS * TILE4>;
    var totals: array<vec4<f32>, TILE4>;
    // Columns behind the last are computed like the last one and not written.
    var columns: array<u32, COLUMNS>;
    for (var i = 0u; i < COLUMNS; i++) {
        columns[i] = min(column + i * THREADS, params.value_columns - 1u) + params.first_column
            + kv_head * params.value_width + params.values_base;
    }
    if thread < ROWS {
        tile_peak[thread] = LOWEST;
    }

    for (var start = part.x; start < end; start += THREADS) {
        let live = start + thread < end;
        let own = min(start + thread, end - 1u);
        // 1.
        score(own, thread, rows, kv_head);
        if WEIGHTING == SOFTMAX {
            if !live {
                for (var j = 0u; j < TILE4; j++) {
                    tile_weights[thread * TILE4 + j] = vec4<f32>(LOWEST);
                }
            }
            workgroupBarrier();
            // 2.
            if thread < ROWS {
                let old = tile_peak[thread];
                var peak = old;
                for (var l = 0u; l < THREADS; l++) {
                    peak = max(peak, tile_weights[l * TILE4 + thread / 4u][thread % 4u]);
                }
                tile_peak[thread] = peak;
                tile_fade[thread] = exp(old - peak);
            }
            workgroupBarrier();
        }
        // 3.
        for (var j = 0u; j < TILE4; j++) {
            let place = thread * TILE4 + j;
            var weight = weigh(tile_weights[place], row_peak(j));
            if !live {
                weight = vec4<f32>(0.0);
            }
            tile_weights[place] = weight;
            if WEIGHTING == SOFTMAX {
                let fade = row_fade(j);
                totals[j] = totals[j] * fade + weight;
                for (var i = 0u; i < COLUMNS; i++) {
                    sums[i * TILE4 + j] *= fade;
                }
            }
        }
        workgroupBarrier();
        // 4.
        let quads = (min(end - start, THREADS) + 3u) / 4u;
        for (var quad = share; quad < quads; quad += PARTS) {
            let l = start + quad * 4u;
            let last = end - 1u;
            let place = quad * 4u * TILE4;
            let row0 = (l - params.first_history) * params.value_stride;
            let row1 = (min(l + 1u, last) - params.first_history) * params.value_stride;
            let row2 = (min(l + 2u, last) - params.first_history) * params.value_stride;
            let row3 = (min(l + 3u, last) - params.first_history) * params.value_stride;
            for (var i = 0u; i < COLUMNS; i++) {
                let v0 = values_at(row0 + columns[i]);
                let v1 = values_at(row1 + columns[i]);
                let v2 = values_at(row2 + columns[i]);
                let v3 = values_at(row3 + columns[i]);
                for (var j = 0u; j < TILE4; j++) {
                    sums[i * TILE4 + j] += tile_weights[place + j] * v0 + tile_weights[place + TILE4 + j] * v1
                        + tile_weights[place + 2u * TILE4 + j] * v2 + tile_weights[place + 3u * TILE4 + j] * v3;
                }
            }
        }
        // The next round overwrites the weights.
        workgroupBarrier();
    }

    if WEIGHTING == SOFTMAX {
        // The total of each row: every thread has that of its own behaviours.
        for (var j = 0u; j < TILE4; j++) {
            tile_weights[thread * TILE4 + j] = totals[j];
        }
        workgroupBarrier();
        if thread < ROWS {
            var total = 0.0;
            for (var l = 0u; l < THREADS; l++) {
                total += tile_weights[l * TILE4 + thread / 4u][thread % 4u];
            }
            tile_fade[thread] = total;
        }
        workgroupBarrier();
    }
    if PARTS > 1u {
        for (var j = 0u; j < TILE4; j++) {
            tile_weights[thread * TILE4 + j] = sums[j];
        }
        workgroupBarrier();
        for (var other = 1u; other < PARTS; other++) {
            let place = (column + other * (THREADS / PARTS)) * TILE4;
            for (var j = 0u; j < TILE4; j++) {
                sums[j] += tile_weights[place + j];
            }
        }
    }

    let slot = part.z;
    if thread < rows.z {
        if slot == NONE {
            if HAS_LSE == 1u {
                let total = tile_fade[thread];
                var lse = NEGATIVE_INFINITY;
                if total > 0.0 {
                    lse = bitcast<u32>(tile_peak[thread] + log(total));
                }
                lse_bits[params.lse_base + output_row(rows, kv_head, thread)] = lse;
            }
        } else if WEIGHTING == SOFTMAX {
            let place = params.first_stats + ((slot * params.kv_heads + kv_head) * ROWS + thread) * 2u;
            partial[place] = tile_peak[thread];
            partial[place + 1u] = tile_fade[thread];
        }
    }
    if share > 0u {
        return;
    }
    for (var i = 0u; i < COLUMNS; i++) {
        let own_column = column + i * THREADS;
        if own_column < params.value_columns {
            for (var r = 0u; r < rows.z; r++) {
                var sum = sums[i * TILE4 + r / 4u][r % 4u];
                if slot == NONE {
                    if WEIGHTING == SOFTMAX {
                        let total = tile_fade[r];
                        sum = select(0.0, sum / total, total > 0.0);
                    }
                    out[params.out_base + output_row(rows, kv_head, r) * params.value_width
                        + params.first_column + own_column] = sum;
                } else {
                    partial[((slot * params.kv_heads + kv_head) * ROWS + r) * params.value_columns + own_column]
                        = sum;
                }
            }
        }
    }
}
