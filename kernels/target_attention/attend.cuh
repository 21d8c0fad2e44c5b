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
    // Of the plan, where SiLU's weights are divided by the length of each user's history; otherwise null: by `divisor`.
    const Tile *tiles;
    // [M, H, d], [N, H_kv, d], [N, H_kv, d_v]; values may be the keys.
    const void *queries;
    const void *keys;
    const void *values;
    // [N, H]; may be null.
    const float *bias;
    // [M, H, d_v] and [M, H]; lse may be null.
    void *out;
    float *lse;
    // For pieces with a slot: weighted sums of values [slots, H_kv, tile_rows, columns]; max, in the units of scores, and sum
    // [slots, H_kv, tile_rows, 2]. A negative sum: the weighted sums are already divided by it.
    float *partial;
    float *stats;
    u32 kv_heads, group_heads, width, value_width;
    // The columns of the values that this launch accumulates.
    u32 first_column, columns;
    u32 tile_rows;
    u32 weighting;
    // Scores are scale·dot or, with a bias, unit·(scale·dot + bias): in this order only what is out of range as a power of 2
    // overflows. With softmax `unit` is log2(e), and without a bias it is in `scale`.
    float scale, unit;
    float divisor;
    // Whether the staged keys are the values too.
    u32 aliased;
    // For rows that are computed again: the scale without unit.
    float plain_scale;
    // Whether `scale` is out of range, so that all rows are computed again.
    u32 exact;
};

// The work of a block: a tile of output rows, each of one candidate and query head, all of one key/value head.
struct Work {
    Piece piece;
    u32 kv_head;
    // Of SiLU's weights.
    float divisor;
};

