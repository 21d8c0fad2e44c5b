// The best K of all lists of a candidate, sorted: by descending score, then ascending position, NaN last.
//
// A block per candidate reads the lists of all spans of the history into one list of its own, in the same way as best.cuh fills
// them, and sorts the rest of it. The order of entries is total and every entry differs, so no order of blocks or threads shows in
// the result. With 256 threads K is at most 1024, with 1024 threads 4096.
#pragma once
#include "selection/lists.cuh"

struct SelectParams {
    const Tile *tiles;
    const u64 *lists;
    const u32 *lengths;
    u32 *positions;
    float *scores;
    u32 *counts;
    // Candidates per tile.
    u32 candidates;
    u32 top_k, room, first_whole;
};

// The steps of a bitonic sort (highest first) of runs of `size`, from a distance within a warp on; a lane holds the
// entry of `place`.
template <u32 DISTANCE>
__device__ __forceinline__ u64 merged(u64 entry, u32 place, u32 size) {
    bool falling = !(place & size);
#pragma unroll
    for (u32 distance = DISTANCE; distance > 0; distance /= 2) {
        u64 other = __shfl_xor_sync(WHOLE_WARP, entry, distance);
        bool higher = !(place & distance) == falling;
        entry = (other > entry) == higher ? other : entry;
    }
    return entry;
}

// Sorts, highest first: a bitonic sort of as many places as there are entries, rounded up to a power of two, and at
// least a warp's. Within a warp, entries are exchanged in registers. All threads call it together.
template <u32 SELECT_THREADS>
__device__ __forceinline__ void sort(u64 *entries, u32 length) {
    u32 places = length > WARP ? 1u << (32 - __clz(length - 1)) : (u32)WARP;
    for (u32 i = length + threadIdx.x; i < places; i += SELECT_THREADS) {
        entries[i] = 0;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < places; i += SELECT_THREADS) {
        u64 entry = merged<1>(entries[i], i, 2);
        entry = merged<2>(entry, i, 4);
        entry = merged<4>(entry, i, 8);
        entry = merged<8>(entry, i, 16);
        entries[i] = merged<16>(entry, i, 32);
    }
    for (u32 size = 2 * WARP; size <= places; size *= 2) {
        for (u32 distance = size / 2; distance >= WARP; distance /= 2) {
            __syncthreads();
            for (u32 pair = threadIdx.x; pair < places / 2; pair += SELECT_THREADS) {
                u32 low = 2 * pair - (pair & (distance - 1)), high = low + distance;
                u64 a = entries[low], b = entries[high];
                if ((a < b) == ((low & size) == 0)) {
                    entries[low] = b;
                    entries[high] = a;
                }
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < places; i += SELECT_THREADS) {
            entries[i] = merged<WARP / 2>(entries[i], i, size);
        }
    }
    __syncthreads();
}

// The shared memory of a selection.
template <u32 SELECT_THREADS>
struct Selecting {
    enum : u32 {
        // Entries of the list, and how many are read at a time: as many as fit next to the largest K.
        ENTRIES = 8 * SELECT_THREADS,
        STEP = ENTRIES / 2
    };
    u64 entries[ENTRIES];
    u64 floor;
    u32 length;
    // Counts of the rounds of a cut, three in turn: one is added to, one is read, one is reset.
    u32 counts[3];
    u32 least, most;
};

// Like cut, for a list that may have empty places, by all threads together. If no more than `room` entries are left without
// these, the floor stays: fewer than `top_k` may have been found so far.
template <u32 SELECT_THREADS>
__device__ __forceinline__ void cut_together(Selecting<SELECT_THREADS> &s, u32 top_k, u32 room) {
    constexpr u32 OWN = Selecting<SELECT_THREADS>::ENTRIES / SELECT_THREADS;
    const u32 lane = threadIdx.x % WARP, length = s.length;
    const u64 before = s.floor;
    u64 own[OWN];
    u32 least = ~0u, most = 0, entries = 0;
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
        u32 place = i * SELECT_THREADS + threadIdx.x;
        own[i] = place < length ? s.entries[place] : 0;
        least = min(least, own[i] == 0 ? ~0u : key_of(own[i]));
        most = max(most, key_of(own[i]));
        entries += own[i] != 0;
    }
    if (threadIdx.x == 0) {
        s.least = ~0u;
        s.most = 0;
        s.counts[0] = s.counts[1] = s.counts[2] = 0;
    }
    __syncthreads();
    least = __reduce_min_sync(WHOLE_WARP, least);
    most = __reduce_max_sync(WHOLE_WARP, most);
    entries = __reduce_add_sync(WHOLE_WARP, entries);
    if (lane == 0) {
        s.length = 0;
        atomicMin(&s.least, least);
        atomicMax(&s.most, most);
        atomicAdd(&s.counts[2], entries);
    }
    __syncthreads();
    // The first round resets the third count after its barrier, when all threads have read it here.
    u32 above = s.counts[2], round = 0;
    u64 floor = raised_floor((u64)s.least << 32, (u64)s.most << 32 | ~0u, top_k, room, above, [&](u64 raised) {
        u32 count = 0;
#pragma unroll
        for (u32 i = 0; i < OWN; i++) {
            count += own[i] >= raised;
        }
        count = __reduce_add_sync(WHOLE_WARP, count);
        if (lane == 0) {
            atomicAdd(&s.counts[round], count);
        }
        __syncthreads();
        u32 next = round == 2 ? 0 : round + 1;
        if (threadIdx.x == 0) {
            s.counts[next == 2 ? 0 : next + 1] = 0;
        }
        count = s.counts[round];
        round = next;
        return count;
    });
    const List list = {s.entries, &s.length, &s.floor};
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
        append(list, own[i] != 0 && own[i] >= floor, own[i]);
    }
    if (threadIdx.x == 0) {
        s.floor = max(floor, before);
    }
    __syncthreads();
}

