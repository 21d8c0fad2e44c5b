// Dot products of int8 vectors, four products per instruction, and the dequantised row sums.
#include "device.cuh"

__device__ __forceinline__ int dot4(int a, int b, int sum) {
    int out;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}

// One row per thread; `words` is a quarter of the row's length.
extern "C" __global__ void dot_rows(u32 rows, u32 words, const int *a, const int *b, int *out) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    int sum = 0;
    for (u32 i = 0; i < words; i++) sum = dot4(a[row * words + i], b[row * words + i], sum);
    out[row] = sum;
}

struct alignas(4) Char4 {
    signed char x, y, z, w;
};

extern "C" __global__ void dequantised_sums(u32 rows, u32 words, float scale, const Char4 *a, float *out) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float sum = 0.0f;
    for (u32 i = 0; i < words; i++) {
        Char4 v = a[row * words + i];
        sum += (float)v.x + (float)v.y + (float)v.z + (float)v.w;
    }
    out[row] = sum * scale;
}
