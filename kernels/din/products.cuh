// Products on matrix units in DIN's backward pass.
#pragma once
#include "din/backward.cuh"

enum : u32 {
    // Pairs of tiles of 8 columns that are computed together.
    PAIRS = 2,
};

// The sums of 2·PAIRS tiles: see the fragments in shared/common.cuh.
typedef float Sums[2 * PAIRS][4];

template <u32 PARTS>
__device__ __forceinline__ void load_parts(u32 (&parts)[PARTS][4], const Vector *from) {
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
        const Vector part = read_vector(from + i * WARP + threadIdx.x);
#pragma unroll
        for (u32 r = 0; r < 4; r++) parts[i][r] = part.words[r];
    }
}

template <u32 PARTS>
__device__ __forceinline__ void store_parts(Vector *to, const u32 (&parts)[PARTS][4]) {
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
        store_vector(to + i * WARP + threadIdx.x, Vector{{parts[i][0], parts[i][1], parts[i][2], parts[i][3]}});
    }
}

// Stores the first STORED parts of a fragment turned. `buffer` is shared memory, a Vector for each lane and part.
template <u32 STORED, u32 PARTS>
__device__ __forceinline__ void store_turned(Vector *buffer, Vector *to, const u32 (&parts)[PARTS][4]) {
    u32 *const words = (u32 *)buffer + threadIdx.x;
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < STORED; i++) {
        // A matrix of 8 × 8 numbers for each register.
#pragma unroll
        for (u32 r = 0; r < 4; r++) words[(i * 4 + r) * WARP] = parts[i][r];
    }
    __syncwarp();
    const u32 address = shared_address(buffer + threadIdx.x);
#pragma unroll
    for (u32 i = 0; i < STORED; i++) {
        u32 turned[4];
        load_transposed_4(turned, address + i * WARP * sizeof(Vector));
        // The upper right matrix changes places with the lower left.
        store_vector(to + i * WARP + threadIdx.x, Vector{{turned[0], turned[2], turned[1], turned[3]}});
    }
}

// sums += inputs · weights for PAIRS of `pairs` pairs of tiles from `first` on, over `steps` fragments of inputs, which this lane stored.
// Weights are [step][pair][part][lane]. Of their parts only USED count.
template <u32 WEIGHT, u32 INPUT, u32 USED = WEIGHT>
__device__ __forceinline__ void multiply(
    Sums &sums, const Vector *inputs, u32 steps, const float4 *weights, u32 pairs, u32 first) {
    constexpr u32 KEPT = WEIGHT > INPUT ? WEIGHT : INPUT;
    const float4 *fragment = weights + first * WEIGHT * WARP + threadIdx.x;
    const u64 stride = pairs * WEIGHT * WARP;
    // Matrix instructions need all lanes together, of which only some may just have stored a number.
    __syncwarp();
#pragma unroll 1
    for (u32 step = steps; step > 0; step--) {
        u32 a[INPUT][4];
        load_parts(a, inputs);
        inputs += INPUT * WARP;
#pragma unroll
        for (u32 n = 0; n < PAIRS; n++) {
            if (n == 0 || first + n < pairs) {
#pragma unroll
                for (u32 w = 0; w < USED; w++) {
                    const Vector b = load_vector(fragment + (n * WEIGHT + w) * WARP);
#pragma unroll
                    for (u32 x = 0; x < INPUT; x++) {
                        // Products of two small parts are below the last place.
                        if (w + x < KEPT) {
                            multiply_add<bf16>(sums[2 * n], a[x], b.words);
                            multiply_add<bf16>(sums[2 * n + 1], a[x], b.words + 2);
                        }
                    }
                }
            }
        }
        fragment += stride;
    }
}

// As above, where rows `odd` (of this lane: the upper and the lower) have a number that is not finite. The upper part of a weight alone
// gives their infinities: the others may be 0, whose product with one is NaN.
template <u32 WEIGHT, u32 INPUT>
__device__ __forceinline__ void multiply_any(
    Sums &sums, const bool (&odd)[2], const Vector *inputs, u32 steps, const float4 *weights, u32 pairs, u32 first) {
    // Weights of one part have no others.
    if constexpr (WEIGHT == 1) {
        multiply<WEIGHT, INPUT>(sums, inputs, steps, weights, pairs, first);
    } else {
        const bool any = __any_sync(WHOLE_WARP, odd[0] || odd[1]);
        Sums others;
        if (any) {
#pragma unroll
            for (u32 i = 0; i < 8 * PAIRS; i++) others[i / 4][i % 4] = sums[i / 4][i % 4];
        }
        multiply<WEIGHT, INPUT>(sums, inputs, steps, weights, pairs, first);
        if (!any) return;
        multiply<WEIGHT, INPUT, 1>(others, inputs, steps, weights, pairs, first);
#pragma unroll
        for (u32 i = 0; i < 8 * PAIRS; i++) {
            if (odd[i % 4 / 2]) sums[i / 4][i % 4] = others[i / 4][i % 4];
        }
    }
}

// Whether rows have a number that is not finite, from sums of their numbers' products with 0: of this lane, the upper and the lower.
__device__ __forceinline__ void find_odd(const float (&zeros)[2], bool (&odd)[2]) {
    odd[0] = warp_sum<4>(zeros[0]) != 0.0f;
    odd[1] = warp_sum<4>(zeros[1]) != 0.0f;
}

// Of 8 numbers of each lane: the sum of one of them over the lanes of the same lane % 4, of number lane / 16 · 4 + lane / 8 % 2 · 2 +
// lane / 4 % 2.
__device__ __forceinline__ float sum_one_of(const float (&x)[8]) {
    float four[4], two[2];
    const bool third = (threadIdx.x & 16) != 0, second = (threadIdx.x & 8) != 0, first = (threadIdx.x & 4) != 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) four[i] = (third ? x[4 + i] : x[i]) + shuffle_xor(third ? x[i] : x[4 + i], 16);
#pragma unroll
    for (u32 i = 0; i < 2; i++) two[i] = (second ? four[2 + i] : four[i]) + shuffle_xor(second ? four[i] : four[2 + i], 8);
    return (first ? two[1] : two[0]) + shuffle_xor(first ? two[0] : two[1], 4);
}

// Of the two columns of this lane in a tile of 8, over its 16 rows: the sums of the upper rows' numbers and the lower rows'.
__device__ __forceinline__ float2 sum_rows(float2 sum) {
#pragma unroll
    for (u32 lanes = 4; lanes < WARP; lanes *= 2) {
        sum.x += shuffle_xor(sum.x, lanes);
        sum.y += shuffle_xor(sum.y, lanes);
    }
    return sum;
}

__device__ __forceinline__ void store_four(float4 *to, const float (&c)[4]) { *to = make_float4(c[0], c[1], c[2], c[3]); }
