// Gradients of decoupled embeddings from a selection.
//
// The gradient of a kept behaviour's rows is a number times a row of its candidate, so that no gradient of a behaviour is stored:
//
//     dR_f[ids[l,f]]        += w_l · g_f,             g = grad_out[m], or grad_out[m] ⊙ t with the candidate's own rows t
//     dR_f[target_ids[m,f]] += (grad_out[m] ⊙ Σ_l w_l r_l)_f                                    then
//     ds_l = w_l · (⟨g, r_l⟩ − Σ_i w_i ⟨g, r_i⟩)
//     dA_f[ids[l,f]]        += ds_l · scale_f · A_f[target_ids[m,f]]
//     dA_f[target_ids[m,f]] += scale_f · Σ_l ds_l · A_f[ids[l,f]]
//
// A row times a large or tiny scale could leave the range of f32: a power of two of the scales is a factor of ds_l instead.
//
// decoupled_keep checks a selection, and writes for each slot its behaviour, its weight, and its ids, which are then sorted.
// decoupled_kept_rows writes two rows of each candidate: what the numbers of its behaviours multiply, and the gradient of its own; and the
// products ⟨g, r_l⟩. decoupled_score_gradients turns these into ds. The sums by id are those of lookup/backward.cu, whose "bags" are
// (row, number) of each candidate and then of each slot.
//
// A block takes a candidate. Sums of a block have a fixed order.
// Precision: f32; a weight is computed by the special function unit. A score of -∞ removes its behaviour, whatever the row holds.
#include "decoupled/rows.cuh"
#include "decoupled/weights.cuh"

struct DecoupledKeepParams {
    // One candidate each.
    const Tile *tiles;
    const u32 *positions;
    const float *scores;
    const u32 *counts;
    // The numbers of the slots; null: softmax weights.
    const float *numbers;
    const u32 *ids, *target_ids;
    // Records for counts above K, and for positions outside their history.
    u64 *bad_counts, *bad_positions;
    // [M, K]: the row of the history; NONE: the slot keeps nothing.
    u32 *kept;
    // [M + M·K]: the row of the gradients, and the number as bits; null: nothing but the checks is wanted.
    uint2 *bags;
    // [M, K, F] and [M, F]; NONE where nothing is kept.
    u32 *slot_ids, *candidate_ids;
    u32 top_k;
    u32 features;
    u32 candidates;
    // On `numbers`.
    float factor;
};

struct DecoupledKeptRowsParams {
    const Tile *tiles;
    const u32 *counts;
    const u32 *kept;
    // Of the slots.
    const uint2 *bags;
    // [M, Σ r]; null: ones.
    const float *grad_out;
    // [M, Σ width]: factor ⊙ the candidate's row; null: not wanted.
    float *products;
    // [M, Σ width]: factor ⊙ Σ number · row; null: not wanted.
    float *sums;
    // [M, K]: ⟨factor [⊙ the candidate's row], row⟩; null: not wanted.
    float *dots;
    u32 top_k;
    // Whether dots are of products, and whether those of earlier tables are there.
    u32 multiply, add;
    u32 unused;
    Rows rows;
    float scales[MOST_TABLES];
};

struct DecoupledScoreGradientsParams {
    const Tile *tiles;
    const u32 *kept;
    // Of the slots: the weights.
    const uint2 *bags;
    const float *dots;
    // [M, K]; null: not wanted.
    float *out;
    // As in DecoupledKeepParams; null: not wanted.
    uint2 *out_bags;
    u32 top_k;
    u32 candidates;
    // On the numbers of `out_bags`.
    float factor;
    u32 unused;
};

// The count of a candidate: 0 if it is above K.
__device__ __forceinline__ u32 checked_count(const u32 *counts, u64 m, u32 top_k) {
    u32 count = __ldg(counts + m);
    return count > top_k ? 0 : count;
}

