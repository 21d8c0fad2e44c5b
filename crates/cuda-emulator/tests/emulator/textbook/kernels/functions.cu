// Language features: calls, structures by value, arrays indexed at run time, switches, constant tables, module variables,
// 64-bit division, early returns inside loops.
#include "device.cuh"

struct Pair {
    float low, high;
};

__device__ __noinline__ Pair split(float x, float at) { return x < at ? Pair{x, at} : Pair{at, x}; }

__device__ __noinline__ u64 power(u64 base, u32 exponent) {
    u64 out = 1;
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1) out *= base;
        base *= base;
    }
    return out;
}

// Calls another function, so calls are nested.
__device__ __noinline__ u64 power_sum(u64 base, u32 exponent) { return power(base, exponent) + power(base + 1, exponent); }

extern "C" __global__ void calls(u32 n, float at, const float *x, float *low, float *high, u64 *powers) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Pair pair = split(x[i], at);
    low[i] = pair.low;
    high[i] = pair.high;
    if (i % 3 == 0) powers[i] = power_sum(i, i % 13);
    else powers[i] = power(i, i % 7);
}

// Insertion sort of eight values in local memory, with indices unknown at compile time.
extern "C" __global__ void sort_eight(u32 n, const int *in, int *out) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int own[8];
    for (u32 j = 0; j < 8; j++) {
        int value = in[i * 8 + j];
        u32 at = j;
        while (at > 0 && own[at - 1] > value) {
            own[at] = own[at - 1];
            at--;
        }
        own[at] = value;
    }
    u32 start = (u32)own[0] % 8;
    for (u32 j = 0; j < 8; j++) out[i * 8 + j] = own[(start + j) % 8];
}

__constant__ float coefficients[4] = {1.0f, -0.5f, 0.25f, -0.125f};
__device__ u32 calls_seen = 7;

struct Window {
    u32 start, length;
    float scale;
    unsigned char mode;
};

extern "C" __global__ void windowed(Window window, const float *in, float *out) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= window.length) return;
    float x = in[window.start + i];
    float y;
    switch (window.mode + i % 4) {
        case 0: y = x; break;
        case 1: y = -x * coefficients[i % 4]; break;
        case 2: y = x > 0.0f ? x : coefficients[(i + 1) % 4] * x; break;
        case 3: y = x * x; break;
        case 4: y = sqrtf(x * x + 1.0f); break;
        default: y = 1.0f / (1.0f + x * x); break;
    }
    out[i] = y * window.scale;
    if (i == 0) atomicAdd(&calls_seen, 1u);
}

extern "C" __global__ void read_calls_seen(u32 *out) { *out = calls_seen; }

extern "C" __global__ void divisions(u32 n, const long long *a, const long long *b, long long *quotient, long long *remainder,
                                     u32 *unsigned_remainder) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    quotient[i] = a[i] / b[i];
    remainder[i] = a[i] % b[i];
    unsigned_remainder[i] = (u32)a[i] % (u32)(b[i] | 1);
}

// Length of the Collatz sequence: lanes leave the loop at different times.
extern "C" __global__ void collatz(u32 n, u32 limit, u32 *steps) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 value = i + 1;
    for (u32 step = 0; step < limit; step++) {
        if (value == 1) {
            steps[i] = step;
            return;
        }
        value = value % 2 ? 3 * value + 1 : value / 2;
    }
    steps[i] = limit;
}
