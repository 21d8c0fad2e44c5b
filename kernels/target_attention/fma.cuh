// Attention on multiply-adds: fma.cu. `Rows` brings the history to shared memory.
#pragma once
#include "target_attention/attend.cuh"

enum : u32 {
    // Lanes that share an output row, and rows per thread.
    ROW_LANES = 16,
    ROWS_EACH = 4,
    // Output rows per warp.
    WARP_ROWS = WARP / ROW_LANES * ROWS_EACH,
    PADDING = 4,
};

// Rows as they are stored. `wide`: 16 bytes at a time directly to shared memory (f32, aligned); otherwise number by number, widened.
template <typename Number, bool IS_WIDE>
struct StagedRows : StoredRows<Number> {
    typedef Number T;
    enum : bool {
        WIDE = IS_WIDE,
        // Whether something is left to do with what has arrived.
        CHANGES = false
    };
    using StoredRows<T>::p;

    // Where a behaviour's key or value is, from a column on.
    __device__ __forceinline__ const T *row(const Work &work, bool keys, u32 behaviour, u32 row_width, u32 column) const {
        return (const T *)(keys ? p.keys : p.values) + history_at(p, work, behaviour, row_width) + column;
    }

    // Loads rows of CHUNK numbers, padded with zeros. Row i begins `stride` numbers after row i - 1.
    template <u32 CHUNK, u32 PITCH>
    static __device__ __forceinline__ void load_rows(float *to, const T *from, u64 stride, u32 rows, u32 rows_there, u32 width) {
        constexpr u32 NUMBERS = WIDE ? 4 : 1, LANES = CHUNK / NUMBERS, AT_ONCE = THREADS / LANES;
        u32 column = threadIdx.x % LANES * NUMBERS, row = threadIdx.x / LANES;
        // The width is a whole number of vectors.
        if (column >= width) rows_there = 0;
        const T *at = from + row * stride + column;
        to += row * PITCH + column;
#pragma unroll 2
        for (; row < rows; row += AT_ONCE) {
            bool there = row < rows_there;
            if constexpr (WIDE) {
                copy_async(shared_address(to), there ? at : from, there ? 16 : 0);
            } else {
                *to = there ? widen(*at) : 0.0f;
            }
            at += AT_ONCE * stride;
            to += AT_ONCE * PITCH;
        }
    }
};

template <typename T, bool WIDE, u32 CHUNK, u32 ROWS>
struct SplitHistory {
    static constexpr u32 PARTS = WARPS * WARP_ROWS / ROWS;
    static constexpr u32 BEHAVIOURS = PARTS == 1 ? (CHUNK == 128 ? 32 : 64) : (CHUNK == 128 ? 64 : 128);
    // Behaviours of a step per warp, and per thread.
    static constexpr u32 WARP_BEHAVIOURS = BEHAVIOURS / PARTS;
    static constexpr u32 EACH = WARP_BEHAVIOURS / ROW_LANES;
    static constexpr u32 PITCH = CHUNK + PADDING;
    static constexpr u32 WEIGHT_PITCH = WARP_BEHAVIOURS + PADDING;
    static constexpr u32 HISTORY_TILE = BEHAVIOURS * PITCH, QUERY_TILE = ROWS * PITCH;
    static constexpr u32 COLUMNS_EACH = CHUNK / ROW_LANES;
    // The columns of a lane: groups of as many as a load takes; groups of adjacent lanes are adjacent.
    static constexpr u32 GROUP = COLUMNS_EACH < 4 ? COLUMNS_EACH : 4;
    // Shared memory, in floats: a ring of two tiles of the history, with the queries in each or once; the warps'
    // weights.
    static constexpr __device__ u32 weights_at(bool one_key_tile) {
        return 2 * HISTORY_TILE + (one_key_tile ? 1 : 2) * QUERY_TILE;
    }
    static constexpr __device__ u32 shared_bytes(bool one_key_tile) {
        return (weights_at(one_key_tile) + WARPS * WARP_ROWS * WEIGHT_PITCH) * 4;
    }
};