// The candidate's own row of the gradients comes after all that slots multiply.
__device__ __forceinline__ uint2 own_bag(u64 m, u32 candidates) {
    return make_uint2((u32)(candidates + m), __float_as_uint(1.0f));
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS) decoupled_keep(const DecoupledKeepParams p) {
    const Tile tile = p.tiles[blockIdx.x];
    const u64 m = tile.first_target + tile.first_row, first = m * p.top_k;
    const u64 length = tile.history_end - tile.history_start;
    const u32 count = checked_count(p.counts, m, p.top_k);
    if (threadIdx.x == 0 && p.counts[m] > p.top_k) {
        report_bad_id(p.bad_counts, m, p.counts[m]);
    }
    float row_max = -infinity(), row_sum = 0.0f;
    if (!p.numbers) {
        for (u32 k = threadIdx.x; k < count; k += ROW_THREADS) {
            row_max = fmaxf(row_max, p.scores[first + k]);
        }
        row_max = over_block<false>(row_max);
        for (u32 k = threadIdx.x; k < count; k += ROW_THREADS) {
            row_sum += weight_of(p.scores[first + k], row_max);
        }
        row_sum = over_block<true>(row_sum);
    }
    bool any = false;
    for (u32 k = threadIdx.x; k < p.top_k; k += ROW_THREADS) {
        const u64 slot = first + k;
        u32 row = NONE;
        float number = 0.0f;
        if (k < count) {
            const u32 position = p.positions[slot];
            const float score = p.scores[slot];
            if (position >= length) {
                report_bad_id(p.bad_positions, slot, position);
            } else if (score != -infinity()) {
                row = (u32)(tile.history_start + position);
                number = p.numbers ? p.numbers[slot] * p.factor : weight_of(score, row_max) / row_sum;
            }
        }
        any |= row != NONE;
        if (p.bags) {
            p.kept[slot] = row;
            p.bags[p.candidates + slot] = make_uint2((u32)m, __float_as_uint(number));
            for (u32 f = 0; f < p.features; f++) {
                p.slot_ids[slot * p.features + f] = row == NONE ? NONE : __ldg(p.ids + (u64)row * p.features + f);
            }
        }
    }
    any = __syncthreads_or(any);
    if (!p.bags) {
        return;
    }
    for (u32 f = threadIdx.x; f < p.features; f += ROW_THREADS) {
        p.candidate_ids[m * p.features + f] = any ? __ldg(p.target_ids + m * p.features + f) : NONE;
    }
    if (threadIdx.x == 0) {
        p.bags[m] = own_bag(m, p.candidates);
    }
}

__device__ __forceinline__ float dot(const Vec4 &a, const Vec4 &b) {
    float sum = 0.0f;
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum = fma(a.numbers[e], b.numbers[e], sum);
    }
    return sum;
}

enum : u32 {
    // Turns over slots that are added up before they are added to the rest.
    TURNS_PER_BLOCK = 64,
};

__device__ __forceinline__ void add(Vec4 &sum, const Vec4 &more) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] += more.numbers[e];
    }
}

// The sum over the adjacent lanes that share a row.
__device__ __forceinline__ float sum_of_lanes(float value, u32 lanes) {
    for (u32 other = lanes / 2; other > 0; other /= 2) {
        value += shuffle_xor(value, other);
    }
    return value;
}

