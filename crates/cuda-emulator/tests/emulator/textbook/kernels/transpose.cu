// out[column][row] = in[row][column]: directly, and through a tile in shared memory with a padding column against bank
// conflicts.
#include "device.cuh"

constexpr u32 TILE = 32;
constexpr u32 ROWS = 8;

extern "C" __global__ void transpose_straight(u32 rows, u32 columns, const float *in, float *out) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    u32 row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row < rows && column < columns) out[(u64)column * rows + row] = in[(u64)row * columns + column];
}

// Blocks of 32 x 8 threads; with PADDING 0 every read of a tile column accesses a single bank.
template <u32 PADDING>
__device__ __forceinline__ void transpose_tile(float (*tile)[TILE + PADDING], u32 rows, u32 columns, const float *in, float *out) {
    u32 column = blockIdx.x * TILE + threadIdx.x;
    u32 row = blockIdx.y * TILE + threadIdx.y;
    for (u32 j = 0; j < TILE; j += ROWS)
        if (row + j < rows && column < columns) tile[threadIdx.y + j][threadIdx.x] = in[(u64)(row + j) * columns + column];
    __syncthreads();
    column = blockIdx.y * TILE + threadIdx.x;
    row = blockIdx.x * TILE + threadIdx.y;
    for (u32 j = 0; j < TILE; j += ROWS)
        if (row + j < columns && column < rows) out[(u64)(row + j) * rows + column] = tile[threadIdx.x][threadIdx.y + j];
}

extern "C" __global__ void __launch_bounds__(256) transpose_conflicts(u32 rows, u32 columns, const float *in, float *out) {
    __shared__ float tile[TILE][TILE];
    transpose_tile<0>(tile, rows, columns, in, out);
}

extern "C" __global__ void __launch_bounds__(256) transpose_padded(u32 rows, u32 columns, const float *in, float *out) {
    __shared__ float tile[TILE][TILE + 1];
    transpose_tile<1>(tile, rows, columns, in, out);
}
