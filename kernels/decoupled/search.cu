// Search among behaviours: the K with the highest scores for each candidate (scores: scores.cuh), by descending score, then
// ascending position, NaN last. Scores never reach device memory.
//
// decoupled_search: a block takes a tile of candidates and a span of their user's history. Each candidate has a list in shared
// memory and a floor: entries below it cannot be among the best K, and are not stored. As long as a list has room, entries go
// straight to their places. Before it could overflow, a warp raises the floor and drops the entries below, by bisection of
// their bits, without sorting. The lists of the spans of a history hold at least the best K of each, in any order.
// decoupled_select, a block per candidate, reads them in the same way into one list, and sorts the rest of it.
// Variants: 16, 8, 4 or 2 candidates, which share 4096 entries: more candidates for smaller K.
#include "decoupled/lists.cuh"
#include "decoupled/scores.cuh"

enum : u32 {
    // Over all lists of a block.
    ENTRIES = 4096,
    SELECT_THREADS = 256,
    // Entries of the list of decoupled_select, and how many it reads at a time: as many as fit beside the largest K.
    SELECT_ENTRIES = 2048,
    SELECT_STEP = 1024,
};

struct DecoupledSearchParams {
    const Piece *pieces;
    const Tile *tiles;
    // [places, candidates per tile, room], and their lengths [places, candidates per tile].
    u64 *lists;
    u32 *lengths;
    u32 top_k;
    // The most entries per list that are left for decoupled_select.
    u32 room;
    // Where the lists of pieces without a slot begin.
    u32 first_whole;
    u32 unused;
    Scoring scoring;
};

struct DecoupledSelectParams {
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

// Raises the floor of a list of more than `room` entries until at most that many, and at least `top_k`, are left; drops
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

// The lists of a block, and for each the score below which no entry is needed, which is compared first.
template <u32 CANDIDATES>
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

template <u32 CANDIDATES>
__device__ __forceinline__ void search(const DecoupledSearchParams &p) {
    constexpr u32 CAPACITY = Lists<CANDIDATES>::CAPACITY;
    static_assert(CAPACITY % THREADS == 0, "threads go straight to their places together, or none does");
    Lists<CANDIDATES> &lists = *(Lists<CANDIDATES> *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x];
    Stage stage = stage_at(&lists + 1, p.scoring);
    send_first(p.scoring, stage, piece);
    u32 first_position = piece.history_start - p.tiles[piece.tile].history_start;
    lists.begin(piece);
    for (u32 begin = 0; begin < piece.length; begin += BEHAVIOURS) {
        float scores[CANDIDATES][OWN];
        score<CANDIDATES>(scores, p.scoring, stage, piece, begin);
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            u32 first = begin + own * THREADS, behaviour = first + threadIdx.x;
            bool there = behaviour < piece.length;
            if (first < CAPACITY) {
#pragma unroll
                for (u32 c = 0; c < CANDIDATES; c++) {
                    if (there && c < piece.rows) {
                        lists.entries[c * CAPACITY + behaviour] = entry_of(scores[c][own], first_position + behaviour);
                    }
                }
                continue;
            }
            // Make room for an entry per thread.
            lists.cut_longer(CAPACITY - THREADS, p.top_k, p.room);
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                float score = scores[c][own];
                bool wanted = there && !(score < lists.least[c]) && c < piece.rows;
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

LAYOUT(decoupled_search_16, sizeof(Lists<16>), stage_bytes(1, 16), stage_bytes(3, 16), stage_bytes(40, 16));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_16(const DecoupledSearchParams p) { search<16>(p); }
LAYOUT(decoupled_search_8, sizeof(Lists<8>), stage_bytes(1, 8), stage_bytes(3, 8), stage_bytes(40, 8));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_8(const DecoupledSearchParams p) { search<8>(p); }
LAYOUT(decoupled_search_4, sizeof(Lists<4>), stage_bytes(1, 4), stage_bytes(3, 4), stage_bytes(40, 4));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_4(const DecoupledSearchParams p) { search<4>(p); }
LAYOUT(decoupled_search_2, sizeof(Lists<2>), stage_bytes(1, 2), stage_bytes(3, 2), stage_bytes(40, 2));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_2(const DecoupledSearchParams p) { search<2>(p); }

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

// The shared memory of decoupled_select.
struct Selecting {
    u64 entries[SELECT_ENTRIES];
    u64 floor;
    u32 length;
    // Counts of the rounds of a cut, three in turn: one is added to, one is read, one is reset.
    u32 counts[3];
    u32 least, most;
};

// Like cut, for a list that may have empty places, by all threads together. If no more than `room` entries are left without
// these, the floor stays: fewer than `top_k` may have been found so far.
__device__ __forceinline__ void cut_together(Selecting &s, u32 top_k, u32 room) {
    constexpr u32 OWN = SELECT_ENTRIES / SELECT_THREADS;
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

extern "C" __global__ void __launch_bounds__(SELECT_THREADS) decoupled_select(const DecoupledSelectParams p) {
    __shared__ Selecting s;
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
    sort(s.entries, length);
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
