// Target attention on matrix units: f16 and bf16, widths in multiples of 8 up to 128, rows aligned to 16 bytes.
//
//     s_l = scale·⟨q, k_l⟩ + bias_l        out = Σ_l w_l·v_l        w from s by `weighting`
//
// Grid: a block of four warps for each piece of the plan and key/value head. The history passes through a ring of STAGES
//   tiles in shared memory, 64 behaviours each, filled by cp.async; if the keys are the values, one tile is both. Rows of a
//   tile consist of 16-byte units, swizzled by row number, so that ldmatrix (plain and transposed) and the copies access
//   every bank once.
// Products: S[behaviours, rows] = K·Qᵀ, each warp 16 behaviours by all rows; then Oᵀ[columns, rows] += Vᵀ·Pᵀ, each warp
//   every fourth 16 columns, over all 64 behaviours. The history is the operand of height 16 and the output rows
//   (candidates and the heads that share a key head) the one of width 8, so that a single candidate wastes 7 of 8 rows and
//   not 15 of 16. In both results a lane holds the same output rows, so max and sum stay in registers. P passes through
//   shared memory.
// Variants: rows_8, rows_32, rows_64: the output rows that read the history together; 64 only up to a width of 64, beyond
//   which one block would take the whole shared memory of a multiprocessor.
// Precision: products are exact and summed in f32. A 16-bit weight would cost more than the rounding of the result, so it
//   is split into two numbers whose sum has 16 bits (bf16) or 22 (f16), and multiplied twice. f16 lacks range: its weights
//   are 2^15 at the maximum, and weightings without a maximum use fma.cu. bf16's are 2^-24, see MAX_LOG.
#include "target_attention/mma.cuh"

template <typename T, u32 CHUNK, u32 ROWS>
struct SplitHistory {
    static constexpr u32 STAGES = CHUNK == 64 ? 3 : 2;
    static constexpr u32 ROW_TILES = ROWS / 8, COLUMN_TILES = CHUNK / 16 / WARPS;
    static constexpr u32 UNITS = CHUNK / UNIT;
    static constexpr u32 TILE_BYTES = BEHAVIOURS * CHUNK * 2;
    static constexpr u32 WEIGHT_UNITS = ROWS / UNIT, WEIGHT_BYTES = BEHAVIOURS * ROWS * 2;
    static constexpr u32 PITCH = CHUNK + 4;

    // Shared memory, in bytes: the ring of stages, each with keys and values or, if aliased, one tile for both;
    // queries; weights in two halves; maxima [WARPS, ROWS]; max and sum of the piece [ROWS, 2]; the query heads of the
    // rows.
    static constexpr __device__ u32 bytes_of_stage(bool aliased) { return (aliased ? 1 : 2) * TILE_BYTES; }
    static constexpr __device__ u32 queries_at(u32 stage_bytes) { return STAGES * stage_bytes; }
    static constexpr __device__ u32 weights_at(u32 stage_bytes) { return queries_at(stage_bytes) + ROWS * CHUNK * 2; }
    static constexpr __device__ u32 maxima_at(u32 stage_bytes) { return weights_at(stage_bytes) + 2 * WEIGHT_BYTES; }
    static constexpr __device__ u32 heads_at(u32 stage_bytes) { return maxima_at(stage_bytes) + (WARPS + 2) * ROWS * 4; }
    static constexpr __device__ u32 shared_bytes(bool aliased) { return heads_at(bytes_of_stage(aliased)) + ROWS * 4; }

    const TargetAttentionParams &p;
    Work work;
    u32 steps, stage_bytes;
    // Shared memory: addresses of the ring, the queries and the two halves of the weights; maxima, then max and sum of
    // the piece; the query heads of the rows.
    u32 ring, queries, weights;
    float *maxima;
    u32 *heads;
    u32 warp, lane;
    // What this lane reads and writes: the first byte of its row, and its unit in the row. Like the swizzle, loops over
    // units combine with it by exclusive or.
    u32 key_row, key_unit, query_row, query_unit, value_at, weight_row, weight_unit, weights_read, weights_unit;

