// Parameters and weights of the kernels that compute gradients; and what a block of backward_fma.cu holds in shared memory, how rows
// come there and go to the gradients.
#pragma once
#include "target_attention/backward.cuh"

struct AttentionBackwardParams {
    const AttentionSpan *spans;
    // [M, H, d], [N, H_kv, d], [N, H_kv, d_v]; values may be the keys. [N, H]; may be null.
    const void *queries;
    const void *keys;
    const void *values;
    const float *bias;
    // [M, H, d_v].
    const void *grad_out;
    // [M, H]; null without softmax.
    const RowState *states;
    // What is asked for; null otherwise. In the shapes of the inputs.
    void *grad_queries;
    void *grad_keys;
    void *grad_values;
    float *grad_bias;
    // [rows, H, d filled up to whole vec4s]: what spans add to the gradients of the queries.
    float *partial;
    u32 kv_heads, group_heads, width, value_width;
    u32 weighting, storage, grad_storage;
    // Whether the keys are the values; then grad_keys is the sum of both gradients.
    u32 aliased;
    // Whether rows are aligned to four numbers, a bit for each of Aligned.
    u32 aligned;
    float scale, divisor;
    // Whether SiLU's weights are divided by the length of each user's history, and not by `divisor`.
    u32 by_length;
};

enum Aligned : u32 {
    QUERIES = 1,
    KEYS = 2,
    VALUES = 4,
    GRAD_OUT = 8,
    GRAD_QUERIES = 16,
    GRAD_KEYS = 32,
    GRAD_VALUES = 64
};

// A weight and its derivative by the score, of the weightings in which a score changes its own weight alone.
__device__ __forceinline__ float2 weight_and_slope(const AttentionBackwardParams &p, const AttentionSpan &span, float score) {
    if (p.weighting == IDENTITY) return make_float2(score, 1.0f);
    // Of NaN both are NaN.
    if (p.weighting == RELU) return make_float2(relu(score), score > 0.0f ? 1.0f : score * 0.0f);
    float above = 1.0f / (1.0f + exp_approx(-score)), below = 1.0f / (1.0f + exp_approx(score));
    const float divisor = p.by_length ? (float)span.history_length : p.divisor;
    return make_float2(score * above / divisor, above * fma(score, below, 1.0f) / divisor);
}

// Rows of a matrix, as they go to shared memory.
struct Matrix {
    const void *rows;
    float *to;
    u32 width;
    bool vectors;
};

// How a block reads and writes rows: of target attention as they are stored, all alike. TIN's are sums (tin/backward.cuh).
struct RowsAlike {
    // What is added to numbers of a behaviour, from a column on.
    struct Nothing {
        template <typename T, typename Index>
        __device__ __forceinline__ void one(float &, const Index &, u32, u32) const {}
        template <typename T, typename Index>
        __device__ __forceinline__ void four(float4 &, const Index &, u32, u32) const {}
    };

    __device__ __forceinline__ Nothing added() const { return {}; }
    // Of queries and of grad_out; of the gradients of queries.
    __device__ __forceinline__ u32 row_storage(const AttentionBackwardParams &p) const { return p.storage; }
    __device__ __forceinline__ u32 grad_row_storage(const AttentionBackwardParams &p) const { return p.grad_storage; }
    // Where else the gradients of behaviours go, in f32.
    __device__ __forceinline__ float *sums() const { return nullptr; }
};

// A block's rows: STEP behaviours and TILE_ROWS query rows at a time, of up to CHUNK columns, padded by 4 numbers.
template <typename Rows, u32 CHUNK, u32 STEP, u32 TILE_ROWS>
struct BackwardRows {
    static constexpr u32 BEHAVIOURS = STEP, ROWS = TILE_ROWS;
    static constexpr u32 PITCH = CHUNK + 4, WEIGHT_PITCH = ROWS + 4;

    const Rows access;
    const AttentionBackwardParams &p;
    const AttentionSpan span;
    const u32 kv_head;
    float *keys, *values, *queries, *grad_out, *weights, *grads;
    RowState *states;
    // Of each behaviour and SCORE_ROWS rows: a bit per row whose score is removed, or does not exist.
    u8 *removed;
    // Of the current tile and step.
    u32 tile_first, rows, first, count;

    __device__ __forceinline__ u32 heads() const { return p.kv_heads * p.group_heads; }
    // A row of the user's, candidate by candidate: its head, and its index in [M, H].
    __device__ __forceinline__ u32 head_of_row(u32 row) const {
        return kv_head * p.group_heads + (p.group_heads == 1 ? 0 : row % p.group_heads);
    }
    __device__ __forceinline__ u64 index_of_row(u32 row) const {
        u32 target = p.group_heads == 1 ? row : row / p.group_heads;
        return (span.first_target + target) * heads() + head_of_row(row);
    }
    __device__ __forceinline__ u64 behaviour_row(u32 behaviour) const {
        return (span.history_start + first + behaviour) * p.kv_heads + kv_head;
    }

