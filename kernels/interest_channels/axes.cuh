// What the kernels of interest channels know of a candidate's axes.
#pragma once
#include "shared/common.cuh"

// Of each axis of a candidate.
enum AxisState : u32 {
    // It depends on those before it: no behaviour goes to it.
    NO_CHANNEL = 0,
    IS_CHANNEL = 1,
    // The candidate has a number that is not finite.
    NOT_FINITE = 2
};

// What a row's length is at least, where it is divided by it.
constexpr double MIN_NORM = 1e-12;

__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fc00000); }

// The sum over a warp, for all lanes, always in the same order.
__device__ __forceinline__ double sum_over_warp(double value) {
#pragma unroll
    for (u32 lanes = WARP / 2; lanes > 0; lanes /= 2) {
        value += __shfl_xor_sync(WHOLE_WARP, value, (int)lanes);
    }
    return value;
}