    __device__ __forceinline__ void find_addresses() {
        constexpr u32 PITCH_BYTES = CHUNK * 2, WEIGHT_PITCH = ROWS * 2;
        u32 row = warp * 16 + lane % 16;
        key_row = kept(row * PITCH_BYTES);
        key_unit = kept(at(row, lane / 16) % PITCH_BYTES);
        row = ROW_TILES == 1 ? lane % 8 : lane / 16 * 8 + lane % 8;
        query_row = kept(queries + row * PITCH_BYTES);
        query_unit = kept(at(row, lane / 8 % 2) % PITCH_BYTES);
        value_at = kept(at(lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2));
        row = behaviour_of(0);
        weight_row = kept(weights + row * WEIGHT_PITCH + lane % 4 * 4);
        weight_unit = kept(weight_at(row, 0) % WEIGHT_PITCH);
        row = lane % 16;
        weights_read = kept(weights + row * WEIGHT_PITCH);
        weights_unit = kept(weight_at(row, ROW_TILES == 1 ? 0 : lane / 16) % WEIGHT_PITCH);
    }

    // Where a unit of a row of CHUNK numbers is.
    static __device__ __forceinline__ u32 at(u32 row, u32 unit) { return (row * UNITS + (unit ^ row % 8)) * 16; }
    // The same for rows of weights, which may be shorter than a row of banks.
    static __device__ __forceinline__ u32 weight_at(u32 row, u32 unit) {
        constexpr u32 PER_LINE = 8 / (WEIGHT_UNITS < 8 ? WEIGHT_UNITS : 8);
        return (row * WEIGHT_UNITS + (unit ^ row / PER_LINE % WEIGHT_UNITS)) * 16;
    }

    // This thread copies a unit of every AT_ONCEth row of a tile. AT_ONCE is a multiple of 8, so that all its units are
    // swizzled alike.
    static constexpr u32 AT_ONCE = THREADS / UNITS;
    struct Source {
        const T *from;
        // From one of the thread's rows to the next.
        u64 stride;
        bool there, needed;
    };

    // Tiles are padded with zeros to whole fragments.
    __device__ __forceinline__ Source source(const void *rows, u32 width) const {
        u32 column = threadIdx.x % UNITS * UNIT;
        u64 first = history_at(p, work, threadIdx.x / UNITS, width);
        bool there = column < width;
        return {(const T *)rows + first + (there ? column : 0), (u64)AT_ONCE * p.kv_heads * width, there,
                column < (width + 15) / 16 * 16};
    }

    // Copies the next tile, of which `left` behaviours exist, or all.
    __device__ __forceinline__ void load_history(u32 to, Source &source, u32 left) const {
        u32 row = threadIdx.x / UNITS;
        to += at(row, threadIdx.x % UNITS);
        const T *from = source.from;
        source.from += BEHAVIOURS / AT_ONCE * source.stride;
        if (!source.needed) return;
        if (left >= BEHAVIOURS && source.there) {
#pragma unroll
            for (u32 i = 0; i < BEHAVIOURS / AT_ONCE; i++) {
                copy_async(to + i * AT_ONCE * CHUNK * 2, from + i * source.stride);
            }
        } else {
#pragma unroll 1
            for (u32 i = 0; i < BEHAVIOURS / AT_ONCE; i++) {
                bool there = source.there && row + i * AT_ONCE < left;
                copy_async(to + i * AT_ONCE * CHUNK * 2, there ? from + i * source.stride : (const T *)p.keys,
                           there ? 16 : 0);
            }
        }
    }

    __device__ __forceinline__ void load_queries() {
        for (u32 i = threadIdx.x; i < ROWS * UNITS; i += THREADS) {
            u32 row = i / UNITS, unit = i % UNITS;
            bool there = row < work.piece.rows && unit * UNIT < p.width;
            u64 first = output_row(p, work, there ? row : 0) * p.width;
            copy_async(queries + at(row, unit), (const T *)p.queries + first + (there ? unit * UNIT : 0), there ? 16 : 0);
        }
    }

    // scores[r][..]: 16 behaviours by 8 rows, as mma's c.
    __device__ __forceinline__ void multiply_keys(float (&scores)[ROW_TILES][4], u32 keys) {
        // The swizzle is an exclusive or, so it can be applied in two steps.
        keys = kept(keys + key_row);
        u32 end = kept((p.width + 15) / 16 * 32);
#pragma unroll 1
        for (u32 k = 0; k < end; k += 32) {
            u32 a[4], b[4];
            load_matrices_4(a, keys + (key_unit ^ k));
            u32 queries = query_row + (query_unit ^ k);
            if constexpr (ROW_TILES == 1) {
                load_matrices_2(b, queries);
                multiply_add<T>(scores[0], a, b);
            } else {
#pragma unroll
                for (u32 r = 0; r < ROW_TILES; r += 2) {
                    load_matrices_4(b, queries + r * 8 * CHUNK * 2);
                    multiply_add<T>(scores[r], a, b);
                    multiply_add<T>(scores[r + 1], a, b + 2);
                }
            }
        }
    }

