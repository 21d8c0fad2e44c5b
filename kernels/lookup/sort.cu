// A column of ids in order, with the positions of each: a stable radix sort of (id, position), lowest digit first.
//
// An id outside the table gets the key `rows`, which sorts after all others and is then left out.
//
// sort_load writes the keys. For each digit of 8 bits: sort_count counts the digits of each block of 2048 keys, sort_scan adds the
// counts of earlier blocks up, one block per digit, and sort_scatter moves keys and positions. sort_heads counts the keys of a block
// that differ from the one before, sort_scan adds these counts up, and sort_runs writes ids, starts and positions.
//
// A warp owns 256 consecutive keys, 32 at a time: lanes with equal digits find each other by one ballot per bit, so that a digit that
// all keys share costs as much as any other, and the rank of a key is the number of such lanes before it. Sums are of integers:
// their order does not matter.
#include "shared/common.cuh"

enum : u32 {
    THREADS = 256,
    WARPS = THREADS / WARP,
    DIGITS = 256,
    DIGIT_BITS = 8,
    // Keys of a lane.
    STEPS = 8,
    KEYS_PER_WARP = WARP * STEPS,
    KEYS_PER_BLOCK = WARPS * KEYS_PER_WARP,
};
static_assert(KEYS_PER_BLOCK == 2048 && DIGITS == THREADS, "src/cuda/lookup/sort.rs");

struct SortIdsParams {
    const u32 *ids;
    // Ids of later positions.
    const u32 *more_ids;
    // The records for ids outside the table; null: not reported.
    u64 *record, *more_record;
    const u32 *from_keys;
    // Null: positions are the places of the keys.
    const u32 *from_positions;
    u32 *to_keys, *to_positions;
    // [digits, blocks], and the sum of each digit.
    u32 *counts, *totals;
    u32 *out_ids, *out_starts, *out_positions, *out_count;
    // Of the table.
    u64 rows;
    // Positions of `ids`, and of both.
    u32 first, length;
    u32 features, feature;
    // Bits below the digit.
    u32 shift;
    u32 blocks;
};

// The lanes before this one.
__device__ __forceinline__ u32 lanes_before() { return (1u << threadIdx.x % WARP) - 1; }

// The lanes of the warp that take part and have the same digit.
__device__ __forceinline__ u32 equal_lanes(u32 digit, bool takes_part) {
    u32 lanes = __ballot_sync(WHOLE_WARP, takes_part);
#pragma unroll
    for (u32 bit = 0; bit < DIGIT_BITS; bit++) {
        bool is_set = digit >> bit & 1;
        u32 set = __ballot_sync(WHOLE_WARP, is_set);
        lanes &= is_set ? set : ~set;
    }
    return lanes;
}

// The sum of the values of the threads before this one; `total` becomes that of all. All threads call it together.
__device__ __forceinline__ u32 sum_before(u32 value, u32 &total) {
    __shared__ u32 of_warps[WARPS];
    u32 sum = value, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        u32 before = __shfl_up_sync(WHOLE_WARP, sum, lanes);
        sum += lane >= lanes ? before : 0;
    }
    // What an earlier call wrote has been read.
    __syncthreads();
    if (lane == WARP - 1) {
        of_warps[warp] = sum;
    }
    __syncthreads();
    total = 0;
    u32 earlier = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        earlier += w < warp ? of_warps[w] : 0;
        total += of_warps[w];
    }
    return earlier + sum - value;
}

