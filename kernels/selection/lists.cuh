// Lists of a search's best entries in shared memory.
//
// An entry is 64 bits whose unsigned order is the order of the search: a key of the score, then the inverted position. The key
// is the bits of the score, mapped so that they order like unsigned integers; -0 counts as +0; NaN has the lowest key, 0. No
// entry is 0, which stands for none. The order is total, so the result does not depend on the order of the threads.
#pragma once
#include "shared/common.cuh"

__device__ __forceinline__ u64 entry_of(float score, u32 position) {
    u32 bits;
    // Opaque to the compiler, which would otherwise keep scores as integers and copy them back and forth.
    asm("mov.b32 %0, %1;" : "=r"(bits) : "f"(score));
    u32 magnitude = bits & 0x7fffffffu;
    u32 key = bits >> 31 ? ~bits : bits | 0x80000000u;
    if (magnitude == 0) {
        key = 0x80000000u;
    } else if (magnitude > 0x7f800000u) {
        key = 0;
    }
    return (u64)key << 32 | ~position;
}

// Reads the whole entry even if only the key is needed: reads of every second word would access half of the banks.
__device__ __forceinline__ u64 read_entry(const u64 *from) {
    u64 out;
    asm volatile("ld.u64 %0, [%1];" : "=l"(out) : "l"(from) : "memory");
    return out;
}

__device__ __forceinline__ u32 key_of(u64 entry) { return entry >> 32; }

__device__ __forceinline__ float score_of(u64 entry) {
    u32 key = key_of(entry);
    return __uint_as_float(key == 0 ? 0x7fc00000u : key >> 31 ? key & 0x7fffffffu
                                                              : ~key);
}

// A list, and the floor below which no entry is needed.
struct List {
    u64 *entries;
    u32 *length;
    u64 *floor;
};

// Appends the entries of those lanes that want to. All lanes of a warp call it together.
__device__ __forceinline__ void append(const List &list, bool wanted, u64 entry) {
    u32 lane = threadIdx.x % WARP, votes = __ballot_sync(WHOLE_WARP, wanted);
    if (votes == 0) {
        return;
    }
    u32 place = 0;
    if (lane == 0) {
        place = atomicAdd(list.length, __popc(votes));
    }
    place = __shfl_sync(WHOLE_WARP, place, 0) + __popc(votes & ((1u << lane) - 1));
    if (wanted) {
        list.entries[place] = entry;
    }
}

// A floor with at most `room` entries at or above it, and at least `top_k`, found by bisection of its bits. `above`:
// how many entries there are, more than `room`. `count` returns how many are at or above a floor; it is not called for
// floors up to `least`, which all entries reach, nor above `most`, which none reaches.
template <typename Word, typename Count>
__device__ __forceinline__ Word raised_floor(Word least, Word most, u32 top_k, u32 room, u32 &above, Count count) {
    Word floor = 0;
    for (Word bit = (Word)1 << (8 * sizeof(Word) - 1); bit != 0 && above > room; bit >>= 1) {
        Word raised = floor | bit;
        if (raised <= least) {
            floor = raised;
        } else if (raised <= most) {
            u32 left = count(raised);
            if (left >= top_k) {
                floor = raised;
                above = left;
            }
        }
    }
    return floor;
}
