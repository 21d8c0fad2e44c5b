// Constants and helpers of mma.cu.
#pragma once
#include "target_attention/attend.cuh"

enum : u32 {
    BEHAVIOURS = 64,
    // Rows and columns of the fragments: 16-byte units of 16-bit numbers.
    UNIT = 8,
};

// log2 of the largest softmax weight.
template <typename T>
constexpr float MAX_LOG = 0.0f;
template <>
constexpr float MAX_LOG<f16> = 15.0f;

// Hides a number's origin from the compiler, which would otherwise recompute addresses in every iteration.
__device__ __forceinline__ u32 kept(u32 number) {
    asm volatile("" : "+r"(number));
    return number;
}

__device__ __forceinline__ void store_shared(u32 to, u32 word) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}
