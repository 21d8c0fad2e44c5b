// Softmax weights of a selection, of which a block computes those of one candidate.
#pragma once
#include "decoupled/rows.cuh"

enum : u32 {
    AGGREGATE_WARPS = ROW_THREADS / WARP,
};

// Reduces over all threads of a block, always in the same order.
template <bool SUM>
__device__ __forceinline__ float over_block(float value) {
    __shared__ float of_warps[AGGREGATE_WARPS];
    value = SUM ? warp_sum(value) : warp_max(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        of_warps[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    value = of_warps[0];
    for (u32 warp = 1; warp < AGGREGATE_WARPS; warp++) {
        value = SUM ? value + of_warps[warp] : fmaxf(value, of_warps[warp]);
    }
    return value;
}

// A score of -∞ has no weight, whatever the maximum is. NaN is not dropped here: its weight is NaN.
__device__ __forceinline__ float weight_of(float score, float row_max) {
    return score == -infinity() ? 0.0f : exp_approx(score - row_max);
}
