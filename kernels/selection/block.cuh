// The block of threads that scores behaviours, in searches and in attention over all behaviours.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    THREADS = 128,
    WARPS = THREADS / WARP,
    // Behaviours per thread, and per block, at a time.
    OWN = 2,
    BEHAVIOURS = OWN * THREADS,
};
