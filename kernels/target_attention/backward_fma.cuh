// Gradients on multiply-adds: backward_fma.cu. `Rows` reads and writes rows.
#pragma once
#include "target_attention/backward_rows.cuh"

// The rows of a thread's scores, and of its gradients of queries, are the last two.
template <typename Rows, u32 CHUNK, u32 STEP, u32 TILE_ROWS, u32 SCORE_ROWS, u32 QUERY_ROWS>
struct Backward : BackwardRows<Rows, CHUNK, STEP, TILE_ROWS> {
    typedef BackwardRows<Rows, CHUNK, STEP, TILE_ROWS> Base;
    using Base::access, Base::p, Base::span, Base::kv_head, Base::keys, Base::values, Base::queries, Base::grad_out, Base::weights, Base::grads;
    using Base::BEHAVIOURS, Base::ROWS, Base::PITCH, Base::WEIGHT_PITCH;
    using Base::heads, Base::head_of_row, Base::index_of_row, Base::load_history, Base::load_rows, Base::store, Base::store_history;
    using Base::states, Base::removed, Base::tile_first, Base::rows, Base::first, Base::count;
    // Scores: threads that share rows have adjacent behaviours.
    static constexpr u32 ROW_GROUPS = ROWS / SCORE_ROWS, SCORE_LANES = THREADS / ROW_GROUPS;
    static constexpr u32 SCORE_BEHAVIOURS = BEHAVIOURS / SCORE_LANES;
    // Gradients of keys and values: 4 behaviours by COLUMNS.
    static constexpr u32 COLUMN_LANES = THREADS / (BEHAVIOURS / 4), COLUMNS = CHUNK / COLUMN_LANES;
    // Gradients of queries.
    static constexpr u32 QUERY_LANES = THREADS / (ROWS / QUERY_ROWS), QUERY_COLUMNS = CHUNK / QUERY_LANES;
    static_assert(SCORE_BEHAVIOURS * SCORE_LANES == BEHAVIOURS && COLUMNS % 4 == 0 && QUERY_COLUMNS % 4 == 0, "whole threads");

    __device__ static constexpr u32 shared_bytes(bool aliased) {
        u32 history = (aliased ? 1 : 2) * BEHAVIOURS * PITCH, rows = 2 * ROWS * PITCH;
        return (history + rows + 2 * BEHAVIOURS * WEIGHT_PITCH + 4 * ROWS) * 4 + BEHAVIOURS * ROW_GROUPS;
    }

    // ---- Scores ----------------------------------------------------------------------------------------------------

    // The products of this thread's behaviours and rows, each one chain over the columns.
    __device__ __forceinline__ void multiply(float (&out)[SCORE_BEHAVIOURS][SCORE_ROWS], const float *history, const float *tile,
                                             u32 width) const {
        const float *h = history + threadIdx.x % SCORE_LANES * PITCH, *t = tile + threadIdx.x / SCORE_LANES * SCORE_ROWS * PITCH;
#pragma unroll 1
        for (u32 column = 0; column < width; column += 4) {
            float4 a[SCORE_BEHAVIOURS], b[SCORE_ROWS];
#pragma unroll
            for (u32 i = 0; i < SCORE_BEHAVIOURS; i++) {
                a[i] = *(const float4 *)(h + i * SCORE_LANES * PITCH + column);
            }
#pragma unroll
            for (u32 j = 0; j < SCORE_ROWS; j++) {
                b[j] = *(const float4 *)(t + j * PITCH + column);
            }
#pragma unroll
            for (u32 i = 0; i < SCORE_BEHAVIOURS; i++) {
#pragma unroll
                for (u32 j = 0; j < SCORE_ROWS; j++) {
                    out[i][j] = fma(a[i].x, b[j].x, out[i][j]);
                    out[i][j] = fma(a[i].y, b[j].y, out[i][j]);
                    out[i][j] = fma(a[i].z, b[j].z, out[i][j]);
                    out[i][j] = fma(a[i].w, b[j].w, out[i][j]);
                }
            }
        }
    }