    // Copies `existing` rows of a matrix, and zeros for the rest of COUNT; returns whether this thread saw a number that is not
    // finite. `index(row)` is the row in the matrix.
    template <typename T, u32 COUNT, typename Index, typename Added>
    __device__ __forceinline__ bool load_as_stored(const Matrix &matrix, u32 existing, Index index, Added added) const {
        constexpr u32 VECTORS = CHUNK / 4, ITEMS = COUNT * VECTORS, AHEAD = ITEMS / THREADS < 4 ? ITEMS / THREADS : 4;
        float zero = 0.0f;
        if (!matrix.vectors) {
#pragma unroll 1
            for (u32 item = threadIdx.x; item < COUNT * CHUNK; item += THREADS) {
                u32 row = item / CHUNK, column = item % CHUNK;
                float one = 0.0f;
                if (row < existing && column < matrix.width) {
                    one = load_as<T>(matrix.rows, index(row) * matrix.width + column);
                    added.template one<T>(one, index, row, column);
                }
                matrix.to[row * PITCH + column] = one;
                zero = fma(one, 0.0f, zero);
            }
            return zero != 0.0f;
        }
#pragma unroll 1
        for (u32 round = threadIdx.x; round < ITEMS; round += AHEAD * THREADS) {
            float4 four[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                u32 item = round + i * THREADS, row = item / VECTORS, column = item % VECTORS * 4;
                four[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (row < existing && column < matrix.width) {
                    four[i] = load_four<T>(matrix.rows, index(row) * matrix.width + column);
                    added.template four<T>(four[i], index, row, column);
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                u32 item = round + i * THREADS, row = item / VECTORS, column = item % VECTORS * 4;
                *(float4 *)(matrix.to + row * PITCH + column) = four[i];
                zero = fma(four[i].x, 0.0f, fma(four[i].y, 0.0f, fma(four[i].z, 0.0f, fma(four[i].w, 0.0f, zero))));
            }
        }
        return zero != 0.0f;
    }
    template <u32 COUNT, typename Index, typename Added>
    __device__ __forceinline__ bool load(u32 storage, const Matrix &matrix, u32 existing, Index index, Added added) const {
        if (storage == STORED_F32) return load_as_stored<f32, COUNT>(matrix, existing, index, added);
        if (storage == STORED_F16) return load_as_stored<f16, COUNT>(matrix, existing, index, added);
        return load_as_stored<bf16, COUNT>(matrix, existing, index, added);
    }

    // Both matrices of the behaviours, and of the query rows, through one copy of the code.
    __device__ __forceinline__ bool load_history(bool with_values) const {
        bool poisoned = false;
#pragma unroll 1
        for (u32 i = 0; i < (with_values ? 2 : 1); i++) {
            Matrix matrix = i == 0 ? Matrix{p.keys, keys, p.width, (p.aligned & KEYS) != 0}
                                   : Matrix{p.values, values, p.value_width, (p.aligned & VALUES) != 0};
            auto index = [&](u32 row) { return behaviour_row(row); };
            bool found = load<BEHAVIOURS>(p.storage, matrix, count, index, access.added());
            // Values are not multiplied by weights.
            poisoned |= found && i == 0;
        }
        return poisoned;
    }
    __device__ __forceinline__ bool load_rows() const {
        bool poisoned = false;
#pragma unroll 1
        for (u32 i = 0; i < 2; i++) {
            Matrix matrix = i == 0 ? Matrix{p.queries, queries, p.width, (p.aligned & QUERIES) != 0}
                                   : Matrix{p.grad_out, grad_out, p.value_width, (p.aligned & GRAD_OUT) != 0};
            auto index = [&](u32 row) { return index_of_row(tile_first + row); };
            poisoned |= load<ROWS>(access.row_storage(p), matrix, rows, index, RowsAlike::Nothing{});
        }
        if (threadIdx.x < ROWS) {
            bool exists = threadIdx.x < rows && p.states != nullptr;
            RowState state = {};
            if (exists) *(float4 *)&state = *(const float4 *)(p.states + index_of_row(tile_first + threadIdx.x));
            *(float4 *)(states + threadIdx.x) = *(float4 *)&state;
        }
        return poisoned;
    }

    // Writes rows from shared memory to a gradient.
    template <typename T, typename Index>
    __device__ __forceinline__ void store_as(const Matrix &matrix, u32 existing, Index index) const {
        const u32 each = matrix.vectors ? 4 : 1, items = existing * (CHUNK / each);
#pragma unroll 1
        for (u32 item = threadIdx.x; item < items; item += THREADS) {
            u32 row = item * each / CHUNK, column = item * each % CHUNK;
            if (column >= matrix.width) continue;
            const float *from = matrix.to + row * PITCH + column;
            u64 at = index(row) * matrix.width + column;
            if (matrix.vectors) {
                store_four<T>((void *)matrix.rows, at, from);
            } else {
                ((T *)matrix.rows)[at] = narrow<T>(*from);
            }
        }
    }
    template <typename Index>
    __device__ __forceinline__ void store(u32 storage, const Matrix &matrix, u32 existing, Index index) const {
        if (storage == STORED_F32) return store_as<f32>(matrix, existing, index);
        if (storage == STORED_F16) return store_as<f16>(matrix, existing, index);
        store_as<bf16>(matrix, existing, index);
    }
    // Both gradients of the behaviours, through one copy of the code.
    __device__ __forceinline__ void store_history() const {
#pragma unroll 1
        for (u32 i = 0; i < 2; i++) {
            Matrix matrix = i == 0 ? Matrix{p.grad_keys, keys, p.width, (p.aligned & GRAD_KEYS) != 0}
                                   : Matrix{p.grad_values, values, p.value_width, (p.aligned & GRAD_VALUES) != 0};
            if (matrix.rows != nullptr) store(p.grad_storage, matrix, count, [&](u32 row) { return behaviour_row(row); });
        }
        if (access.sums() == nullptr) return;
        Matrix matrix = {access.sums(), keys, p.width, p.width % 4 == 0};
        store_as<f32>(matrix, count, [&](u32 row) { return behaviour_row(row); });
    }
};
