// The rows that a channel keeps: whole rows, read as by attention over a selection.
#pragma once
#include "interest_channels/axes.cuh"
#include "selected/rows.cuh"

// Rows [N, width], from one on.
template <typename T>
__device__ __forceinline__ KeptRows whole_rows(const void *rows, u64 first, u32 width) {
    KeptRows out;
    out.bytes = width * sizeof(T);
    out.stride = out.bytes;
    out.first = (const u8 *)rows + first * out.stride;
    out.vectors = (out.bytes + sizeof(Vector) - 1) / sizeof(Vector);
    out.shift = 32 - __clz(min(out.vectors, (u32)WARP) - 1);
    out.lanes = 1u << out.shift;
    out.access = access_of(out.first, out.bytes);
    return out;
}

// Stores the PER numbers of a vector that are within the row.
template <u32 PER>
__device__ __forceinline__ void store_numbers(float *row, u32 vector, u32 width, const float *numbers) {
#pragma unroll
    for (u32 e = 0; e < PER; e++) {
        if (PER * vector + e < width) {
            row[PER * vector + e] = numbers[e];
        }
    }
}

// The sum over all threads of a block, always in the same order.
__device__ __forceinline__ double sum_over_block(double value) {
    __shared__ double of_warps[MOST_WARPS];
    value = sum_over_warp(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        of_warps[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    value = of_warps[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++) {
        value += of_warps[warp];
    }
    return value;
}

// The length of a row, whose squares may be out of the range of f32. All threads call it together.
__device__ __forceinline__ double norm_of(const float *row, u32 width) {
    double squares = 0.0;
    for (u32 column = threadIdx.x; column < width; column += blockDim.x) {
        squares = __fma_rn((double)row[column], (double)row[column], squares);
    }
    return __dsqrt_rn(sum_over_block(squares));
}
