// Softmax of each row: one warp per row, with running maximum and sum combined by shuffles; and one block per row, in three
// passes.
#include "device.cuh"

constexpr float LOG2_E = 1.44269504f;
#define MINUS_INFINITY __builtin_bit_cast(float, 0xff800000u)

extern "C" __global__ void __launch_bounds__(128) softmax_warp(u32 rows, u32 columns, const float *in, float *out) {
    u32 row = blockIdx.x * 4 + threadIdx.x / 32;
    u32 lane = threadIdx.x % 32;
    if (row >= rows) return;
    const float *x = in + (u64)row * columns;
    float largest = MINUS_INFINITY, sum = 0.0f;
    for (u32 i = lane; i < columns; i += 32) {
        float next = fmaxf(largest, x[i]);
        sum = sum * exp2_approx((largest - next) * LOG2_E) + exp2_approx((x[i] - next) * LOG2_E);
        largest = next;
    }
    for (u32 lanes = 16; lanes > 0; lanes /= 2) {
        float other_largest = shuffle_xor(largest, lanes), other_sum = shuffle_xor(sum, lanes);
        float next = fmaxf(largest, other_largest);
        // A lane without columns has the maximum -infinity, and infinity minus infinity is NaN.
        float own = largest == next ? 1.0f : exp2_approx((largest - next) * LOG2_E);
        float theirs = other_largest == next ? 1.0f : exp2_approx((other_largest - next) * LOG2_E);
        sum = sum * own + other_sum * theirs;
        largest = next;
    }
    for (u32 i = lane; i < columns; i += 32) out[(u64)row * columns + i] = exp2_approx((x[i] - largest) * LOG2_E) / sum;
}

// One row per block of 128 threads; the row stays in dynamic shared memory between the passes.
extern __shared__ float row_cache[];

extern "C" __global__ void __launch_bounds__(128) softmax_block(u32 columns, const float *in, float *out) {
    __shared__ float tile[128];
    u32 t = threadIdx.x;
    const float *x = in + (u64)blockIdx.x * columns;
    float value = MINUS_INFINITY;
    for (u32 i = t; i < columns; i += 128) {
        row_cache[i] = x[i];
        value = fmaxf(value, x[i]);
    }
    tile[t] = value;
    __syncthreads();
    for (u32 half = 64; half > 0; half /= 2) {
        if (t < half) tile[t] = fmaxf(tile[t], tile[t + half]);
        __syncthreads();
    }
    float largest = tile[0];
    __syncthreads();
    value = 0.0f;
    for (u32 i = t; i < columns; i += 128) {
        float e = exp2_approx((row_cache[i] - largest) * LOG2_E);
        row_cache[i] = e;
        value += e;
    }
    tile[t] = value;
    __syncthreads();
    for (u32 half = 64; half > 0; half /= 2) {
        if (t < half) tile[t] += tile[t + half];
        __syncthreads();
    }
    float scale = 1.0f / tile[0];
    for (u32 i = t; i < columns; i += 128) out[(u64)blockIdx.x * columns + i] = row_cache[i] * scale;
}