// Goes over the slots of a candidate, of which groups of lanes take one each in turn: sums the halves of the rows, since a mean of
// the largest numbers may be beyond them by a rounding error, and writes the dots.
__device__ __forceinline__ Vec4 go_over_slots(
    const DecoupledKeptRowsParams &p, const Slice &slice, const Vec4 &factor, u64 first, u32 count, u32 lanes, bool add_dots) {
    const u32 groups = ROW_THREADS / lanes, lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    // In blocks, so that the error does not grow with the number of slots.
    Vec4 sum = zeros(), block = zeros();
    for (u32 begin = 0, turn = 1; begin < count; begin += AHEAD * groups, turn++) {
        u32 rows[AHEAD];
        Vec4 values[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 k = begin + i * groups + group;
            rows[i] = k < count ? __ldg(p.kept + first + k) : NONE;
            bool reads = rows[i] != NONE && slice.there;
            values[i] = reads ? vec4_of(p.rows, slice, id_of(p.rows, p.rows.ids, slice, rows[i])) : zeros();
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u64 slot = first + begin + i * groups + group;
            const bool keeps = rows[i] != NONE;
            const float number = keeps ? __uint_as_float(__ldg(p.bags + slot).y) : 0.0f;
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                block.numbers[e] = keeps ? fma(0.5f * number, values[i].numbers[e], block.numbers[e]) : block.numbers[e];
            }
            if (p.dots) {
                float product = sum_of_lanes(keeps && slice.there ? dot(factor, values[i]) : 0.0f, lanes);
                if (keeps && lane == 0) {
                    p.dots[slot] = add_dots ? p.dots[slot] + product : product;
                }
            }
        }
        if (turn % TURNS_PER_BLOCK == 0) {
            add(sum, block);
            block = zeros();
        }
    }
    add(sum, block);
    return sum;
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS) decoupled_kept_rows(const DecoupledKeptRowsParams p) {
    __shared__ Vec4 of_groups[ROW_THREADS];
    const Tile tile = p.tiles[blockIdx.x];
    const u64 m = tile.first_target + tile.first_row, first = m * p.top_k;
    const u32 count = checked_count(p.counts, m, p.top_k);
    const u32 lanes = lanes_of(p.rows.vec4s), groups = ROW_THREADS / lanes;
    const u32 lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    for (u32 first_vec4 = 0; first_vec4 < p.rows.vec4s; first_vec4 += lanes) {
        const Slice slice = slice_of(p.rows, first_vec4 + lane);
        const u32 left = p.rows.tables[slice.table].width - slice.first_column;
        const u64 place = m * p.rows.out_width + p.rows.first_columns[slice.table] + slice.first_column;
        Vec4 factor = zeros(), product = zeros();
        if (slice.there) {
            const Vec4 target = p.products ? vec4_of(p.rows, slice, id_of(p.rows, p.rows.target_ids, slice, m)) : zeros();
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                if (e < left) {
                    factor.numbers[e] = p.grad_out ? __ldg(p.grad_out + place + e) : p.scales[slice.table];
                }
                product.numbers[e] = factor.numbers[e] * target.numbers[e];
            }
            if (p.products && group == 0) {
                store_vec4(p.products + place, product, left);
            }
        }
        Vec4 sum = go_over_slots(p, slice, p.multiply ? product : factor, first, count, lanes, p.add || first_vec4 > 0);
        if (!p.sums) {
            continue;
        }
        __syncthreads();
        put_vec4(&of_groups[threadIdx.x], sum);
        __syncthreads();
        if (group == 0 && slice.there) {
            for (u32 other = 1; other < groups; other++) {
                add(sum, get_vec4(&of_groups[other * lanes + lane]));
            }
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                sum.numbers[e] = 2.0f * (sum.numbers[e] * factor.numbers[e]);
            }
            store_vec4(p.sums + place, sum, left);
        }
    }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS) decoupled_score_gradients(const DecoupledScoreGradientsParams p) {
    const Tile tile = p.tiles[blockIdx.x];
    const u64 m = tile.first_target + tile.first_row, first = m * p.top_k;
    float mean = 0.0f;
    for (u32 k = threadIdx.x; k < p.top_k; k += ROW_THREADS) {
        if (__ldg(p.kept + first + k) != NONE) {
            mean = fma(__uint_as_float(__ldg(p.bags + first + k).y), __ldg(p.dots + first + k), mean);
        }
    }
    mean = over_block<true>(mean);
    for (u32 k = threadIdx.x; k < p.top_k; k += ROW_THREADS) {
        const u64 slot = first + k;
        float grad = 0.0f;
        if (__ldg(p.kept + slot) != NONE) {
            grad = __uint_as_float(__ldg(p.bags + slot).y) * (__ldg(p.dots + slot) - mean);
        }
        if (p.out) {
            p.out[slot] = grad;
        }
        if (p.out_bags) {
            p.out_bags[p.candidates + slot] = make_uint2((u32)m, __float_as_uint(grad * p.factor));
        }
    }
    if (p.out_bags && threadIdx.x == 0) {
        p.out_bags[m] = own_bag(m, p.candidates);
    }
}