    // The behaviour in the step and the output row of number i of scores[r].
    __device__ __forceinline__ u32 behaviour_of(u32 i) const { return warp * 16 + lane / 4 + i / 2 * 8; }
    __device__ __forceinline__ u32 row_of(u32 r, u32 i) const { return r * 8 + lane % 4 * 2 + i % 2; }

    // Turns dot products into scores.
    __device__ __forceinline__ void scale(float (&scores)[ROW_TILES][4], u32 step, u32 left) {
        if (p.bias == nullptr) {
#pragma unroll
            for (u32 i = 0; i < ROW_TILES * 4; i++) {
                scores[i / 4][i % 4] = score_of(p, scores[i / 4][i % 4]);
            }
            return;
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 behaviour = behaviour_of(half * 2);
            u64 l = work.piece.history_start + step * BEHAVIOURS + (behaviour < left ? behaviour : 0);
            const float *bias = p.bias + l * (p.kv_heads * p.group_heads);
#pragma unroll
            for (u32 r = 0; r < ROW_TILES; r++) {
                scores[r][half * 2] = score_of(p, scores[r][half * 2], bias[heads[row_of(r, 0)]]);
                scores[r][half * 2 + 1] = score_of(p, scores[r][half * 2 + 1], bias[heads[row_of(r, 1)]]);
            }
        }
    }

