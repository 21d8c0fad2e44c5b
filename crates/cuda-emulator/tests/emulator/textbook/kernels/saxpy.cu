// y = a x + y: one element per thread with an early exit, a grid-stride loop over float4 vectors, and half precision.
#include "device.cuh"

extern "C" __global__ void saxpy(u32 n, float a, const float *__restrict__ x, float *__restrict__ y) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = fmaf(a, x[i], y[i]);
}

extern "C" __global__ void saxpy_vectors(u32 vectors, float a, const Float4 *__restrict__ x, Float4 *__restrict__ y) {
    u32 stride = blockDim.x * gridDim.x;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += stride) {
        Float4 vx = x[i];
        Float4 vy = y[i];
        vy.x = fmaf(a, vx.x, vy.x);
        vy.y = fmaf(a, vx.y, vy.y);
        vy.z = fmaf(a, vx.z, vy.z);
        vy.w = fmaf(a, vx.w, vy.w);
        y[i] = vy;
    }
}

extern "C" __global__ void saxpy_half(u32 n, float a, const u16 *__restrict__ x, u16 *__restrict__ y) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = float_to_half(fmaf(a, half_to_float(x[i]), half_to_float(y[i])));
}
