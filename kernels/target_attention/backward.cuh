// What the kernels of the gradients share: spans of histories, rows of any storage type, the states of query rows.
#pragma once
#include "target_attention/attend.cuh"

// How rows are stored. Only loads and stores differ, so one kernel serves all types.
enum Storage : u32 {
    STORED_F32 = 0,
    STORED_F16 = 1,
    STORED_BF16 = 2
};

// A span of one user's behaviours, against all of the user's candidates.
struct AttentionSpan {
    u64 history_start, first_target;
    // The first row of its partial results, counted in candidates; all ones: the span is the user's only one, and its block writes
    // the gradients of the queries itself.
    u64 first_partial;
    u32 length, targets;
};
static_assert(sizeof(AttentionSpan) == 32, "twin in src/cuda/target_attention/backward/spans.rs");

// What a query row subtracts and multiplies by: its weights are exp(score - shift)·factor, and the gradients of its scores
// weight·(⟨grad_out, v⟩ - subtracted). score - shift is at most `most`: infinity, or 0 where shift is the largest score.
struct RowState {
    float shift, factor, subtracted, most;
};

template <typename T>
__device__ __forceinline__ float load_as(const void *rows, u64 at) {
    return widen(((const T *)rows)[at]);
}

__device__ __forceinline__ float load_stored(u32 storage, const void *rows, u64 at) {
    if (storage == STORED_F32) return load_as<f32>(rows, at);
    return storage == STORED_F16 ? load_as<f16>(rows, at) : load_as<bf16>(rows, at);
}

// Four numbers, which are aligned as one access.
template <typename T>
__device__ __forceinline__ float4 load_four(const void *rows, u64 at) {
    const T *from = (const T *)rows + at;
    if constexpr (sizeof(T) == 4) {
        return *(const float4 *)from;
    } else {
        float out[4];
        uint2 pairs = *(const uint2 *)from;
        widen_pair<T>(pairs.x, out);
        widen_pair<T>(pairs.y, out + 2);
        return make_float4(out[0], out[1], out[2], out[3]);
    }
}
template <typename T>
__device__ __forceinline__ void store_four(void *rows, u64 at, const float *numbers) {
    T *to = (T *)rows + at;
    if constexpr (sizeof(T) == 4) *(float4 *)to = *(const float4 *)numbers;
    if constexpr (sizeof(T) == 2) {
        *(uint2 *)to = make_uint2(narrow_pair<T>(numbers[0], numbers[1]), narrow_pair<T>(numbers[2], numbers[3]));
    }
}

__device__ __forceinline__ void store_stored(u32 storage, void *rows, u64 at, float number) {
    if (storage == STORED_F32) return (void)(((f32 *)rows)[at] = number);
    if (storage == STORED_F16) return (void)(((f16 *)rows)[at] = narrow<f16>(number));
    ((bf16 *)rows)[at] = narrow<bf16>(number);
}