// A block per candidate.
template <u32 SELECT_THREADS>
__device__ __forceinline__ void select(Selecting<SELECT_THREADS> &s, const SelectParams &p) {
    constexpr u32 SELECT_ENTRIES = Selecting<SELECT_THREADS>::ENTRIES, SELECT_STEP = Selecting<SELECT_THREADS>::STEP;
    const Tile &tile = p.tiles[blockIdx.x / p.candidates];
    u32 row = blockIdx.x % p.candidates;
    if (row >= tile.rows) {
        return;
    }
    const u32 parts = max(tile.slots, 1u), room = min(p.room, (u32)(SELECT_ENTRIES - SELECT_STEP));
    const u64 first = tile.slots == 0 ? p.first_whole + blockIdx.x / p.candidates : tile.first_slot;
    const u64 all = (u64)parts * p.room;
    if (threadIdx.x == 0) {
        s.floor = 0;
        s.length = min(all, (u64)SELECT_ENTRIES);
    }
    const List list = {s.entries, &s.length, &s.floor};
    // Where a thread reads next, and the step over all threads, without a division.
    u32 part = threadIdx.x / p.room, place = threadIdx.x % p.room;
    const u32 part_step = SELECT_THREADS / p.room, place_step = SELECT_THREADS % p.room;
    const u64 stride = (u64)p.candidates * p.room;
    const u32 *part_length = p.lengths + (first + part) * p.candidates + row;
    const u64 *from = p.lists + (first * p.candidates + row) * p.room + part * stride + place;
    for (u64 begin = 0; begin < all; begin += SELECT_STEP) {
        u64 own[SELECT_STEP / SELECT_THREADS];
#pragma unroll
        for (u32 i = 0; i < SELECT_STEP / SELECT_THREADS; i++) {
            own[i] = part < parts && place < *part_length ? *from : 0;
            u32 parts_on = part_step;
            from += place_step;
            place += place_step;
            if (place >= p.room) {
                from -= p.room;
                place -= p.room;
                parts_on++;
            }
            part += parts_on;
            part_length += parts_on * p.candidates;
            from += parts_on * stride;
        }
        if (begin < SELECT_ENTRIES) {
#pragma unroll
            for (u32 i = 0; i < SELECT_STEP / SELECT_THREADS; i++) {
                s.entries[begin + i * SELECT_THREADS + threadIdx.x] = own[i];
            }
            continue;
        }
        __syncthreads();
        const bool full = s.length > SELECT_ENTRIES - SELECT_STEP;
        // Before any thread appends.
        __syncthreads();
        if (full) {
            cut_together(s, p.top_k, room);
        }
        const u64 floor = s.floor;
#pragma unroll
        for (u32 i = 0; i < SELECT_STEP / SELECT_THREADS; i++) {
            append(list, own[i] > floor, own[i]);
        }
    }
    __syncthreads();
    // Fewer are sorted as fast as they are cut.
    if (s.length > max(room, (u32)SELECT_THREADS)) {
        cut_together(s, p.top_k, room);
    }
    const u32 length = s.length;
    sort<SELECT_THREADS>(s.entries, length);
    u64 m = tile.first_target + tile.first_row + row;
    u32 filled = 0;
    for (u32 begin = 0; begin < p.top_k; begin += SELECT_THREADS) {
        u32 at = begin + threadIdx.x;
        u64 entry = at < min(length, p.top_k) ? s.entries[at] : 0;
        filled += __syncthreads_count(entry != 0);
        if (at < p.top_k) {
            p.positions[m * p.top_k + at] = entry != 0 ? ~(u32)entry : NONE;
            p.scores[m * p.top_k + at] = entry != 0 ? score_of(entry) : -infinity();
        }
    }
    if (threadIdx.x == 0) {
        p.counts[m] = filled;
    }
}
