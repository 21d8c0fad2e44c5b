// Sum and maximum of an array: a tree in shared memory, a shuffle reduction, and a single pass finished by the last block.
#include "device.cuh"

constexpr u32 THREADS = 256;

// One partial sum per block, halving the number of active threads in each step.
extern "C" __global__ void __launch_bounds__(256) sum_tree(u32 n, const float *in, float *partial) {
    __shared__ float tile[THREADS];
    u32 t = threadIdx.x;
    u32 i = blockIdx.x * THREADS + t;
    tile[t] = i < n ? in[i] : 0.0f;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) tile[t] += tile[t + half];
        __syncthreads();
    }
    if (t == 0) partial[blockIdx.x] = tile[0];
}

__device__ __forceinline__ u32 warp_max(u32 value) {
    for (u32 lanes = 16; lanes > 0; lanes /= 2) {
        u32 other = shuffle_xor(value, lanes);
        value = value > other ? value : other;
    }
    return value;
}

// The maximum, by shuffles, then one word per warp in shared memory, then one atomic per block.
extern "C" __global__ void __launch_bounds__(256) max_shuffle(u32 n, const u32 *in, u32 *out) {
    __shared__ u32 of_warp[THREADS / 32];
    u32 best = 0;
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        u32 value = in[i];
        best = value > best ? value : best;
    }
    best = warp_max(best);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x < 32) {
        best = warp_max(threadIdx.x < THREADS / 32 ? of_warp[threadIdx.x] : 0);
        if (threadIdx.x == 0) atomicMax(out, best);
    }
}

// The last block to arrive adds the partial sums in order, so the result does not depend on the schedule.
extern "C" __global__ void __launch_bounds__(256) sum_last_block(u32 n, const double *in, volatile double *partial, u32 *arrived,
                                                                 double *out) {
    __shared__ double tile[THREADS];
    __shared__ bool last;
    double sum = 0.0;
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) sum += in[i];
    tile[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 t = 1; t < THREADS; t++) sum += tile[t];
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(arrived, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        double total = 0.0;
        for (u32 b = 0; b < gridDim.x; b++) total += partial[b];
        *out = total;
    }
}
