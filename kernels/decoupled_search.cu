// Search among behaviours: the K of highest score of each candidate (scores: decoupled_scores.cuh), score descending,
// then position ascending, NaN last. Scores never reach device memory.
//
// decoupled_search: a block takes a tile of candidates and a part of their user's history. Each candidate has a list in
// shared memory and a floor: entries below it cannot be among the best K, and are not stored. Before a list could
// overflow, a warp raises its floor and drops what is below, by bisection of the entries' bits: no sorting. Lists of
// the parts of a history hold at least each part's best K, in any order; decoupled_select, a block a candidate, finds
// the best K of them all, and sorts them.
//
// An entry is 64 bits that order as it should: a key of the score, then the position, inverted. Its key: the bits of
// the score, made to order like unsigned integers; -0 counts as +0; NaN has the lowest key, 0. As this order is total,
// what comes out does not depend on who was first.
// Variants: 16, 8, 4 or 2 candidates, with lists of 4096 entries together: more of them for smaller K.
#include "decoupled_scores.cuh"

enum : u32 {
    // Of all lists of a block.
    ENTRIES = 4096,
    SELECT_THREADS = 256,
    // Entries of decoupled_select's list, and those that it reads at a time: as many as the largest K leaves room for.
    SELECT_ENTRIES = 2048,
    SELECT_STEP = 1024,
};

struct SearchParams {
    const Piece *pieces;
    const Tile *tiles;
    // [places, candidates of a tile, room], and how many there are: [places, candidates of a tile].
    u64 *lists;
    u32 *lengths;
    u32 top_k;
    // The most entries of a list that is left for decoupled_select.
    u32 room;
    // Where the lists of pieces begin that are their tile's only ones.
    u32 first_whole;
    u32 unused;
    Scoring scoring;
};

struct SelectParams {
    const Tile *tiles;
    const u64 *lists;
    const u32 *lengths;
    u32 *positions;
    float *scores;
    u32 *counts;
    // Candidates of a tile.
    u32 candidates;
    u32 top_k, room, first_whole;
};

__device__ __forceinline__ u64 entry_of(float score, u32 position) {
    u32 bits = __float_as_uint(score), magnitude = bits & 0x7fffffffu;
    u32 key = bits >> 31 ? ~bits : bits | 0x80000000u;
    if (magnitude == 0) {
        key = 0x80000000u;
    } else if (magnitude > 0x7f800000u) {
        key = 0;
    }
    return (u64)key << 32 | ~position;
}

__device__ __forceinline__ float score_of(u64 entry) {
    u32 key = entry >> 32;
    return __uint_as_float(key == 0 ? 0x7fc00000u : key >> 31 ? key & 0x7fffffffu : ~key);
}

// A list of entries in shared memory.
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

