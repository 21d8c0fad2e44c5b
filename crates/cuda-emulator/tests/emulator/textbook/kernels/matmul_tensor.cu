// C = A B with tensor cores, one warp per 16 x 16 tile of C: f16 and bf16 through cp.async (two stages) and ldmatrix, tf32
// from plain shared loads. A is m x k row-major, B is k x n row-major; m, n, k are multiples of 16.
#include "device.cuh"

constexpr u32 STEP = 16;
constexpr u32 PITCH = STEP + 8;  // in elements; places the eight rows of an ldmatrix in different banks

__device__ __forceinline__ void copy_16_bytes(u16 *to, const u16 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

struct F16 {
    static __device__ __forceinline__ void multiply(float *c, const u32 *a, const u32 *b) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

struct Bf16 {
    static __device__ __forceinline__ void multiply(float *c, const u32 *a, const u32 *b) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

// A 16 x 16 tile is 32 chunks of 16 bytes: one per lane.
__device__ __forceinline__ void stage(u16 *tile, const u16 *from, u32 pitch) {
    u32 row = threadIdx.x / 2, column = threadIdx.x % 2 * 8;
    copy_16_bytes(tile + row * PITCH + column, from + (u64)row * pitch + column);
}

__device__ __forceinline__ void store(const float (*sum)[4], u32 n, float *c) {
    u32 row = threadIdx.x / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 part = 0; part < 2; part++) {
        float *at = c + (blockIdx.y * 16 + row) * n + blockIdx.x * 16 + part * 8 + column;
        at[0] = sum[part][0];
        at[1] = sum[part][1];
        at[8 * n] = sum[part][2];
        at[8 * n + 1] = sum[part][3];
    }
}

template <typename Kind>
__device__ __forceinline__ void sixteen_bit(u16 (*ta)[16 * PITCH], u16 (*tb)[16 * PITCH], u32 n, u32 k, const u16 *a,
                                            const u16 *b, float *c) {
    const u16 *from_a = a + (u64)blockIdx.y * 16 * k;
    const u16 *from_b = b + blockIdx.x * 16;
    float sum[2][4] = {};
    stage(ta[0], from_a, k);
    stage(tb[0], from_b, n);
    commit();
    for (u32 start = 0; start < k; start += STEP) {
        u32 now = start / STEP % 2;
        if (start + STEP < k) {
            stage(ta[1 - now], from_a + start + STEP, k);
            stage(tb[1 - now], from_b + (u64)(start + STEP) * n, n);
        }
        commit();
        wait<1>();
        __syncthreads();
        u32 fa[4], fb[4];
        u32 row = threadIdx.x % 16, column = threadIdx.x / 16 * 8;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                     : "r"(shared_address(ta[now] + row * PITCH + column))
                     : "memory");
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(fb[0]), "=r"(fb[1]), "=r"(fb[2]), "=r"(fb[3])
                     : "r"(shared_address(tb[now] + row * PITCH + column))
                     : "memory");
        Kind::multiply(sum[0], fa, fb);
        Kind::multiply(sum[1], fa, fb + 2);
        __syncthreads();
    }
    store(sum, n, c);
}

extern "C" __global__ void __launch_bounds__(32) matmul_f16(u32 n, u32 k, const u16 *a, const u16 *b, float *c) {
    alignas(16) __shared__ u16 ta[2][16 * PITCH], tb[2][16 * PITCH];
    sixteen_bit<F16>(ta, tb, n, k, a, b, c);
}

extern "C" __global__ void __launch_bounds__(32) matmul_bf16(u32 n, u32 k, const u16 *a, const u16 *b, float *c) {
    alignas(16) __shared__ u16 ta[2][16 * PITCH], tb[2][16 * PITCH];
    sixteen_bit<Bf16>(ta, tb, n, k, a, b, c);
}

__device__ __forceinline__ u32 to_tf32(float x) {
    u32 out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(x));
    return out;
}

extern "C" __global__ void __launch_bounds__(32) matmul_tf32(u32 n, u32 k, const float *a, const float *b, float *c) {
    __shared__ float ta[16][8], tb[8][16];
    float sum[2][4] = {};
    u32 group = threadIdx.x / 4, inside = threadIdx.x % 4;
    for (u32 start = 0; start < k; start += 8) {
        for (u32 i = threadIdx.x; i < 128; i += 32) {
            ta[i / 8][i % 8] = a[(blockIdx.y * 16 + i / 8) * k + start + i % 8];
            tb[i / 16][i % 16] = b[(start + i / 16) * n + blockIdx.x * 16 + i % 16];
        }
        __syncthreads();
        u32 fa[4] = {to_tf32(ta[group][inside]), to_tf32(ta[group + 8][inside]), to_tf32(ta[group][inside + 4]),
                     to_tf32(ta[group + 8][inside + 4])};
#pragma unroll
        for (u32 part = 0; part < 2; part++) {
            u32 fb[2] = {to_tf32(tb[inside][part * 8 + group]), to_tf32(tb[inside + 4][part * 8 + group])};
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(sum[part][0]), "+f"(sum[part][1]), "+f"(sum[part][2]), "+f"(sum[part][3])
                         : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
        }
        __syncthreads();
    }
    store(sum, n, c);
}