// Blocks of one piece are adjacent, because its key/value heads are adjacent in memory.
__device__ __forceinline__ Work this_block(const TargetAttentionParams &p) {
    const Piece piece = p.pieces[blockIdx.x / p.kv_heads];
    float divisor = p.divisor;
    if (p.tiles != nullptr) {
        // A piece may be a part of the history.
        const Tile &tile = p.tiles[piece.tile];
        divisor = (float)(u32)(tile.history_end - tile.history_start);
    }
    return {piece, blockIdx.x % p.kv_heads, divisor};
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

// ---- Rows ----------------------------------------------------------------------------------------------------------

// How a kernel reads and writes single numbers: of target attention, rows as they are stored. TIN's are sums (tin/rows.cuh).
template <typename T>
struct StoredRows {
    struct Row {
        const T *from;
        __device__ __forceinline__ float operator[](u32 i) const { return widen(from[i]); }
    };

    const TargetAttentionParams &p;

    // The query row of the tile, from a column on; a behaviour's key; its value from the first column of the launch on.
    __device__ __forceinline__ Row query(const Work &work, u32 row, u32 column) const {
        return {(const T *)p.queries + output_row(p, work, row) * p.width + column};
    }
    __device__ __forceinline__ Row key(const Work &work, u32 behaviour) const {
        return {(const T *)p.keys + history_at(p, work, behaviour, p.width)};
    }
    __device__ __forceinline__ Row value(const Work &work, u32 behaviour) const {
        return {(const T *)p.values + history_at(p, work, behaviour, p.value_width) + p.first_column};
    }
    // Writes a number of the output, of a row that begins there.
    __device__ __forceinline__ void put(u64 row, u32 column, float number) const {
        ((T *)p.out)[row + column] = narrow<T>(number);
    }
};

// ---- Weights -------------------------------------------------------------------------------------------------------

// Not fmaxf, which drops NaN.
__device__ __forceinline__ float relu(float score) { return score < 0.0f ? 0.0f : score; }

// s·σ(s); its limit at -inf, the score of a masked behaviour.
__device__ __forceinline__ float silu(float score) {
    float out = score / (1.0f + exp_approx(-score));
    return score == -infinity() ? 0.0f : out;
}

// Weights other than softmax.
__device__ __forceinline__ float plain_weight(const TargetAttentionParams &p, const Work &work, float score) {
    if (p.weighting == RELU) return relu(score);
    if (p.weighting == IDENTITY) return score;
    return silu(score) / work.divisor;
}

// The factor that rescales sums from one maximum to another, 2^(from - to); 1 for equal infinities.
__device__ __forceinline__ float rescale_factor(float from, float to) { return from == to ? 1.0f : exp2_approx(from - to); }

// A score from a dot product, without bias or with it.
__device__ __forceinline__ float score_of(const TargetAttentionParams &p, float dot) { return dot * p.scale; }
__device__ __forceinline__ float score_of(const TargetAttentionParams &p, float dot, float bias) {
    return fma(dot, p.scale, bias) * p.unit;
}

// The number to subtract from scores with this maximum: 0 for -inf, where all behaviours are masked, since -inf - -inf
// is NaN. fmaxf drops NaN, so the maximum is never NaN, but 2^(NaN - max) is, and stays in the row's sum.
__device__ __forceinline__ float base_of(float row_max) { return row_max == -infinity() ? 0.0f : row_max; }

// ---- The end of a piece --------------------------------------------------------------------------------------------

constexpr float LOG2_E = 1.442695040888963407f;
constexpr float LN_2 = 0.693147180559945309f;

__device__ __forceinline__ float natural_lse(float row_max, float row_sum) {
    return row_sum == 0.0f ? -infinity() : fma(row_max, LN_2, logf(row_sum));
}

// Rows are computed again, straight from global memory, where the fast way is out of range: if a sum is NaN or infinite, since a
// removed behaviour must not count even if its value is not finite, and values up to the largest have a finite mean; if it is so
// small that the way it was scaled has cost it bits (mma.cu); and if the maximum is infinite, since scores beyond ±2.36e38
// overflow as powers of 2.

// A score in its own units. Each lane computes one.
template <typename Rows>
__device__ __forceinline__ float plain_score(const Rows &rows, const Work &work, u32 row, u32 behaviour) {
    const TargetAttentionParams &p = rows.p;
    const auto query = rows.query(work, row, 0);
    const auto key = rows.key(work, behaviour);
    float dot = 0.0f;
#pragma unroll 1
    for (u32 i = 0; i < p.width; i++) {
        dot = fma(query[i], key[i], dot);
    }
    if (p.bias == nullptr) return dot * p.plain_scale;
    u64 l = work.piece.history_start + behaviour;
    return fma(dot, p.plain_scale, p.bias[l * (p.kv_heads * p.group_heads) + head_of(p, work, row)]);
}

// Computes a row again and writes it. Behaviours with a score of -inf are left out, others count even with a weight of 0.
// Softmax: halves of normalised weights are summed, which do not overflow.
template <typename Rows>
__device__ __forceinline__ void write_row_again(const Rows &rows, const Work &work, u32 row) {
    const TargetAttentionParams &p = rows.p;
    const u32 lane = threadIdx.x % WARP, length = work.piece.length;
    const bool softmax = p.weighting == SOFTMAX;
    float row_max = softmax ? -infinity() : 0.0f, row_sum = 0.0f;
#pragma unroll 1
    for (u32 pass = softmax ? 0 : 2; pass < 2; pass++) {
#pragma unroll 1
        for (u32 first = lane; first < length; first += WARP) {
            float score = plain_score(rows, work, row, first);
            if (pass == 0) row_max = fmaxf(row_max, score);
            if (pass == 1) row_sum += exp_approx(score - base_of(row_max));
        }
        row_max = warp_max(row_max);
    }
    row_sum = warp_sum(row_sum);
    u64 slot_row = ((u64)work.piece.slot * p.kv_heads + work.kv_head) * p.tile_rows + row;
    u64 out_row = output_row(p, work, row);
#pragma unroll 1
    for (u32 first_column = 0; first_column < p.columns; first_column += WARP) {
        u32 column = first_column + lane;
        float sum = 0.0f;
#pragma unroll 1
        for (u32 first = 0; first < length; first += WARP) {
            float score = first + lane < length ? plain_score(rows, work, row, first + lane) : -infinity();
            float weight = softmax ? exp_approx(score - base_of(row_max)) / (2.0f * row_sum) : plain_weight(p, work, score);
            bool counts = first + lane < length && (score != -infinity() || p.weighting == IDENTITY);
            float some = 0.0f;
#pragma unroll 1
            for (u32 left = __ballot_sync(WHOLE_WARP, counts); left != 0; left &= left - 1) {
                u32 from = __ffs(left) - 1;
                const auto value = rows.value(work, first + from);
                float one = __shfl_sync(WHOLE_WARP, weight, from);
                if (column < p.columns) some = fma(one, value[column], some);
            }
            sum += some;
        }
        if (softmax) sum = doubled(sum);
        if (column < p.columns && work.piece.slot != NONE) p.partial[slot_row * p.columns + column] = sum;
        if (column < p.columns && work.piece.slot == NONE) {
            rows.put(out_row * p.value_width + p.first_column, column, sum);
        }
    }
    if (lane != 0) return;
    if (work.piece.slot != NONE) {
        // Rounded like that of other pieces, where it is in range as a power of 2.
        float power = row_max * LOG2_E;
        p.stats[slot_row * 2] = is_finite(power) ? power * LN_2 : row_max;
        p.stats[slot_row * 2 + 1] = -row_sum;
    } else if (p.lse != nullptr) {
        p.lse[out_row] = row_sum == 0.0f ? -infinity() : row_max + logf(row_sum);
    }
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

// Whether a row must be computed again. `extreme`: a partial sum of the block's is large, or less than `least` but not 0.
template <u32 PARTS, u32 ROWS, u32 PITCH>
__device__ __forceinline__ bool is_out_of_range(const TargetAttentionParams &p, const Work &work, u32 row, const float *acc,
                                                const float (&rescales)[PARTS], float2 stat, bool extreme, float least) {
    const u32 lane = threadIdx.x % WARP;
    bool wrong = p.exact || stat.x == infinity();
    // Otherwise the row's sum is NaN because a score is, and so is the result.
    if (wrong || stat.y != stat.y) return wrong;
    if (stat.x == -infinity()) {
        // Unless all behaviours are removed, scores have overflowed.
        wrong = p.bias == nullptr && work.piece.length > 0;
#pragma unroll 1
        for (u32 i = lane; p.bias != nullptr && i < work.piece.length; i += WARP) {
            u64 l = work.piece.history_start + i;
            wrong |= p.bias[l * (p.kv_heads * p.group_heads) + head_of(p, work, row)] != -infinity();
        }
    }
#pragma unroll 1
    for (u32 column = lane; extreme && column < p.columns; column += WARP) {
        float sum = 0.0f;
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
            sum = fma(rescales[part], acc[(part * ROWS + row) * PITCH + column], sum);
        }
        wrong |= !is_finite(sum) || (sum != 0.0f && fabsf(sum) < least);
    }
    return __any_sync(WHOLE_WARP, wrong);
}

// Combines PARTS partial results of the tile in shared memory, in order, and writes the output rows or the piece's
// slot. acc [PARTS, ROWS, PITCH], weighted sums of values, `extreme` if any in the block is large (any_large) or less than
// `least`; stats [PARTS, ROWS, 2], max and sum (without softmax 0 and any finite number).
template <typename Rows, u32 PARTS, u32 ROWS, u32 PITCH>
__device__ __forceinline__ void write_rows(const Rows &rows, const Work &work, float *acc, float *stats, bool extreme,
                                           float least = 0.0f) {
    const TargetAttentionParams &p = rows.p;
    u32 lane = threadIdx.x % WARP;
    bool softmax = p.weighting == SOFTMAX, suspicious = extreme || p.exact;
    for (u32 row = threadIdx.x / WARP; row < work.piece.rows; row += WARPS) {
        float rescales[PARTS];
        float2 stat = rescale_parts<PARTS, ROWS>(stats, row, rescales);
        if (suspicious || !is_finite(stat.x)) {
            if (is_out_of_range<PARTS, ROWS, PITCH>(p, work, row, acc, rescales, stat, extreme, least)) {
                write_row_again(rows, work, row);
                continue;
            }
        }
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
                rows.put(out_row * p.value_width + p.first_column, column, sum);
            }
        }
        if (lane == 0 && work.piece.slot != NONE) {
            p.stats[slot_row * 2] = softmax ? row_max * LN_2 : row_max;
            p.stats[slot_row * 2 + 1] = row_sum;
        }
        if (lane == 0 && work.piece.slot == NONE && p.lse != nullptr) {
            p.lse[out_row] = natural_lse(row_max, row_sum);
        }
    }
}