// Raises the floor until at most `room` entries are above it, and at least `top_k`; drops those below. One warp calls
// it for a list of more than `room`.
__device__ void cut(const List &list, u32 top_k, u32 room) {
    u32 lane = threadIdx.x % WARP, length = *list.length;
    u64 floor = 0;
    for (u64 bit = 1ull << 63; bit != 0; bit >>= 1) {
        u32 above = 0;
        for (u32 i = lane; i < length; i += WARP) {
            above += list.entries[i] >= (floor | bit);
        }
        above = __reduce_add_sync(WHOLE_WARP, above);
        if (above >= top_k) {
            floor |= bit;
            if (above <= room) {
                break;
            }
        }
    }
    // In place: entries move to the front, and a step's have been read before any is written.
    u32 kept = 0;
    for (u32 begin = 0; begin < length; begin += WARP) {
        u64 entry = begin + lane < length ? list.entries[begin + lane] : 0;
        u32 votes = __ballot_sync(WHOLE_WARP, entry != 0 && entry >= floor);
        __syncwarp();
        if (votes >> lane & 1) {
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

// The lists of a block, and for each the score below which nothing can be wanted, to look at before anything else.
template <u32 CANDIDATES>
struct alignas(16) Lists {
    u64 entries[ENTRIES];
    u64 floors[CANDIDATES];
    u32 lengths[CANDIDATES];
    float least[CANDIDATES];

    enum : u32 { CAPACITY = ENTRIES / CANDIDATES };

    __device__ __forceinline__ List list(u32 candidate) {
        return List{entries + candidate * CAPACITY, lengths + candidate, floors + candidate};
    }

    __device__ __forceinline__ void clear() {
        if (threadIdx.x < CANDIDATES) {
            floors[threadIdx.x] = 0;
            lengths[threadIdx.x] = 0;
            // Nothing is less than NaN.
            least[threadIdx.x] = __uint_as_float(0x7fc00000u);
        }
    }

    // Cuts the lists that are longer than `longest`. All threads call it together.
    __device__ __forceinline__ void cut_longer(u32 longest, u32 top_k, u32 room) {
        __syncthreads();
        for (u32 candidate = threadIdx.x / WARP; candidate < CANDIDATES; candidate += WARPS) {
            if (lengths[candidate] > longest) {
                cut(list(candidate), top_k, room);
                if (threadIdx.x % WARP == 0) {
                    least[candidate] = score_of(floors[candidate]);
                }
            }
        }
        __syncthreads();
    }
};

static_assert(sizeof(Lists<2>) == ENTRIES * 8 + 2 * 16, "src/cuda/decoupled.rs counts on it");

template <u32 CANDIDATES>
__device__ __forceinline__ void search(const SearchParams &p) {
    Lists<CANDIDATES> &lists = *(Lists<CANDIDATES> *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x];
    u32 columns = min((u32)FOURS, p.scoring.fours), stride = BEHAVIOURS + padding(columns);
    Four *staged = (Four *)(&lists + 1);
    const Stage stage = {staged, staged + columns * stride, stride};
    u32 first_position = piece.history_start - p.tiles[piece.tile].history_start;
    lists.clear();
    for (u32 begin = 0; begin < piece.length; begin += BEHAVIOURS) {
        float scores[CANDIDATES][OWN];
        score<CANDIDATES>(scores, p.scoring, stage, piece, begin);
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            // Room for an entry of every thread.
            lists.cut_longer(Lists<CANDIDATES>::CAPACITY - THREADS, p.top_k, p.room);
            u32 behaviour = begin + own * THREADS + threadIdx.x;
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                float score = scores[c][own];
                bool wanted = behaviour < piece.length && !(score < lists.least[c]) && c < piece.rows;
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

extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_16(const SearchParams p) { search<16>(p); }
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_8(const SearchParams p) { search<8>(p); }
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_4(const SearchParams p) { search<4>(p); }
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_2(const SearchParams p) { search<2>(p); }

// Sorts, highest first; a bitonic sort of as many places as there are entries, rounded up to a power of two. All
// threads call it together.
__device__ void sort(u64 *entries, u32 length) {
    u32 places = length > 1 ? 1u << (32 - __clz(length - 1)) : 1;
    for (u32 i = length + threadIdx.x; i < places; i += SELECT_THREADS) {
        entries[i] = 0;
    }
    __syncthreads();
    for (u32 size = 2; size <= places; size *= 2) {
        for (u32 distance = size / 2; distance > 0; distance /= 2) {
            for (u32 pair = threadIdx.x; pair < places / 2; pair += SELECT_THREADS) {
                u32 low = 2 * pair - (pair & (distance - 1)), high = low + distance;
                u64 a = entries[low], b = entries[high];
                if ((a < b) == ((low & size) == 0)) {
                    entries[low] = b;
                    entries[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS) decoupled_select(const SelectParams p) {
    __shared__ u64 entries[SELECT_ENTRIES];
    __shared__ u64 floor;
    __shared__ u32 length;
    const Tile &tile = p.tiles[blockIdx.x / p.candidates];
    u32 row = blockIdx.x % p.candidates;
    if (row >= tile.rows) {
        return;
    }
    if (threadIdx.x == 0) {
        floor = 0;
        length = 0;
    }
    u32 parts = max(tile.slots, 1u);
    u64 first = tile.slots == 0 ? p.first_whole + blockIdx.x / p.candidates : tile.first_slot;
    u64 all = (u64)parts * p.room;
    const List list = {entries, &length, &floor};
    for (u64 begin = 0; begin < all; begin += SELECT_STEP) {
        __syncthreads();
        for (u32 step = 0; step < SELECT_STEP; step += SELECT_THREADS) {
            u64 i = begin + step + threadIdx.x, at = (first + i / p.room) * p.candidates + row;
            u32 place = i % p.room;
            u64 entry = i < all && place < p.lengths[at] ? p.lists[at * p.room + place] : 0;
            append(list, entry > floor, entry);
        }
        __syncthreads();
        if (length > SELECT_ENTRIES - SELECT_STEP) {
            sort(entries, length);
            if (threadIdx.x == 0) {
                length = p.top_k;
                floor = entries[p.top_k - 1];
            }
        }
    }
    __syncthreads();
    sort(entries, length);
    u64 m = tile.first_target + tile.first_row + row;
    for (u32 place = threadIdx.x; place < p.top_k; place += SELECT_THREADS) {
        bool filled = place < length;
        p.positions[m * p.top_k + place] = filled ? ~(u32)entries[place] : NONE;
        p.scores[m * p.top_k + place] = filled ? score_of(entries[place]) : -infinity();
    }
    if (threadIdx.x == 0) {
        p.counts[m] = min(length, p.top_k);
    }
}
