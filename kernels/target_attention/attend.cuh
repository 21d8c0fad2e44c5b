// What the kernels that attend share: parameters, weights, online softmax, the end of a piece.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    THREADS = 128,
    WARPS = THREADS / WARP,
};

enum Weighting : u32 {
    SOFTMAX = 0,
    RELU = 1,
    SILU = 2,
    IDENTITY = 3
};

struct TargetAttentionParams {
    const Piece *pieces;
    // [M, H, d], [N, H_kv, d], [N, H_kv, d_v]; values may be the keys.
    const void *queries;
    const void *keys;
    const void *values;
    // [N, H]; may be null.
    const float *bias;
    // [M, H, d_v] and [M, H]; lse may be null.
    void *out;
    float *lse;
    // For pieces with a slot: weighted sums of values [slots, H_kv, tile_rows, columns]; max and sum [slots, H_kv,
    // tile_rows, 2].
    float *partial;
    float *stats;
    u32 kv_heads, group_heads, width, value_width;
    // The columns of the values that this launch accumulates.
    u32 first_column, columns;
    u32 tile_rows;
    u32 weighting;
    // With softmax both include the factor log2(e), so that weights are powers of 2.
    float scale, bias_scale;
    float divisor;
    // Whether the staged keys are the values too.
    u32 aliased;
};

// The work of a block: a tile of output rows, each of one candidate and query head, all of one key/value head.
struct Work {
    Piece piece;
    u32 kv_head;
};

// Blocks of one piece are adjacent, because its key/value heads are adjacent in memory.
__device__ __forceinline__ Work this_block(const TargetAttentionParams &p) {
    return {p.pieces[blockIdx.x / p.kv_heads], blockIdx.x % p.kv_heads};
}

// The query head of a row of the tile, and the row's index in [M, H].
__device__ __forceinline__ u32 head_of(const TargetAttentionParams &p, const Work &work, u32 row) {
    return work.kv_head * p.group_heads + (work.piece.first_row + row) % p.group_heads;
}
__device__ __forceinline__ u64 output_row(const TargetAttentionParams &p, const Work &work, u32 row) {
    u64 target = work.piece.first_target + (work.piece.first_row + row) / p.group_heads;
    return target * (p.kv_heads * p.group_heads) + head_of(p, work, row);
}

// The index of a behaviour's key or value head of `width` numbers.
__device__ __forceinline__ u64 history_at(const TargetAttentionParams &p, const Work &work, u32 behaviour, u32 width) {
    return ((work.piece.history_start + behaviour) * p.kv_heads + work.kv_head) * width;
}

// ---- Weights -------------------------------------------------------------------------------------------------------

// Not fmaxf, which drops NaN.
__device__ __forceinline__ float relu(float score) { return score < 0.0f ? 0.0f : score; }

// s·σ(s); its limit at -inf, the score of a masked behaviour.
__device__ __forceinline__ float silu(float score) {
    float out = score / (1.0f + exp_approx(-score));
    return score == -infinity() ? 0.0f : out;
}

// Weights other than softmax.
__device__ __forceinline__ float plain_weight(const TargetAttentionParams &p, float score) {
    if (p.weighting == RELU) return relu(score);
    if (p.weighting == IDENTITY) return score;
    return silu(score) / p.divisor;
}

// The factor that rescales sums from one maximum to another, 2^(from - to); 1 for equal infinities.
__device__ __forceinline__ float rescale_factor(float from, float to) { return from == to ? 1.0f : exp2_approx(from - to); }

// The number to subtract from scores with this maximum: 0 for -inf, where all behaviours are masked, since -inf - -inf
// is NaN. fmaxf drops NaN, so the maximum is never NaN, but 2^(NaN - max) is, and stays in the row's sum.
__device__ __forceinline__ float base_of(float row_max) { return row_max == -infinity() ? 0.0f : row_max; }

// ---- The end of a piece --------------------------------------------------------------------------------------------

__device__ __forceinline__ float natural_lse(float row_max, float row_sum) {
    constexpr float LN_2 = 0.693147180559945309f;
    return row_sum == 0.0f ? -infinity() : fma(row_max, LN_2, logf(row_sum));
}

