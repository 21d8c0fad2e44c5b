// Atomics in global and shared memory whose result does not depend on the order.
#include "device.cuh"

__device__ __forceinline__ u64 compare_and_swap(u64 *at, u64 old, u64 wanted) {
    u64 out;
    asm volatile("atom.global.cas.b64 %0, [%1], %2, %3;" : "=l"(out) : "l"(at), "l"(old), "l"(wanted) : "memory");
    return out;
}

// out: sum, minimum, maximum, or, and, xor of the inputs.
extern "C" __global__ void integer_atomics(u32 n, const u32 *in, u32 *out) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 value = in[i];
    atomicAdd(&out[0], value);
    atomicMin((int *)&out[1], (int)value);
    atomicMax(&out[2], value);
    atomicOr(&out[3], value);
    atomicAnd(&out[4], value);
    atomicXor(&out[5], value);
}

// Maximum of doubles, by compare-and-swap of their bits; the inputs are not negative.
extern "C" __global__ void maximum_by_cas(u32 n, const double *in, u64 *out) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 mine = __builtin_bit_cast(u64, in[i]);
    u64 seen = 0;
    while (true) {
        u64 found = compare_and_swap(out, seen, seen > mine ? seen : mine);
        if (found == seen) return;
        seen = found;
    }
}

// The inputs are small integers, so that float sums are exact in any order.
extern "C" __global__ void __launch_bounds__(128) float_atomics(u32 n, const float *in, float *sum, double *sum_wide) {
    __shared__ float own;
    if (threadIdx.x == 0) own = 0.0f;
    __syncthreads();
    u32 i = blockIdx.x * 128 + threadIdx.x;
    if (i < n) {
        atomicAdd(&own, in[i]);
        atomicAdd(sum_wide, (double)in[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(sum, own);
}

// Each thread takes a ticket and stores its index there: out is a permutation.
extern "C" __global__ void tickets(u32 n, u32 *next, u32 *out) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[atomicAdd(next, 1u)] = i;
}
