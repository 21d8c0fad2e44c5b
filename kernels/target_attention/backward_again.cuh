// Gradients of a span, straight from global memory and with multiply-adds: for backward_mma.cu, where a sum is not finite. There a
// removed behaviour's weight of 0 may have met NaN or infinity, and an infinite weight cannot be split.
#pragma once
#include "target_attention/backward_rows.cuh"

// Numbers that are added in a row before their sum is added to the rest.
constexpr u32 ADDED_IN_A_ROW = 64;

struct BackwardAgain {
    // Columns of a lane: every 32nd.
    static constexpr u32 COLUMNS = 4;

    const AttentionBackwardParams &p;
    const AttentionSpan span;
    const u32 kv_head;

    __device__ __forceinline__ u32 heads() const { return p.kv_heads * p.group_heads; }
    __device__ __forceinline__ u32 head_of(u32 row) const { return kv_head * p.group_heads + row % p.group_heads; }
    __device__ __forceinline__ u64 index_of_row(u32 row) const {
        return (span.first_target + row / p.group_heads) * heads() + head_of(row);
    }
    __device__ __forceinline__ u64 behaviour_row(u32 behaviour) const {
        return (span.history_start + behaviour) * p.kv_heads + kv_head;
    }

    // acc += factor·row
    __device__ __forceinline__ void add(float (&acc)[COLUMNS], float factor, const void *rows, u64 row, u32 width) const {
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            u32 column = threadIdx.x % WARP + i * WARP;
            if (column < width) acc[i] = fma(factor, load_stored(p.storage, rows, row * width + column), acc[i]);
        }
    }
    __device__ __forceinline__ float dot(const void *a, u64 row_a, const void *b, u64 row_b, u32 width) const {
        float sum = 0.0f;
#pragma unroll 1
        for (u32 column = threadIdx.x % WARP; column < width; column += WARP) {
            sum = fma(load_stored(p.storage, a, row_a * width + column), load_stored(p.storage, b, row_b * width + column), sum);
        }
        return warp_sum(sum);
    }

    // Weight and gradient of a score, in all lanes; false: the behaviour is removed.
    __device__ __forceinline__ bool weigh(u32 row, u32 behaviour, float &weight, float &grad) const {
        const u64 query = index_of_row(row), key = behaviour_row(behaviour);
        float score = dot(p.queries, query, p.keys, key, p.width) * p.scale;
        float product = dot(p.grad_out, query, p.values, key, p.value_width);
        if (p.bias != nullptr) score += p.bias[(span.history_start + behaviour) * heads() + head_of(row)];
        if (p.weighting == SOFTMAX) {
            RowState state;
            *(float4 *)&state = *(const float4 *)(p.states + query);
            float above = score - state.shift;
            weight = exp_approx(above > state.most ? state.most : above) * state.factor;
            grad = weight * (product - state.subtracted);
        } else {
            float2 both = weight_and_slope(p, span, score);
            weight = both.x;
            grad = both.y * product;
        }
        // With identity, -inf removes nothing.
        return score != -infinity() || p.weighting == IDENTITY;
    }

    __device__ __forceinline__ void store(void *to, u64 row, u32 width, const float (&numbers)[COLUMNS]) const {
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            u32 column = threadIdx.x % WARP + i * WARP;
            if (to != nullptr && column < width) store_stored(p.grad_storage, to, row * width + column, numbers[i]);
        }
    }

    // The gradients of a behaviour, by one warp.
    __device__ __forceinline__ void write_behaviour(u32 behaviour, u32 rows) const {
        float dk[COLUMNS] = {}, dv[COLUMNS] = {}, some_dk[COLUMNS] = {}, some_dv[COLUMNS] = {};
        float *bias = p.grad_bias + (span.history_start + behaviour) * heads();
        const bool first_lane = threadIdx.x % WARP == 0 && p.grad_bias != nullptr;
#pragma unroll 1
        for (u32 row = 0; row < rows; row++) {
            float weight, grad;
            bool counts = weigh(row, behaviour, weight, grad);
            if (first_lane) bias[head_of(row)] = (row < p.group_heads ? 0.0f : bias[head_of(row)]) + (counts ? grad : 0.0f);
            if (counts) {
                add(some_dv, weight, p.grad_out, index_of_row(row), p.value_width);
                add(some_dk, grad * p.scale, p.queries, index_of_row(row), p.width);
            }
            if ((row + 1) % ADDED_IN_A_ROW != 0 && row + 1 < rows) continue;
#pragma unroll
            for (u32 i = 0; i < COLUMNS; i++) {
                dk[i] += some_dk[i];
                dv[i] += some_dv[i];
                some_dk[i] = some_dv[i] = 0.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            if (p.aliased) dk[i] += dv[i];
        }
        store(p.grad_keys, behaviour_row(behaviour), p.width, dk);
        store(p.grad_values, behaviour_row(behaviour), p.value_width, dv);
    }

    // What the span adds to the gradient of a query row, by one warp.
    __device__ __forceinline__ void write_query(u32 row) const {
        float sum[COLUMNS] = {}, some[COLUMNS] = {};
#pragma unroll 1
        for (u32 l = 0; l < span.length; l++) {
            float weight, grad;
            if (weigh(row, l, weight, grad)) add(some, grad * p.scale, p.keys, behaviour_row(l), p.width);
            if ((l + 1) % ADDED_IN_A_ROW != 0 && l + 1 < span.length) continue;
#pragma unroll
            for (u32 i = 0; i < COLUMNS; i++) {
                sum[i] += some[i];
                some[i] = 0.0f;
            }
        }
        if (span.first_partial == ~0ull) return store(p.grad_queries, index_of_row(row), p.width, sum);
        const u32 pitch = (p.width + 3) / 4 * 4;
        float *to = p.partial + (index_of_row(row) + (span.first_partial - span.first_target) * heads()) * pitch;
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            u32 column = threadIdx.x % WARP + i * WARP;
            if (column < p.width) to[column] = sum[i];
        }
    }

    __device__ __forceinline__ void run() const {
        const u32 warp = threadIdx.x / WARP, rows = span.targets * p.group_heads;
#pragma unroll 1
        for (u32 l = warp; l < span.length; l += WARPS) {
            write_behaviour(l, rows);
        }
#pragma unroll 1
        for (u32 row = warp; p.grad_queries != nullptr && row < rows; row += WARPS) {
            write_query(row);
        }
    }
};
