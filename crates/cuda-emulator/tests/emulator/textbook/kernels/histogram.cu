// Histogram of bytes: with atomics on a table per block, and with one atomic for all lanes of a warp with the same value.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(256) histogram(u32 n, const unsigned char *in, u32 *bins) {
    __shared__ u32 own[256];
    own[threadIdx.x] = 0;
    __syncthreads();
    for (u32 i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) atomicAdd(&own[in[i]], 1u);
    __syncthreads();
    u32 count = own[threadIdx.x];
    if (count != 0) atomicAdd(&bins[threadIdx.x], count);
}

// The lowest of the lanes with the same value adds for all of them. n is a multiple of the warp size.
extern "C" __global__ void __launch_bounds__(256) histogram_matched(u32 n, const unsigned char *in, u32 *bins) {
    u32 lane = threadIdx.x % 32;
    for (u32 i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        u32 value = in[i];
        u32 peers = match_any(value);
        if ((peers & ((1u << lane) - 1)) == 0) atomicAdd(&bins[value], (u32)__popc(peers));
    }
}