template <typename Rows, u32 CHUNK, u32 ROWS>
struct SplitKernel : SplitHistory<typename Rows::T, Rows::WIDE, CHUNK, ROWS> {
    typedef SplitHistory<typename Rows::T, Rows::WIDE, CHUNK, ROWS> Sizes;
    using Sizes::HISTORY_TILE, Sizes::QUERY_TILE, Sizes::COLUMNS_EACH, Sizes::GROUP;
    using Sizes::PARTS, Sizes::BEHAVIOURS, Sizes::WARP_BEHAVIOURS, Sizes::EACH, Sizes::PITCH, Sizes::WEIGHT_PITCH;

    const Rows rows;
    const TargetAttentionParams &p;
    Work work;
    u32 key_tiles, step_tiles, steps;
    float *ring, *weights;
    // This thread's first row of the tile, its lane among those that share the row, the first behaviour of its warp.
    u32 row, lane, first;

    // A step is the tiles of its keys, then that of its values. Queries are loaded with each tile of keys or, if one
    // tile holds their whole width, with the first only.
    __device__ __forceinline__ float *tile(u32 place) const {
        return ring + place * (HISTORY_TILE + (key_tiles > 1 ? (u32)QUERY_TILE : 0));
    }
    __device__ __forceinline__ float *queries(u32 place) const {
        return (key_tiles > 1 ? tile(place) : ring + HISTORY_TILE) + HISTORY_TILE;
    }

    __device__ __forceinline__ void load(u32 place, u32 step, u32 part) {
        bool keys = part < key_tiles;
        u32 row_width = keys ? p.width : p.value_width;
        u32 skip = keys ? part * CHUNK : p.first_column;
        u32 width = keys ? p.width - skip : p.columns;
        u32 done = step * BEHAVIOURS;
        const auto from = rows.row(work, keys, done, row_width, skip);
        rows.template load_rows<CHUNK, PITCH>(tile(place), from, (u64)p.kv_heads * row_width, BEHAVIOURS, work.piece.length - done, width);
        if (keys && (key_tiles > 1 || step == 0)) {
            // Rows of one candidate are adjacent, those of the next candidate H rows further: row by row.
            for (u32 row = threadIdx.x / WARP; row < ROWS; row += WARPS) {
                bool exists = row < work.piece.rows;
                const auto query = rows.query(work, exists ? row : 0, skip);
                float *to = queries(place) + row * PITCH;
                for (u32 column = threadIdx.x % WARP; column < CHUNK; column += WARP) {
                    to[column] = exists && column < width ? query[column] : 0.0f;
                }
            }
        }
        copy_commit();
    }

    // What this thread has copied has arrived.
    __device__ __forceinline__ void arrive(u32 place, u32 step, u32 part) {
        u32 skip = part < key_tiles ? part * CHUNK : p.first_column;
        u32 width = part < key_tiles ? p.width - skip : p.columns;
        rows.template arrive<CHUNK, PITCH, BEHAVIOURS>(tile(place), work, step * BEHAVIOURS, skip, width);
    }

    __device__ __forceinline__ void add_scores(float (&scores)[ROWS_EACH][EACH], u32 place, u32 part) {
        const float *q = queries(place) + row * PITCH;
        const float *k = tile(place) + (first + lane) * PITCH;
        u32 width = min(p.width - part * CHUNK, CHUNK);
#pragma unroll 1
        for (u32 column = 0; column < width; column += 4) {
            float4 key[EACH];
#pragma unroll
            for (u32 i = 0; i < EACH; i++) {
                key[i] = *(const float4 *)(k + i * ROW_LANES * PITCH + column);
            }
#pragma unroll
            for (u32 j = 0; j < ROWS_EACH; j++) {
                float4 query = *(const float4 *)(q + j * PITCH + column);
#pragma unroll
                for (u32 i = 0; i < EACH; i++) {
                    scores[j][i] = fma(query.x, key[i].x, scores[j][i]);
                    scores[j][i] = fma(query.y, key[i].y, scores[j][i]);
                    scores[j][i] = fma(query.z, key[i].z, scores[j][i]);
                    scores[j][i] = fma(query.w, key[i].w, scores[j][i]);
                }
            }
        }
    }