// Recomputes a row, each lane one column, behaviour by behaviour and straight from global memory: the value of a
// behaviour with weight 0 must not count even if it is NaN or infinite.
template <typename T>
__device__ __forceinline__ float recompute_sum(const TargetAttentionParams &p, const Work &work, u32 row, u32 column,
                                               float row_max) {
    const T *query = (const T *)p.queries + output_row(p, work, row) * p.width;
    const float *bias = p.bias + head_of(p, work, row);
    float sum = 0.0f;
#pragma unroll 1
    for (u32 behaviour = 0; behaviour < work.piece.length; behaviour++) {
        const T *key = (const T *)p.keys + history_at(p, work, behaviour, p.width);
        float dot = 0.0f;
#pragma unroll 1
        for (u32 i = threadIdx.x % WARP; i < p.width; i += WARP) {
            dot = fma(widen(query[i]), widen(key[i]), dot);
        }
        float score = warp_sum(dot) * p.scale;
        if (p.bias != nullptr) {
            u64 l = work.piece.history_start + behaviour;
            score = fma(bias[l * (p.kv_heads * p.group_heads)], p.bias_scale, score);
        }
        float weight = p.weighting == SOFTMAX ? exp2_approx(score - base_of(row_max)) : plain_weight(p, score);
        if (weight != 0.0f) {
            const T *value = (const T *)p.values + history_at(p, work, behaviour, p.value_width) + p.first_column;
            sum = fma(weight, widen(value[column]), sum);
        }
    }
    return sum;
}

// The factors that rescale the partial results of a row of the tile to their common maximum; that maximum and the sum.
template <u32 PARTS, u32 ROWS>
__device__ __forceinline__ float2 rescale_parts(const float *stats, u32 row, float (&rescales)[PARTS]) {
    float row_max = -infinity(), row_sum = 0.0f;
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
        row_max = fmaxf(row_max, stats[(part * ROWS + row) * 2]);
    }
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
        const float *stat = stats + (part * ROWS + row) * 2;
        rescales[part] = rescale_factor(stat[0], row_max);
        row_sum = fma(rescales[part], stat[1], row_sum);
    }
    return make_float2(row_max, row_sum);
}

// Recomputes rows of the tile that are NaN or infinite though no weight is NaN. The result replaces the first part, and
// the others become 0.
template <typename T, u32 PARTS, u32 ROWS, u32 PITCH>
__device__ __forceinline__ void recompute_rows(const TargetAttentionParams &p, const Work &work, float *acc, float *stats) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    for (u32 row = threadIdx.x / WARP; row < work.piece.rows; row += WARPS) {
        float rescales[PARTS];
        float2 stat = rescale_parts<PARTS, ROWS>(stats, row, rescales);
        if (stat.y != stat.y) continue;
#pragma unroll 1
        for (u32 first = 0; first < p.columns; first += WARP) {
            bool there = first + lane < p.columns;
            u32 column = there ? first + lane : 0;
            float *at = acc + row * PITCH + column, sum = 0.0f;
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
                if (there) sum = fma(rescales[part], at[part * ROWS * PITCH], sum);
            }
            if (__any_sync(WHOLE_WARP, !is_finite(sum))) sum = recompute_sum<T>(p, work, row, column, stat.x);
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
                if (there) at[part * ROWS * PITCH] = part == 0 ? sum : 0.0f;
            }
        }
        __syncwarp();
        if (lane < PARTS) *(float2 *)(stats + (lane * ROWS + row) * 2) = make_float2(stat.x, lane == 0 ? stat.y : 0.0f);
        __syncwarp();
    }
}

// Combines PARTS partial results of the tile in shared memory, in order, and writes the output rows or the piece's
// slot. acc [PARTS, ROWS, PITCH], weighted sums of values, `not_finite` if any in the block is NaN or infinite; stats
// [PARTS, ROWS, 2], max and sum (without softmax 0 and any finite number).
template <typename T, u32 PARTS, u32 ROWS, u32 PITCH>
__device__ __forceinline__ void write_rows(const TargetAttentionParams &p, const Work &work, float *acc, float *stats,
                                           bool not_finite) {
    u32 lane = threadIdx.x % WARP;
    bool softmax = p.weighting == SOFTMAX;
    if (not_finite) recompute_rows<T, PARTS, ROWS, PITCH>(p, work, acc, stats);
    for (u32 row = threadIdx.x / WARP; row < work.piece.rows; row += WARPS) {
        float rescales[PARTS];
        float2 stat = rescale_parts<PARTS, ROWS>(stats, row, rescales);
        float row_max = stat.x, row_sum = stat.y;
        u64 slot_row = ((u64)work.piece.slot * p.kv_heads + work.kv_head) * p.tile_rows + row;
        u64 out_row = output_row(p, work, row);
        for (u32 column = lane; column < p.columns; column += WARP) {
            float sum = 0.0f;
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
                sum = fma(rescales[part], acc[(part * ROWS + row) * PITCH + column], sum);
            }
            if (work.piece.slot != NONE) {
                p.partial[slot_row * p.columns + column] = sum;
            } else {
                if (softmax) sum = row_sum == 0.0f ? 0.0f : sum / row_sum;
                ((T *)p.out)[out_row * p.value_width + p.first_column + column] = narrow<T>(sum);
            }
        }
        if (lane == 0 && work.piece.slot != NONE) {
            p.stats[slot_row * 2] = row_max;
            p.stats[slot_row * 2 + 1] = row_sum;
        }
        if (lane == 0 && work.piece.slot == NONE && p.lse != nullptr) {
            p.lse[out_row] = natural_lse(row_max, row_sum);
        }
    }
}
