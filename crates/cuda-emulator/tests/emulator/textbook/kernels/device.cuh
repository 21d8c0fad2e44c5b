// Declarations for the textbook kernels, without any toolkit header: NVRTC defines the keywords and index variables itself,
// for clang they are defined here. Instructions without a C++ equivalent are inline PTX.
#pragma once

#ifdef __clang__
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(n) __attribute__((launch_bounds(n)))
struct Index3 {
    unsigned x, y, z;
    __device__ Index3(int x, int y, int z) : x(x), y(y), z(z) {}
};
#define threadIdx (Index3(__nvvm_read_ptx_sreg_tid_x(), __nvvm_read_ptx_sreg_tid_y(), __nvvm_read_ptx_sreg_tid_z()))
#define blockIdx (Index3(__nvvm_read_ptx_sreg_ctaid_x(), __nvvm_read_ptx_sreg_ctaid_y(), __nvvm_read_ptx_sreg_ctaid_z()))
#define blockDim (Index3(__nvvm_read_ptx_sreg_ntid_x(), __nvvm_read_ptx_sreg_ntid_y(), __nvvm_read_ptx_sreg_ntid_z()))
#define gridDim (Index3(__nvvm_read_ptx_sreg_nctaid_x(), __nvvm_read_ptx_sreg_nctaid_y(), __nvvm_read_ptx_sreg_nctaid_z()))
#define atomicAdd(p, v) __atomic_fetch_add(p, v, __ATOMIC_RELAXED)
#define atomicMax(p, v) __atomic_fetch_max(p, v, __ATOMIC_RELAXED)
#define atomicMin(p, v) __atomic_fetch_min(p, v, __ATOMIC_RELAXED)
#define atomicOr(p, v) __atomic_fetch_or(p, v, __ATOMIC_RELAXED)
#define atomicAnd(p, v) __atomic_fetch_and(p, v, __ATOMIC_RELAXED)
#define atomicXor(p, v) __atomic_fetch_xor(p, v, __ATOMIC_RELAXED)
#define atomicExch(p, v) __atomic_exchange_n(p, v, __ATOMIC_RELAXED)
#define fmaf __builtin_fmaf
#define fmaxf __builtin_fmaxf
#define __threadfence() __nvvm_membar_gl()
#define sqrtf __builtin_sqrtf
#define __popc __builtin_popcount
#endif

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
constexpr u32 WHOLE_WARP = 0xffffffffu;

struct alignas(16) Float4 {
    float x, y, z, w;
};

__device__ __forceinline__ u32 shuffle_xor(u32 value, u32 lanes) {
    u32 out;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(out) : "r"(value), "r"(lanes));
    return out;
}

__device__ __forceinline__ float shuffle_xor(float value, u32 lanes) {
    float out;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(out) : "f"(value), "r"(lanes));
    return out;
}

// Lanes below `lanes` keep their own value, as on hardware.
__device__ __forceinline__ u32 shuffle_up(u32 value, u32 lanes) {
    u32 out;
    asm volatile("shfl.sync.up.b32 %0, %1, %2, 0x0, 0xffffffff;" : "=r"(out) : "r"(value), "r"(lanes));
    return out;
}

__device__ __forceinline__ u32 ballot(bool vote) {
    u32 out;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }"
                 : "=r"(out)
                 : "r"((u32)vote));
    return out;
}

__device__ __forceinline__ u32 match_any(u32 value) {
    u32 out;
    asm volatile("match.any.sync.b32 %0, %1, 0xffffffff;" : "=r"(out) : "r"(value));
    return out;
}

__device__ __forceinline__ float exp2_approx(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

__device__ __forceinline__ float half_to_float(u16 bits) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
    return out;
}

__device__ __forceinline__ u16 float_to_half(float x) {
    u16 out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
}

__device__ __forceinline__ u32 shared_address(const void *pointer) {
    u64 out;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(out) : "l"(pointer));
    return (u32)out;
}
