// Ids in order on the device, and how many of them count.
#pragma once
#include "shared/common.cuh"

// How many ids there are: none if something is wrong with them.
__device__ __forceinline__ u32 count_of(const u32 *count, const u32 *is_wrong) {
    return is_wrong && *is_wrong ? 0 : *count;
}

// The run that holds a place of the positions, of `count` runs: the last that starts no later.
__device__ __forceinline__ u32 run_of(const u32 *starts, u32 count, u32 place) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;
        if (__ldg(starts + middle) <= place) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// The same. The whole warp searches together, 32 starts at a time.
__device__ __forceinline__ u32 run_of_warp(const u32 *starts, u32 count, u32 place) {
    u32 low = 0, length = count;
    while (length > 1) {
        const u32 step = (length - 1) / WARP + 1, probe = threadIdx.x % WARP * step;
        const bool starts_no_later = probe < length && __ldg(starts + low + probe) <= place;
        const u32 passed = (__popc(__ballot_sync(WHOLE_WARP, starts_no_later)) - 1) * step;
        low += passed;
        length = min(step, length - passed);
    }
    return low;
}