    // Sets the score or weight of behaviours past the end of the history.
    __device__ __forceinline__ void mask(float (&scores)[ROW_TILES][4], u32 left, float value) {
        if (left >= BEHAVIOURS) return;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            bool there = behaviour_of(i) < left;
#pragma unroll
            for (u32 r = 0; r < ROW_TILES; r++) {
                if (!there) scores[r][i] = value;
            }
        }
    }

    // Weights without softmax. The branches enclose the loops, because their bodies are long.
    __device__ __forceinline__ void plain_weights(float (&scores)[ROW_TILES][4], u32 left) {
        if (p.weighting != IDENTITY) {
            if (p.weighting == RELU) {
#pragma unroll
                for (u32 i = 0; i < ROW_TILES * 4; i++) {
                    scores[i / 4][i % 4] = relu(scores[i / 4][i % 4]);
                }
            } else {
#pragma unroll
                for (u32 i = 0; i < ROW_TILES * 4; i++) {
                    scores[i / 4][i % 4] = silu(scores[i / 4][i % 4]) / work.divisor;
                }
            }
        }
        mask(scores, left, 0.0f);
    }

    // Weights by softmax, and max and sum of each row so far.
    __device__ __forceinline__ void soft_weights(float (&scores)[ROW_TILES][4], u32 left, float (&row_max)[ROW_TILES][2],
                                                 float (&row_sum)[ROW_TILES][2],
                                                 float (&acc)[COLUMN_TILES][ROW_TILES][4]) {
        mask(scores, left, -infinity());
        share_maxima(scores);
        __syncthreads();
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
            float new_max[2] = {row_max[r][0], row_max[r][1]};
#pragma unroll
            for (u32 w = 0; w < WARPS; w++) {
                float2 both = *(const float2 *)(maxima + w * ROWS + row_of(r, 0));
                new_max[0] = fmaxf(new_max[0], both.x);
                new_max[1] = fmaxf(new_max[1], both.y);
            }
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                float rescale = rescale_factor(row_max[r][i], new_max[i]), base = base_of(new_max[i]) - MAX_LOG<T>;
                row_max[r][i] = new_max[i];
                scores[r][i] = exp2_approx(scores[r][i] - base);
                scores[r][i + 2] = exp2_approx(scores[r][i + 2] - base);
                row_sum[r][i] = fma(row_sum[r][i], rescale, scores[r][i] + scores[r][i + 2]);
#pragma unroll
                for (u32 m = 0; m < COLUMN_TILES; m++) {
                    acc[m][r][i] *= rescale;
                    acc[m][r][i + 2] *= rescale;
                }
            }
        }
    }

    // Shares each warp's maxima of the step.
    __device__ __forceinline__ void share_maxima(const float (&scores)[ROW_TILES][4]) {
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
            float most[2];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                most[i] = fmaxf(scores[r][i], scores[r][i + 2]);
                // Over the lanes that hold the same row.
                for (u32 lanes = 4; lanes < WARP; lanes *= 2) {
                    most[i] = fmaxf(most[i], shuffle_xor(most[i], lanes));
                }
            }
            if (lane < 4) *(float2 *)(maxima + warp * ROWS + row_of(r, 0)) = make_float2(most[0], most[1]);
        }
    }

    // Writes weights to shared memory, each split in two.
    __device__ __forceinline__ void store_weights(const float (&scores)[ROW_TILES][4], u32 r, u32 half) {
        float weight[2] = {scores[r][half * 2], scores[r][half * 2 + 1]}, high[2];
        u32 to = weight_row + half * 8 * ROWS * 2 + (weight_unit ^ r * 16);
        u32 pair = narrow_pair<T>(weight[0], weight[1]);
        store_shared(to, pair);
        widen_pair<T>(pair, high);
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            weight[i] -= high[i];
            // The first half alone holds infinity.
            if (p.weighting != SOFTMAX && fabsf(high[i]) == infinity()) weight[i] = 0.0f;
        }
        store_shared(to + WEIGHT_BYTES, narrow_pair<T>(weight[0], weight[1]));
    }

    // acc[m][r][..]: 16 columns by 8 rows.
    __device__ __forceinline__ void multiply_values(float (&acc)[COLUMN_TILES][ROW_TILES][4], u32 values) {
        constexpr u32 PAIR = ROW_TILES == 1 ? 1 : 2;
        u32 tiles = (p.columns + 15) / 16;
        u32 from = weights_read;
        values = kept(values + value_at);
        // None of this warp's columns exist.
        if (warp >= tiles) return;
#pragma unroll 1
        for (u32 end = from + WEIGHT_BYTES; from < end; from += 16 * ROWS * 2, values += 16 * CHUNK * 2) {
            u32 a[COLUMN_TILES][4];
#pragma unroll
            for (u32 m = 0; m < COLUMN_TILES; m++) {
                u32 tile = warp + m * WARPS;
                // The warps' tiles are as far apart as the swizzle's period, so one offset fits all.
                if (tile < tiles) load_transposed_4(a[m], values + m * WARPS * 32);
            }
#pragma unroll
            for (u32 r = 0; r < ROW_TILES; r += PAIR) {
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    u32 b[4];
                    if constexpr (PAIR == 1) {
                        load_transposed_2(b, from + half * WEIGHT_BYTES);
                    } else {
                        load_transposed_4(b, from + half * WEIGHT_BYTES + (weights_unit ^ r * 16));
                    }
#pragma unroll
                    for (u32 m = 0; m < COLUMN_TILES; m++) {
                        if (warp + m * WARPS >= tiles) continue;
                        multiply_add<T>(acc[m][r], a[m], b);
                        if constexpr (PAIR == 2) multiply_add<T>(acc[m][r + 1], a[m], b + 2);
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void run() {
        float acc[COLUMN_TILES][ROW_TILES][4] = {};
        float row_max[ROW_TILES][2], row_sum[ROW_TILES][2] = {};
        find_addresses();
        if (threadIdx.x < ROWS) heads[threadIdx.x] = head_of(p, work, threadIdx.x);
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
            row_max[r][0] = row_max[r][1] = p.weighting == SOFTMAX ? -infinity() : 0.0f;
        }
        Source keys_source = source(p.keys, p.width), values_source = source(p.values, p.value_width);
        for (u32 next = 0, step = 0, place = 0, filled = 0; step < steps; next++) {
            if (next >= STAGES - 1) {
                copy_wait<STAGES - 2>();
                // The tile of the step has arrived for all threads, and all have finished the previous one, which the
                // next copy overwrites.
                __syncthreads();
            }
            if (next < steps) {
                u32 to = ring + filled * stage_bytes, left = work.piece.length - next * BEHAVIOURS;
                filled = filled + 1 == STAGES ? 0 : filled + 1;
                load_history(to, keys_source, left);
                if (!p.aliased) load_history(to + TILE_BYTES, values_source, left);
                if (next == 0) load_queries();
            }
            copy_commit();
            if (next < STAGES - 1) continue;
            u32 keys = ring + place * stage_bytes;
            float scores[ROW_TILES][4] = {};
            // Matrix instructions need all lanes together, of which only some have just copied rows.
            __syncwarp();
            multiply_keys(scores, keys);
            u32 left = work.piece.length - step * BEHAVIOURS;
            scale(scores, step, left);
            if (p.weighting == SOFTMAX) {
                soft_weights(scores, left, row_max, row_sum, acc);
            } else {
                plain_weights(scores, left);
            }
#pragma unroll
            for (u32 r = 0; r < ROW_TILES; r++) {
                store_weights(scores, r, 0);
                store_weights(scores, r, 1);
            }
            __syncthreads();
            multiply_values(acc, keys + (p.aliased ? 0 : (u32)TILE_BYTES));
            step++;
            place = place + 1 == STAGES ? 0 : place + 1;
        }
        finish(acc, row_max, row_sum);
    }

    __device__ __forceinline__ void finish(const float (&acc)[COLUMN_TILES][ROW_TILES][4],
                                           const float (&row_max)[ROW_TILES][2], float (&row_sum)[ROW_TILES][2]) {
        float *rows = (float *)dynamic_shared, *stats = maxima + WARPS * ROWS;
        // Exact: a power of 2.
        float unit = p.weighting == SOFTMAX ? UNIT_WEIGHT<T> : 1.0f;
        // All threads have finished with the tiles, which the sums overwrite, and with the maxima, which the warps'
        // sums overwrite.
        __syncthreads();
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                for (u32 lanes = 4; lanes < WARP; lanes *= 2) {
                    row_sum[r][i] += shuffle_xor(row_sum[r][i], lanes);
                }
                if (lane < 4) maxima[warp * ROWS + row_of(r, i)] = row_sum[r][i];
                if (lane < 4 && warp == 0) stats[row_of(r, i) * 2] = row_max[r][i];
            }
#pragma unroll
            for (u32 m = 0; m < COLUMN_TILES; m++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 column = (warp + m * WARPS) * 16 + lane / 4 + i / 2 * 8;
                    rows[row_of(r, i) * PITCH + column] = acc[m][r][i] * unit;
                }
            }
        }
        __syncthreads();
        if (threadIdx.x < ROWS) {
            float all = 0.0f;
            for (u32 w = 0; w < WARPS; w++) {
                all += maxima[w * ROWS + threadIdx.x];
            }
            stats[threadIdx.x * 2 + 1] = all * unit;
        }
        constexpr u32 COUNT = COLUMN_TILES * ROW_TILES * 4;
        bool extreme = any_large<COUNT>(acc) || (p.weighting == SOFTMAX && any_less<COUNT>(acc, LEAST_SUM<T> / UNIT_WEIGHT<T>));
        write_rows<StoredRows<T>, 1, ROWS, PITCH>(StoredRows<T>{p}, work, rows, stats, __syncthreads_or(extreme), LEAST_SUM<T>);
    }
};