    // Turns scores into weights in shared memory; returns the factor that rescales the row's sums so far.
    __device__ __forceinline__ float weigh(float (&scores)[EACH], u32 step, u32 j, float &row_max, float &row_sum) {
        float *to = weights + (row % WARP_ROWS + j) * WEIGHT_PITCH + lane;
        u32 behaviour = step * BEHAVIOURS + first + lane;
        float most = -infinity();
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            bool exists = behaviour + i * ROW_LANES < work.piece.length;
            if (p.bias == nullptr) {
                scores[i] = score_of(p, scores[i]);
            } else if (exists) {
                u64 l = work.piece.history_start + behaviour + i * ROW_LANES;
                float bias = p.bias[l * (p.kv_heads * p.group_heads) + head_of(p, work, row + j)];
                scores[i] = score_of(p, scores[i], bias);
            }
            if (!exists) scores[i] = -infinity();
            most = fmaxf(most, scores[i]);
        }
        if (p.weighting != SOFTMAX) {
#pragma unroll
            for (u32 i = 0; i < EACH; i++) {
                to[i * ROW_LANES] = scores[i];
            }
#pragma unroll 1
            for (u32 i = 0; i < WARP_BEHAVIOURS; i += ROW_LANES) {
                bool exists = behaviour + i < work.piece.length;
                to[i] = exists ? plain_weight(p, work, to[i]) : 0.0f;
            }
            return 1.0f;
        }
        float new_max = fmaxf(row_max, warp_max<ROW_LANES>(most));
        float rescale = rescale_factor(row_max, new_max);
        float base = base_of(new_max);
        row_max = new_max;
        row_sum *= rescale;
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            float weight = exp2_approx(scores[i] - base);
            to[i * ROW_LANES] = weight;
            row_sum += weight;
        }
        return rescale;
    }

    __device__ __forceinline__ u32 column_of(u32 i) const { return (i / GROUP * ROW_LANES + lane) * GROUP + i % GROUP; }

    __device__ __forceinline__ void add_values(float (&acc)[ROWS_EACH][COLUMNS_EACH], const float *values) {
        const float *w = weights + row % WARP_ROWS * WEIGHT_PITCH;
        const float *v = values + first * PITCH;
#pragma unroll 1
        for (u32 behaviour = 0; behaviour < WARP_BEHAVIOURS; behaviour += 4) {
            float weight[ROWS_EACH][4];
#pragma unroll
            for (u32 j = 0; j < ROWS_EACH; j++) {
                *(float4 *)weight[j] = *(const float4 *)(w + j * WEIGHT_PITCH + behaviour);
            }
#pragma unroll
            for (u32 l = 0; l < 4; l++) {
                alignas(16) float value[COLUMNS_EACH];
#pragma unroll
                for (u32 i = 0; i < COLUMNS_EACH; i += GROUP) {
                    const float *from = v + (behaviour + l) * PITCH + column_of(i);
                    if constexpr (GROUP == 4) {
                        *(float4 *)(value + i) = *(const float4 *)from;
                    } else {
                        *(float2 *)(value + i) = *(const float2 *)from;
                    }
                }
#pragma unroll
                for (u32 j = 0; j < ROWS_EACH; j++) {
#pragma unroll
                    for (u32 i = 0; i < COLUMNS_EACH; i++) {
                        acc[j][i] = fma(weight[j][l], value[i], acc[j][i]);
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void run() {
        float acc[ROWS_EACH][COLUMNS_EACH] = {}, scores[ROWS_EACH][EACH] = {};
        float row_max[ROWS_EACH], row_sum[ROWS_EACH] = {};
#pragma unroll
        for (u32 j = 0; j < ROWS_EACH; j++) {
            row_max[j] = p.weighting == SOFTMAX ? -infinity() : 0.0f;
        }
        // The copy is one tile ahead of the computation.
        u32 place = 0, step = 0, part = 0;
        for (u32 next_step = 0, next_part = 0;; place ^= 1) {
            copy_wait<0>();
            if constexpr (Rows::CHANGES) {
                if (next_step + next_part > 0 && step < steps) arrive(place, step, part);
            }
            // The tile at `place` has arrived for all threads, and all have finished the other one, which the next copy
            // overwrites.
            __syncthreads();
            bool first_round = next_step == 0 && next_part == 0;
            if (next_step < steps) {
                load(place ^ 1, next_step, next_part);
                next_part++;
                if (next_part == step_tiles) next_part = 0, next_step++;
            }
            if (first_round && steps > 0) continue;
            if (step == steps) break;
            if (part < key_tiles) add_scores(scores, place, part);
            if (part + 1 == key_tiles) {
                // The warp has finished the previous weights.
                __syncwarp();
#pragma unroll
                for (u32 j = 0; j < ROWS_EACH; j++) {
                    float rescale = weigh(scores[j], step, j, row_max[j], row_sum[j]);
#pragma unroll
                    for (u32 i = 0; i < COLUMNS_EACH; i++) {
                        acc[j][i] *= rescale;
                    }
#pragma unroll
                    for (u32 i = 0; i < EACH; i++) {
                        scores[j][i] = 0.0f;
                    }
                }
                __syncwarp();
            }
            part++;
            if (part == step_tiles) {
                add_values(acc, tile(place));
                part = 0, step++;
            }
        }
        // The ring is reused once all threads have finished with it.
        __syncthreads();
        float *stats = ring + PARTS * ROWS * CHUNK;
        u32 warp_part = PARTS == 1 ? 0 : threadIdx.x / WARP;
#pragma unroll
        for (u32 j = 0; j < ROWS_EACH; j++) {
            float all = warp_sum<ROW_LANES>(row_sum[j]);
            u32 at = warp_part * ROWS + row + j;
#pragma unroll
            for (u32 i = 0; i < COLUMNS_EACH; i++) {
                ring[at * CHUNK + column_of(i)] = acc[j][i];
            }
            if (lane == 0) {
                stats[at * 2] = row_max[j];
                stats[at * 2 + 1] = all;
            }
        }
        bool large = __syncthreads_or(any_large<ROWS_EACH * COLUMNS_EACH>(acc));
        write_rows<Rows, PARTS, ROWS, CHUNK>(rows, work, ring, stats, large);
    }
};

template <u32 CHUNK, u32 ROWS, typename Rows>
__device__ __forceinline__ void split_history_fma(const Rows &rows) {
    typedef SplitKernel<Rows, CHUNK, ROWS> Kernel;
    const TargetAttentionParams &p = rows.p;
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Work work = this_block(p);
    u32 key_tiles = (p.width + CHUNK - 1) / CHUNK;
    float *ring = (float *)dynamic_shared;
    float *weights = ring + Kernel::weights_at(key_tiles <= 1);
    bool shared_rows = Kernel::PARTS > 1;
    Kernel kernel = {
        {},
        rows,
        p,
        work,
        key_tiles,
        key_tiles + (p.aliased ? 0 : 1),
        (work.piece.length + Kernel::BEHAVIOURS - 1) / Kernel::BEHAVIOURS,
        ring,
        weights + warp * WARP_ROWS * Kernel::WEIGHT_PITCH,
        (shared_rows ? 0 : warp * WARP_ROWS) + lane / ROW_LANES * ROWS_EACH,
        lane % ROW_LANES,
        shared_rows ? warp * Kernel::WARP_BEHAVIOURS : 0,
    };
    kernel.run();
}
