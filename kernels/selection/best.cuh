// The best entries of a span of a history, for each candidate of a tile.
//
// A block takes a tile of candidates and a span of their user's history. Each candidate has a list in shared memory and a
// floor: entries below it cannot be among the best K, and are not stored. As long as a list is not full, entries go straight to
// their places; a place of a behaviour that is never kept stays empty. Before a list could overflow, a warp raises its floor and
// drops the entries below and the empty places, by bisection of their bits, without sorting. The lists of the spans of a history
// hold at least the best K of each, in any order; select.cuh reads them.
#pragma once
#include "selection/block.cuh"
#include "selection/lists.cuh"

// Raises the floor of a list of more than `room` places until at most that many, and at least `top_k`, are left; drops
// those below. A warp calls it. Keys are compared first, in registers if they fit; positions only among equal keys.
template <u32 CAPACITY>
__device__ __forceinline__ void cut(const List &list, u32 top_k, u32 room) {
    constexpr u32 KEYS = CAPACITY / WARP;
    constexpr bool HELD = KEYS <= 32;
    const u32 lane = threadIdx.x % WARP, length = *list.length;
    auto read_key = [&](u32 i) {
        u32 place = i * WARP + lane;
        return place < length ? key_of(read_entry(list.entries + place)) : 0;
    };
    u32 keys[HELD ? KEYS : 1], most = 0;
#pragma unroll(HELD ? KEYS : 8)
    for (u32 i = 0; i < KEYS; i++) {
        u32 key = read_key(i);
        most = max(most, key);
        if constexpr (HELD) {
            keys[i] = key;
        }
    }
    u32 above = length;
    u64 floor = raised_floor(key_of(*list.floor), __reduce_max_sync(WHOLE_WARP, most), top_k, room, above, [&](u32 raised) {
        u32 count = 0;
#pragma unroll(HELD ? KEYS : 8)
        for (u32 i = 0; i < KEYS; i++) {
            count += (HELD ? keys[HELD ? i : 0] : read_key(i)) >= raised;
        }
        return __reduce_add_sync(WHOLE_WARP, count);
    });
    floor <<= 32;
    floor |= raised_floor(0u, ~0u, top_k, room, above, [&](u32 raised) {
        u32 count = 0;
        for (u32 i = lane; i < length; i += WARP) {
            count += list.entries[i] >= (floor | raised);
        }
        return __reduce_add_sync(WHOLE_WARP, count);
    });
    // In place: entries move to the front, and a step is read before any of it is written.
    u32 kept = 0;
    for (u32 begin = 0; begin < length; begin += WARP) {
        u64 entry = begin + lane < length ? list.entries[begin + lane] : 0;
        bool keeps = entry != 0 && entry >= floor;
        u32 votes = __ballot_sync(WHOLE_WARP, keeps);
        __syncwarp();
        if (keeps) {
            list.entries[kept + __popc(votes & ((1u << lane) - 1))] = entry;
        }
        kept += __popc(votes);
        __syncwarp();
    }
    if (lane == 0) {
        *list.length = kept;
        *list.floor = floor;
    }
}

// The lists of the pieces of all histories in device memory, and how long they may be.
struct KeptLists {
    const Tile *tiles;
    // [places, candidates per tile, room], and their lengths [places, candidates per tile].
    u64 *lists;
    u32 *lengths;
    u32 top_k;
    // The most entries per list that are left for the selection.
    u32 room;
    // Where the lists of pieces without a slot begin.
    u32 first_whole;
    u32 unused;
};

// The lists of a block, and for each the score below which no entry is needed, which is compared first.
template <u32 CANDIDATES, u32 ENTRIES>
struct alignas(16) Lists {
    u64 entries[ENTRIES];
    u64 floors[CANDIDATES];
    u32 lengths[CANDIDATES];
    float least[CANDIDATES];

    enum : u32 {
        CAPACITY = ENTRIES / CANDIDATES
    };

    __device__ __forceinline__ List list(u32 candidate) {
        return List{entries + candidate * CAPACITY, lengths + candidate, floors + candidate};
    }

    // The first behaviours of the piece go straight to their places.
    __device__ __forceinline__ void begin(const Piece &piece) {
        if (threadIdx.x < CANDIDATES) {
            floors[threadIdx.x] = 0;
            lengths[threadIdx.x] = threadIdx.x < piece.rows ? min(piece.length, (u32)CAPACITY) : 0;
            // Nothing is less than NaN.
            least[threadIdx.x] = __uint_as_float(0x7fc00000u);
        }
    }

    // Cuts the lists longer than `longest`. All threads call it together.
    __device__ __forceinline__ void cut_longer(u32 longest, u32 top_k, u32 room) {
        __syncthreads();
        for (u32 candidate = threadIdx.x / WARP; candidate < CANDIDATES; candidate += WARPS) {
            if (lengths[candidate] > longest) {
                cut<CAPACITY>(list(candidate), top_k, room);
                if (threadIdx.x % WARP == 0) {
                    least[candidate] = score_of(floors[candidate]);
                }
            }
        }
        __syncthreads();
    }
};

// Keeps the best behaviours of a piece for each candidate of its tile. `score` computes the scores of the behaviours
// `begin + own · THREADS + thread` with all candidates, and returns a bit for each `own` that is never kept. All threads call
// it together.
template <u32 CANDIDATES, u32 ENTRIES, typename Score>
__device__ __forceinline__ void keep_best(const KeptLists &p, const Piece &piece, Lists<CANDIDATES, ENTRIES> &lists, Score score) {
    constexpr u32 CAPACITY = Lists<CANDIDATES, ENTRIES>::CAPACITY;
    static_assert(CAPACITY % THREADS == 0, "threads go straight to their places together, or none does");
    u32 first_position = piece.history_start - p.tiles[piece.tile].history_start;
    lists.begin(piece);
    for (u32 begin = 0; begin < piece.length; begin += BEHAVIOURS) {
        float scores[CANDIDATES][OWN];
        const u32 removed = score(scores, begin);
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            u32 first = begin + own * THREADS, behaviour = first + threadIdx.x;
            bool there = behaviour < piece.length, stays = !(removed >> own & 1);
            if (first < CAPACITY) {
#pragma unroll
                for (u32 c = 0; c < CANDIDATES; c++) {
                    if (there && c < piece.rows) {
                        u64 entry = entry_of(scores[c][own], first_position + behaviour);
                        lists.entries[c * CAPACITY + behaviour] = stays ? entry : 0;
                    }
                }
                continue;
            }
            // Free a place for an entry per thread.
            lists.cut_longer(CAPACITY - THREADS, p.top_k, p.room);
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                float score = scores[c][own];
                bool wanted = there && stays && !(score < lists.least[c]) && c < piece.rows;
                if (__any_sync(WHOLE_WARP, wanted)) {
                    u64 entry = entry_of(score, first_position + behaviour);
                    append(lists.list(c), wanted && entry >= lists.floors[c], entry);
                }
            }
        }
    }
    lists.cut_longer(p.room, p.top_k, p.room);
    u64 place = piece.slot != NONE ? piece.slot : p.first_whole + piece.tile;
    for (u32 c = threadIdx.x / WARP; c < piece.rows; c += WARPS) {
        u64 at = place * CANDIDATES + c;
        for (u32 i = threadIdx.x % WARP; i < lists.lengths[c]; i += WARP) {
            p.lists[at * p.room + i] = lists.list(c).entries[i];
        }
        if (threadIdx.x % WARP == 0) {
            p.lengths[at] = lists.lengths[c];
        }
    }
}