    __device__ __forceinline__ void load_bias(float (&out)[SCORE_BEHAVIOURS][SCORE_ROWS], u32 behaviour, u32 row) const {
#pragma unroll
        for (u32 j = 0; j < SCORE_ROWS; j++) {
            const float *bias = p.bias + (span.history_start + first) * heads() + head_of_row(tile_first + row + j);
#pragma unroll
            for (u32 i = 0; i < SCORE_BEHAVIOURS; i++) {
                u32 l = behaviour + i * SCORE_LANES;
                if (l < count && row + j < rows) out[i][j] = bias[(u64)l * heads()];
            }
        }
    }

    // Writes weights and gradients of scores, times `factor`; returns whether this thread has a removed behaviour.
    __device__ __forceinline__ bool score(bool needs_grads, float factor) const {
        float scores[SCORE_BEHAVIOURS][SCORE_ROWS] = {}, products[SCORE_BEHAVIOURS][SCORE_ROWS] = {};
        multiply(scores, keys, queries, p.width);
        if (needs_grads) multiply(products, values, grad_out, p.value_width);
        const u32 behaviour = threadIdx.x % SCORE_LANES, group = threadIdx.x / SCORE_LANES, row = group * SCORE_ROWS;
        float bias[SCORE_BEHAVIOURS][SCORE_ROWS] = {};
        if (p.bias != nullptr) load_bias(bias, behaviour, row);
        RowState state[SCORE_ROWS];
#pragma unroll
        for (u32 j = 0; j < SCORE_ROWS; j++) {
            *(float4 *)&state[j] = *(const float4 *)(states + row + j);
        }
        bool any = false;
#pragma unroll
        for (u32 i = 0; i < SCORE_BEHAVIOURS; i++) {
            const u32 l = behaviour + i * SCORE_LANES;
            u32 bits = 0;
            float weight[SCORE_ROWS], grad[SCORE_ROWS];
#pragma unroll
            for (u32 j = 0; j < SCORE_ROWS; j++) {
                // Without a bias, the same as scale·dot.
                float s = fma(scores[i][j], p.scale, bias[i][j]);
                // With identity, -inf removes nothing.
                bool is_removed = l >= count || row + j >= rows || (s == -infinity() && p.weighting != IDENTITY);
                if (is_removed) bits |= 1u << j;
                weight[j] = s;
                grad[j] = products[i][j];
                if (p.weighting == SOFTMAX) {
                    float one = exp_approx(s - state[j].shift) * state[j].factor;
                    weight[j] = is_removed ? 0.0f : one;
                    grad[j] = is_removed ? 0.0f : one * (products[i][j] - state[j].subtracted) * factor;
                }
            }
            put(weights + l * WEIGHT_PITCH + row, weight);
            put(grads + l * WEIGHT_PITCH + row, grad);
            removed[l * ROW_GROUPS + group] = (u8)bits;
            any |= bits != 0;
        }
        if (p.weighting != SOFTMAX) weigh_again(factor);
        return any;
    }

    static __device__ __forceinline__ void put(float *to, const float (&from)[SCORE_ROWS]) {
        if constexpr (SCORE_ROWS == 4) *(float4 *)to = make_float4(from[0], from[1], from[2], from[3]);
        if constexpr (SCORE_ROWS == 2) *(float2 *)to = make_float2(from[0], from[1]);
        if constexpr (SCORE_ROWS == 1) *to = from[0];
    }

    // Of weightings other than softmax: this thread's scores and products become weights and gradients of scores.
    __device__ __forceinline__ void weigh_again(float factor) const {
        const u32 behaviour = threadIdx.x % SCORE_LANES, group = threadIdx.x / SCORE_LANES, row = group * SCORE_ROWS;
#pragma unroll 1
        for (u32 l = behaviour; l < BEHAVIOURS; l += SCORE_LANES) {
#pragma unroll 1
            for (u32 j = 0; j < SCORE_ROWS; j++) {
                u32 at = l * WEIGHT_PITCH + row + j;
                bool is_removed = (removed[l * ROW_GROUPS + group] >> j & 1) != 0;
                float2 both = weight_and_slope(p, span, weights[at]);
                weights[at] = is_removed ? 0.0f : both.x;
                grads[at] = is_removed ? 0.0f : both.y * grads[at] * factor;
            }
        }
    }

    // ---- The gradient of the bias ----------------------------------------------------------------------------------

