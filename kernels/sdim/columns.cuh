// Rows whose columns are spread over lanes, four per lane.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    LANE_COLUMNS = 4,
};

// The lanes that a row needs: a power of two, at most a warp.
__device__ __forceinline__ u32 lanes_of(u32 width) {
    u32 needed = (width + LANE_COLUMNS - 1) / LANE_COLUMNS;
    return needed >= WARP ? (u32)WARP : 1u << (32 - __clz(needed - 1));
}

// Stores four numbers of a row from `column` on.
template <typename G>
__device__ __forceinline__ void store_columns(void *out, const float *numbers, u64 row, u32 column, u32 width) {
    G *to = (G *)out + row * width + column;
    if (column + LANE_COLUMNS <= width && (u64)to % (LANE_COLUMNS * sizeof(G)) == 0) {
        if constexpr (sizeof(G) == 4) {
            *(float4 *)to = make_float4(numbers[0], numbers[1], numbers[2], numbers[3]);
        } else {
            *(uint2 *)to = make_uint2(narrow_pair<G>(numbers[0], numbers[1]), narrow_pair<G>(numbers[2], numbers[3]));
        }
        return;
    }
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        if (column + e < width) {
            to[e] = narrow<G>(numbers[e]);
        }
    }
}