// The place of the first key of this lane.
__device__ __forceinline__ u64 first_place() {
    return (u64)blockIdx.x * KEYS_PER_BLOCK + threadIdx.x / WARP * KEYS_PER_WARP + threadIdx.x % WARP;
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_load(const SortIdsParams p) {
    u64 place = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (place >= p.length) {
        return;
    }
    const bool is_later = place >= p.first;
    u64 at = (is_later ? place - p.first : place) * p.features + p.feature;
    u32 id = __ldg((is_later ? p.more_ids : p.ids) + at);
    u64 *record = is_later ? p.more_record : p.record;
    if (id >= p.rows) {
        if (record) {
            report_bad_id(record, at, id);
        }
        id = (u32)p.rows;
    }
    p.to_keys[place] = id;
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_count(const SortIdsParams p) {
    __shared__ u32 counts[DIGITS];
    counts[threadIdx.x] = 0;
    __syncthreads();
    const u64 first = first_place();
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u64 place = first + step * WARP;
        bool is_key = place < p.length;
        u32 digit = is_key ? __ldg(p.from_keys + place) >> p.shift & (DIGITS - 1) : 0;
        u32 equal = equal_lanes(digit, is_key);
        if (is_key && (equal & lanes_before()) == 0) {
            atomicAdd(counts + digit, (u32)__popc(equal));
        }
    }
    __syncthreads();
    p.counts[(u64)threadIdx.x * p.blocks + blockIdx.x] = counts[threadIdx.x];
}

// Block d replaces the counts of digit d by the sums of those of earlier blocks.
extern "C" __global__ void __launch_bounds__(THREADS) sort_scan(const SortIdsParams p) {
    u32 *counts = p.counts + (u64)blockIdx.x * p.blocks;
    u32 sum = 0;
    for (u32 begin = 0; begin < p.blocks; begin += THREADS) {
        u32 at = begin + threadIdx.x, total;
        u32 value = at < p.blocks ? counts[at] : 0;
        u32 before = sum_before(value, total);
        if (at < p.blocks) {
            counts[at] = sum + before;
        }
        sum += total;
    }
    if (threadIdx.x == 0) {
        p.totals[blockIdx.x] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_scatter(const SortIdsParams p) {
    // Of each warp: how often it has met a digit, and then where its first key with that digit goes.
    __shared__ u32 places[WARPS][DIGITS];
    const u32 warp = threadIdx.x / WARP;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        places[w][threadIdx.x] = 0;
    }
    __syncthreads();
    const u64 first = first_place();
    u32 keys[STEPS], ranks[STEPS];
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u64 place = first + step * WARP;
        bool is_key = place < p.length;
        keys[step] = is_key ? __ldg(p.from_keys + place) : 0;
        u32 digit = keys[step] >> p.shift & (DIGITS - 1), equal = equal_lanes(digit, is_key);
        ranks[step] = places[warp][digit] + __popc(equal & lanes_before());
        __syncwarp();
        if (is_key && (equal & lanes_before()) == 0) {
            places[warp][digit] += __popc(equal);
        }
        __syncwarp();
    }
    u32 total, place = sum_before(__ldg(p.totals + threadIdx.x), total);
    place += p.counts[(u64)threadIdx.x * p.blocks + blockIdx.x];
    // sum_before has synchronised.
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        u32 count = places[w][threadIdx.x];
        places[w][threadIdx.x] = place;
        place += count;
    }
    __syncthreads();
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u64 from = first + step * WARP;
        if (from < p.length) {
            u32 to = places[warp][keys[step] >> p.shift & (DIGITS - 1)] + ranks[step];
            p.to_keys[to] = keys[step];
            p.to_positions[to] = p.from_positions ? __ldg(p.from_positions + from) : (u32)from;
        }
    }
}

// Whether the key at a place is of the table and differs from the one before.
__device__ __forceinline__ bool is_head(const SortIdsParams &p, u64 place) {
    if (place >= p.length) {
        return false;
    }
    u32 key = __ldg(p.from_keys + place);
    return key < p.rows && (place == 0 || __ldg(p.from_keys + place - 1) != key);
}

// The heads of the warp before each step, and their number.
__device__ __forceinline__ u32 heads_of_steps(const SortIdsParams &p, u32 *heads) {
    const u64 first = first_place();
    u32 count = 0;
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        heads[step] = __ballot_sync(WHOLE_WARP, is_head(p, first + step * WARP));
        count += __popc(heads[step]);
    }
    return count;
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_heads(const SortIdsParams p) {
    u32 heads[STEPS], total;
    u32 count = heads_of_steps(p, heads);
    sum_before(threadIdx.x % WARP == 0 ? count : 0, total);
    if (threadIdx.x == 0) {
        p.counts[blockIdx.x] = total;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_runs(const SortIdsParams p) {
    const u32 runs = p.totals[0];
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        p.out_count[0] = runs;
        if (runs == 0) {
            p.out_starts[0] = 0;
        }
    }
    u32 heads[STEPS], total, lane = threadIdx.x % WARP;
    u32 count = heads_of_steps(p, heads);
    // Of earlier warps: the last lane alone stands for its warp.
    u32 before = sum_before(lane == WARP - 1 ? count : 0, total);
    if (blockIdx.x < p.blocks) {
        before += p.counts[blockIdx.x];
    }
    const u64 first = first_place();
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u64 place = first + step * WARP;
        u32 key = place < p.length ? __ldg(p.from_keys + place) : 0;
        if (place < p.length && key < p.rows) {
            p.out_positions[place] = __ldg(p.from_positions + place);
            u32 run = before + __popc(heads[step] & lanes_before());
            if (heads[step] >> lane & 1) {
                p.out_ids[run] = key;
                p.out_starts[run] = (u32)place;
            }
            if (place + 1 == p.length || __ldg(p.from_keys + place + 1) >= p.rows) {
                p.out_starts[runs] = (u32)place + 1;
            }
        }
        before += __popc(heads[step]);
    }
}