    // The first row of the tile of a head of the group.
    __device__ __forceinline__ u32 first_row_of(u32 head) const {
        return p.group_heads == 1 ? 0 : (head + p.group_heads - tile_first % p.group_heads) % p.group_heads;
    }
    // A thread for each behaviour and head of the group: always the same, so that the sums need no barrier.
    __device__ __forceinline__ void clear_bias() const {
#pragma unroll 1
        for (u32 item = threadIdx.x; item < count * p.group_heads; item += THREADS) {
            u64 l = span.history_start + first + item / p.group_heads;
            p.grad_bias[l * heads() + kv_head * p.group_heads + item % p.group_heads] = 0.0f;
        }
    }
    // Adds the unscaled gradients of the scores, and scales them.
    __device__ __forceinline__ void add_bias() const {
#pragma unroll 1
        for (u32 item = threadIdx.x; item < count * p.group_heads; item += THREADS) {
            u32 behaviour = item / p.group_heads, head = item % p.group_heads;
            u64 l = span.history_start + first + behaviour;
            float sum = 0.0f;
#pragma unroll 1
            for (u32 row = first_row_of(head); row < rows; row += p.group_heads) {
                sum += grads[behaviour * WEIGHT_PITCH + row];
            }
            p.grad_bias[l * heads() + kv_head * p.group_heads + head] += sum;
        }
        __syncthreads();
#pragma unroll 1
        for (u32 item = threadIdx.x; item < BEHAVIOURS * ROWS; item += THREADS) {
            grads[item / ROWS * WEIGHT_PITCH + item % ROWS] *= p.scale;
        }
        __syncthreads();
    }

    // ---- Gradients of keys and values ------------------------------------------------------------------------------

    __device__ __forceinline__ u32 column_of(u32 vector) const { return (threadIdx.x % COLUMN_LANES + vector * COLUMN_LANES) * 4; }
    __device__ __forceinline__ bool is_removed(u32 behaviour, u32 row) const {
        return (removed[behaviour * ROW_GROUPS + row / SCORE_ROWS] >> row % SCORE_ROWS & 1) != 0;
    }