template <typename T, u32 CHUNK, u32 ROWS>
__device__ __forceinline__ void split_history_mma(const TargetAttentionParams &p) {
    typedef SplitHistory<T, CHUNK, ROWS> Kernel;
    Work work = this_block(p);
    u32 stage_bytes = Kernel::bytes_of_stage(p.aliased);
    u32 shared = shared_address(dynamic_shared);
    Kernel kernel = {
        p,
        work,
        (work.piece.length + BEHAVIOURS - 1) / BEHAVIOURS,
        stage_bytes,
        shared,
        shared + Kernel::queries_at(stage_bytes),
        shared + Kernel::weights_at(stage_bytes),
        (float *)((u8 *)dynamic_shared + Kernel::maxima_at(stage_bytes)),
        (u32 *)((u8 *)dynamic_shared + Kernel::heads_at(stage_bytes)),
        threadIdx.x / WARP,
        threadIdx.x % WARP,
    };
    kernel.run();
}

#define SPLIT_HISTORY_MMA(NAME, T, CHUNK, ROWS, BLOCKS)                                                 \
    LAYOUT(NAME, BEHAVIOURS, SplitHistory<T, CHUNK, ROWS>::shared_bytes(false),                         \
           SplitHistory<T, CHUNK, ROWS>::shared_bytes(true));                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const TargetAttentionParams p) { \
        split_history_mma<T, CHUNK, ROWS>(p);                                                           \
    }

SPLIT_HISTORY_MMA(split_history_mma_64_rows_8_f16, f16, 64, 8, 4)
SPLIT_HISTORY_MMA(split_history_mma_64_rows_32_f16, f16, 64, 32, 3)
SPLIT_HISTORY_MMA(split_history_mma_64_rows_64_f16, f16, 64, 64, 2)
SPLIT_HISTORY_MMA(split_history_mma_128_rows_8_f16, f16, 128, 8, 4)
SPLIT_HISTORY_MMA(split_history_mma_128_rows_32_f16, f16, 128, 32, 3)
SPLIT_HISTORY_MMA(split_history_mma_64_rows_8_bf16, bf16, 64, 8, 4)
SPLIT_HISTORY_MMA(split_history_mma_64_rows_32_bf16, bf16, 64, 32, 3)
SPLIT_HISTORY_MMA(split_history_mma_64_rows_64_bf16, bf16, 64, 64, 2)
SPLIT_HISTORY_MMA(split_history_mma_128_rows_8_bf16, bf16, 128, 8, 4)
SPLIT_HISTORY_MMA(split_history_mma_128_rows_32_bf16, bf16, 128, 32, 3)
