// Inclusive prefix sums: the Hillis-Steele scan of one block in shared memory, and a scan over many blocks in three launches.
#include "device.cuh"

constexpr u32 THREADS = 256;

// Double-buffered, so that a step never reads what it writes.
extern "C" __global__ void __launch_bounds__(256) scan_one_block(u32 n, const float *in, float *out) {
    __shared__ float tile[2][THREADS];
    u32 t = threadIdx.x;
    u32 now = 0;
    tile[now][t] = t < n ? in[t] : 0.0f;
    __syncthreads();
    for (u32 step = 1; step < THREADS; step *= 2) {
        float value = tile[now][t];
        if (t >= step) value += tile[now][t - step];
        tile[1 - now][t] = value;
        now = 1 - now;
        __syncthreads();
    }
    if (t < n) out[t] = tile[now][t];
}

__device__ __forceinline__ u32 warp_scan(u32 value) {
    u32 lane = threadIdx.x % 32;
    for (u32 step = 1; step < 32; step *= 2) {
        u32 below = shuffle_up(value, step);
        if (lane >= step) value += below;
    }
    return value;
}

__device__ __forceinline__ u32 block_scan(u32 value, u32 *of_warp) {
    u32 warp = threadIdx.x / 32;
    u32 sum = warp_scan(value);
    if (threadIdx.x % 32 == 31) of_warp[warp] = sum;
    __syncthreads();
    for (u32 w = 0; w < warp; w++) sum += of_warp[w];
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) scan_blocks(u32 n, const u32 *in, u32 *out, u32 *block_sum) {
    __shared__ u32 of_warp[THREADS / 32];
    u32 i = blockIdx.x * THREADS + threadIdx.x;
    u32 sum = block_scan(i < n ? in[i] : 0, of_warp);
    if (i < n) out[i] = sum;
    if (threadIdx.x == THREADS - 1) block_sum[blockIdx.x] = sum;
}

// One block; exclusive, so that each block adds the sum of the preceding ones.
extern "C" __global__ void __launch_bounds__(256) scan_sums(u32 blocks, u32 *block_sum) {
    __shared__ u32 of_warp[THREADS / 32];
    u32 own = threadIdx.x < blocks ? block_sum[threadIdx.x] : 0;
    u32 sum = block_scan(own, of_warp);
    if (threadIdx.x < blocks) block_sum[threadIdx.x] = sum - own;
}

extern "C" __global__ void __launch_bounds__(256) add_sums(u32 n, const u32 *block_sum, u32 *out) {
    u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) out[i] += block_sum[blockIdx.x];
}