    // acc += the rows of the tile, weighed. Those of a tile are added up first, so that no chain of additions is as long as the list
    // of candidates.
    __device__ __forceinline__ void add_rows(float (&acc)[4][COLUMNS], const float *weighed, const float *tile, bool careful) const {
        const u32 behaviour = threadIdx.x / COLUMN_LANES * 4;
        const float *w = weighed + behaviour * WEIGHT_PITCH;
        // Small tiles hold all rows.
        if constexpr (ROWS <= 8) return add_rows_of_tile(acc, w, tile, behaviour, careful);
        float sums[4][COLUMNS] = {};
        add_rows_of_tile(sums, w, tile, behaviour, careful);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) {
                acc[i][c] += sums[i][c];
            }
        }
    }
    __device__ __forceinline__ void add_rows_of_tile(float (&acc)[4][COLUMNS], const float *w, const float *tile, u32 behaviour,
                                                     bool careful) const {
        if (careful) return add_rows_carefully(acc, w, tile, behaviour);
#pragma unroll 1
        for (u32 row = 0; row < rows; row += 4) {
            float weight[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                *(float4 *)weight[i] = *(const float4 *)(w + i * WEIGHT_PITCH + row);
            }
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                float x[COLUMNS];
                load_columns(x, tile + (row + j) * PITCH);
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 c = 0; c < COLUMNS; c++) {
                        acc[i][c] = fma(weight[i][j], x[c], acc[i][c]);
                    }
                }
            }
        }
    }
    __device__ __forceinline__ void add_rows_carefully(float (&acc)[4][COLUMNS], const float *w, const float *tile, u32 behaviour) const {
#pragma unroll 1
        for (u32 row = 0; row < rows; row++) {
            float x[COLUMNS];
            load_columns(x, tile + row * PITCH);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                bool skipped = is_removed(behaviour + i, row);
                float weight = w[i * WEIGHT_PITCH + row];
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    acc[i][c] = skipped ? acc[i][c] : fma(weight, x[c], acc[i][c]);
                }
            }
        }
    }
    __device__ __forceinline__ void load_columns(float (&x)[COLUMNS], const float *row) const {
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c += 4) {
            float4 four = *(const float4 *)(row + column_of(c / 4));
            x[c] = four.x, x[c + 1] = four.y, x[c + 2] = four.z, x[c + 3] = four.w;
        }
    }

    // Leaves the sums in shared memory, in the place of rows that are no longer needed.
    __device__ __forceinline__ void stage_rows(const float (&acc)[4][COLUMNS], float *to) const {
        const u32 behaviour = threadIdx.x / COLUMN_LANES * 4;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c += 4) {
                float4 four = make_float4(acc[i][c], acc[i][c + 1], acc[i][c + 2], acc[i][c + 3]);
                *(float4 *)(to + (behaviour + i) * PITCH + column_of(c / 4)) = four;
            }
        }
    }

    // ---- Gradients of queries --------------------------------------------------------------------------------------

    __device__ __forceinline__ u32 query_row() const { return threadIdx.x / QUERY_LANES * QUERY_ROWS; }
    __device__ __forceinline__ u32 query_column(u32 vector) const { return (threadIdx.x % QUERY_LANES + vector * QUERY_LANES) * 4; }

    __device__ __forceinline__ void add_keys(float (&acc)[QUERY_ROWS][QUERY_COLUMNS], bool careful) const {
        const float *g = grads + query_row();
        const u32 unrolled = careful ? 1 : 4;
#pragma unroll 1
        for (u32 l = 0; l < count; l += unrolled) {
            if (!careful) {
                // Behaviours beyond the last have zeros.
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    add_key(acc, g, l + i);
                }
                continue;
            }
#pragma unroll
            for (u32 j = 0; j < QUERY_ROWS; j++) {
                if (is_removed(l, query_row() + j)) continue;
                float grad = g[l * WEIGHT_PITCH + j];
#pragma unroll
                for (u32 c = 0; c < QUERY_COLUMNS; c++) {
                    float key = keys[l * PITCH + query_column(c / 4) + c % 4];
                    acc[j][c] = fma(grad, key, acc[j][c]);
                }
            }
        }
    }
    __device__ __forceinline__ void add_key(float (&acc)[QUERY_ROWS][QUERY_COLUMNS], const float *g, u32 l) const {
        float grad[QUERY_ROWS];
        if constexpr (QUERY_ROWS == 4) *(float4 *)grad = *(const float4 *)(g + l * WEIGHT_PITCH);
        if constexpr (QUERY_ROWS == 2) *(float2 *)grad = *(const float2 *)(g + l * WEIGHT_PITCH);
        if constexpr (QUERY_ROWS == 1) *grad = g[l * WEIGHT_PITCH];
#pragma unroll
        for (u32 c = 0; c < QUERY_COLUMNS; c += 4) {
            float4 key = *(const float4 *)(keys + l * PITCH + query_column(c / 4));
#pragma unroll
            for (u32 j = 0; j < QUERY_ROWS; j++) {
                acc[j][c] = fma(grad[j], key.x, acc[j][c]);
                acc[j][c + 1] = fma(grad[j], key.y, acc[j][c + 1]);
                acc[j][c + 2] = fma(grad[j], key.z, acc[j][c + 2]);
                acc[j][c + 3] = fma(grad[j], key.w, acc[j][c + 3]);
            }
        }
    }

    // Adds the sums to the span's partial result, or writes them there, and clears them.
    __device__ __forceinline__ void put_queries(float (&acc)[QUERY_ROWS][QUERY_COLUMNS], bool add) const {
        const u32 pitch = (p.width + 3) / 4 * 4;
#pragma unroll
        for (u32 j = 0; j < QUERY_ROWS; j++) {
            const u32 row = query_row() + j;
            const u64 slot = index_of_row(tile_first + row) + (span.first_partial - span.first_target) * heads();
#pragma unroll
            for (u32 c = 0; c < QUERY_COLUMNS; c += 4) {
                const u32 column = query_column(c / 4);
                float *sums = acc[j] + c;
                if (row < rows && column < p.width) {
                    float4 *to = (float4 *)(p.partial + slot * pitch + column);
                    float4 old = add ? *to : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    *to = make_float4(old.x + sums[0], old.y + sums[1], old.z + sums[2], old.w + sums[3]);
                }
                sums[0] = sums[1] = sums[2] = sums[3] = 0.0f;
            }
        }
    }

    // Writes the sums of the only tile to the output, by way of the tile's place in shared memory.
    __device__ __forceinline__ void write_queries(const float (&acc)[QUERY_ROWS][QUERY_COLUMNS]) const {
        __syncthreads();
#pragma unroll
        for (u32 j = 0; j < QUERY_ROWS; j++) {
#pragma unroll
            for (u32 c = 0; c < QUERY_COLUMNS; c += 4) {
                float4 four = make_float4(acc[j][c], acc[j][c + 1], acc[j][c + 2], acc[j][c + 3]);
                *(float4 *)(queries + (query_row() + j) * PITCH + query_column(c / 4)) = four;
            }
        }
        __syncthreads();
        Matrix matrix = {p.grad_queries, queries, p.width, (p.aligned & GRAD_QUERIES) != 0};
        store(access.grad_row_storage(p), matrix, rows, [&](u32 row) { return index_of_row(tile_first + row); });
    }

    // ---- The block -------------------------------------------------------------------------------------------------

    __device__ __forceinline__ void run() {
        const u32 all_rows = span.targets * p.group_heads;
        const bool single = all_rows <= ROWS, aliased = p.aliased != 0;
        const bool needs_grads = p.grad_queries != nullptr || p.grad_keys != nullptr || p.grad_bias != nullptr;
        const bool needs_weights = p.grad_values != nullptr || (aliased && p.grad_keys != nullptr);
        // Gradients of scores become a bias' unscaled.
        const float factor = p.grad_bias == nullptr ? p.scale : 1.0f;
        float dq[QUERY_ROWS][QUERY_COLUMNS] = {};
        bool rows_poisoned = false;
        // Without behaviours there is one step, in which nothing is added.
        first = 0;
        do {
            count = min(BEHAVIOURS, span.length - first);
            float dk[4][COLUMNS] = {}, dv[4][COLUMNS] = {};
            bool keys_poisoned = all_rows > 0 && load_history(needs_grads && !aliased);
            if (p.grad_bias != nullptr) clear_bias();
#pragma unroll 1
            for (tile_first = 0; tile_first < all_rows; tile_first += ROWS) {
                rows = min(ROWS, all_rows - tile_first);
                if (!single || first == 0) rows_poisoned = load_rows();
                bool poisoned = __syncthreads_or(keys_poisoned || rows_poisoned);
                bool any_removed = __syncthreads_or(score(needs_grads, factor));
                bool careful = poisoned && any_removed;
                if (p.grad_bias != nullptr) add_bias();
                if (needs_weights) add_rows(dv, weights, grad_out, careful);
                if (p.grad_keys != nullptr) add_rows(dk, grads, queries, careful);
                if (p.grad_queries != nullptr) {
                    add_keys(dq, careful);
                    const bool last = first + BEHAVIOURS >= span.length;
                    if (span.first_partial == ~0ull) {
                        if (last) write_queries(dq);
                    } else if (!single || last) {
                        put_queries(dq, first > 0 && !single);
                    }
                }
                // The tile is overwritten once all threads have finished with it.
                __syncthreads();
            }
            if (aliased) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 c = 0; c < COLUMNS; c++) {
                        dk[i][c] += dv[i][c];
                    }
                }
            }
            stage_rows(dk, keys);
            if (!aliased) stage_rows(dv, values);
            __syncthreads();
            store_history();
            __syncthreads();
            first += BEHAVIOURS;
        } while (first < span.length);
    }
};

template <typename Kernel, typename Rows>
__device__ __forceinline__ void backward_fma(const AttentionBackwardParams &p, const Rows &access) {
    float *keys = (float *)dynamic_shared;
    float *values = p.aliased ? keys : keys + Kernel::BEHAVIOURS * Kernel::PITCH;
    float *queries = values + Kernel::BEHAVIOURS * Kernel::PITCH;
    float *grad_out = queries + Kernel::ROWS * Kernel::PITCH;
    float *weights = grad_out + Kernel::ROWS * Kernel::PITCH;
    float *grads = weights + Kernel::BEHAVIOURS * Kernel::WEIGHT_PITCH;
    float *states = grads + Kernel::BEHAVIOURS * Kernel::WEIGHT_PITCH;
    Kernel kernel = {{access, p, p.spans[blockIdx.x / p.kv_heads], blockIdx.x % p.kv_heads, keys, values, queries, grad_out, weights, grads,
                      (RowState *)states, (u8 *)(states + 4 * Kernel::ROWS), 0, 0, 0, 0}};
    kernel.run();
}
