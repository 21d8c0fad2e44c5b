// Constants and helpers of mma.cu.
#pragma once
#include "target_attention/attend.cuh"

enum : u32 {
    BEHAVIOURS = 64,
    // Rows and columns of the fragments: 16-byte units of 16-bit numbers.
    UNIT = 8,
};

// log2 of the largest softmax weight. f16 would lose small weights. In bf16 a sum of the largest values would pass the end of f32,
// where a matrix unit that rounds toward zero may stay, and come back unnoticed: with this, not before 2^24 behaviours.
template <typename T>
constexpr float MAX_LOG = -24.0f;
template <>
constexpr float MAX_LOG<f16> = 15.0f;
// What undoes it: a power of 2, exact.
template <typename T>
constexpr float UNIT_WEIGHT = 0x1p24f;
template <>
constexpr float UNIT_WEIGHT<f16> = 0x1p-15f;

// The magnitude below which scaled sums may have lost bits: the last one of f32's smallest numbers, times 2^24, is 2^-125.
template <typename T>
constexpr float LEAST_SUM = 0x1p-96f;
template <>
constexpr float LEAST_SUM<f16> = 0.0f;

// Hides a number's origin from the compiler, which would otherwise recompute addresses in every iteration.
__device__ __forceinline__ u32 kept(u32 number) {
    asm volatile("" : "+r"(number));
    return number;
}

__device__ __forceinline__ void store_shared(u32 to, u32 word) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}
