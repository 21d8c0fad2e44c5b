// C = A B, row-major, with tiles in shared memory: 16 x 16 in single precision, 4 x 4 register tiles with dynamic shared
// memory, and double precision.
#include "device.cuh"

constexpr u32 TILE = 16;

template <typename T>
__device__ __forceinline__ void tiled(u32 m, u32 n, u32 k, const T *a, const T *b, T *c, T (*ta)[TILE], T (*tb)[TILE]) {
    u32 x = threadIdx.x, y = threadIdx.y;
    u32 row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    T sum = 0;
    for (u32 start = 0; start < k; start += TILE) {
        ta[y][x] = row < m && start + x < k ? a[row * k + start + x] : (T)0;
        tb[y][x] = start + y < k && column < n ? b[(start + y) * n + column] : (T)0;
        __syncthreads();
        for (u32 i = 0; i < TILE; i++) sum += ta[y][i] * tb[i][x];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

extern "C" __global__ void __launch_bounds__(256) matmul_f32(u32 m, u32 n, u32 k, const float *a, const float *b, float *c) {
    __shared__ float ta[TILE][TILE], tb[TILE][TILE];
    tiled(m, n, k, a, b, c, ta, tb);
}

extern "C" __global__ void __launch_bounds__(256) matmul_f64(u32 m, u32 n, u32 k, const double *a, const double *b, double *c) {
    __shared__ double ta[TILE][TILE], tb[TILE][TILE];
    tiled(m, n, k, a, b, c, ta, tb);
}

extern __shared__ float dynamic[];

// 64 x 64 elements of C per block of 16 x 16 threads; m, n and k are multiples of 64, 64 and 16. Dynamic shared memory: 8 KiB.
extern "C" __global__ void __launch_bounds__(256) matmul_register_tile(u32 n, u32 k, const float *a, const float *b, float *c) {
    float *ta = dynamic;            // [16][64], transposed so that a thread's rows form a vector
    float *tb = dynamic + 16 * 64;  // [16][64]
    u32 t = threadIdx.y * 16 + threadIdx.x;
    float sum[4][4] = {};
    for (u32 start = 0; start < k; start += 16) {
        for (u32 i = t; i < 16 * 64; i += 256) {
            ta[i % 16 * 64 + i / 16] = a[(blockIdx.y * 64 + i / 16) * k + start + i % 16];
            tb[i] = b[(start + i / 64) * n + blockIdx.x * 64 + i % 64];
        }
        __syncthreads();
        for (u32 i = 0; i < 16; i++) {
            Float4 va = *(const Float4 *)(ta + i * 64 + threadIdx.y * 4);
            Float4 vb = *(const Float4 *)(tb + i * 64 + threadIdx.x * 4);
            float row[4] = {va.x, va.y, va.z, va.w}, column[4] = {vb.x, vb.y, vb.z, vb.w};
#pragma unroll
            for (u32 y = 0; y < 4; y++)
#pragma unroll
                for (u32 x = 0; x < 4; x++) sum[y][x] = fmaf(row[y], column[x], sum[y][x]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 y = 0; y < 4; y++)
        *(Float4 *)(c + (blockIdx.y * 64 + threadIdx.y * 4 + y) * n + blockIdx.x * 64 + threadIdx.x * 4) =
            Float4{sum[y][0], sum[y][1], sum[y][2], sum[y][3]};
}
