// A column of ids in order, with the positions of each: a stable radix sort of (id, position), lowest digit first.
//
// An id outside the table gets the key `rows`, which sorts after all others and is then left out.
//
// sort_load writes the keys. For each digit of up to 8 bits: sort_count counts the digits of each block of 2048 keys, sort_scan adds the
// counts of earlier blocks up, one warp per digit, and sort_scatter moves keys and positions: first within the block, in shared memory,
// then those of equal digits together, so that most writes are coalesced. sort_heads counts the keys of a block
// that differ from the one before, sort_scan adds these counts up, and sort_runs writes ids, starts and positions.
//
// A warp of sort_scatter owns 256 consecutive keys, 32 at a time: lanes with equal digits find each other by one ballot per bit, so that a
// digit that all keys share costs as much as any other, and the rank of a key is the number of such lanes before it. Sums are of integers:
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
    // Counts that a lane of sort_scan has in flight.
    AHEAD = 4,
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
    // Values of the digit, a power of two; 1: heads are counted.
    u32 digits;
    u32 blocks;
    u32 unused;
};

// The lanes before this one.
__device__ __forceinline__ u32 lanes_before() { return (1u << threadIdx.x % WARP) - 1; }

// A bit of a digit as 0 or all ones.
__device__ __forceinline__ u32 spread_bit(u32 digit, u32 bit) {
    u32 out;
    asm("bfe.s32 %0, %1, %2, 1;" : "=r"(out) : "r"(digit), "r"(bit));
    return out;
}

// The lanes of the warp that take part and have the same digit.
__device__ __forceinline__ u32 equal_lanes(u32 digit, bool takes_part) {
    u32 lanes = __ballot_sync(WHOLE_WARP, takes_part);
#pragma unroll
    for (u32 bit = 0; bit < DIGIT_BITS; bit++) {
        u32 own = spread_bit(digit, bit);
        lanes &= ~(__ballot_sync(WHOLE_WARP, own != 0) ^ own);
    }
    return lanes;
}

// The sum of the values of this lane and those before. The whole warp calls it together.
__device__ __forceinline__ u32 sum_up_to(u32 value) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        u32 before = __shfl_up_sync(WHOLE_WARP, value, lanes);
        value += lane >= lanes ? before : 0;
    }
    return value;
}

// The sum of the values of the threads before this one; `total` becomes that of all. All threads call it together.
__device__ __forceinline__ u32 sum_before(u32 value, u32 &total) {
    __shared__ u32 of_warps[WARPS];
    u32 sum = sum_up_to(value), lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
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

__device__ __forceinline__ u32 digit_of(const SortIdsParams &p, u32 key) { return key >> p.shift & (p.digits - 1); }

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
        if (place < p.length) {
            // Lanes that add 1 to the same counter are counted by one instruction.
            atomicAdd(counts + digit_of(p, __ldg(p.from_keys + place)), 1u);
        }
    }
    __syncthreads();
    if (threadIdx.x < p.digits) {
        p.counts[(u64)threadIdx.x * p.blocks + blockIdx.x] = counts[threadIdx.x];
    }
}

// A warp replaces the counts of a digit by the sums of those of earlier blocks.
extern "C" __global__ void __launch_bounds__(THREADS) sort_scan(const SortIdsParams p) {
    const u32 digit = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (digit >= p.digits) {
        return;
    }
    u32 *counts = p.counts + (u64)digit * p.blocks;
    u32 sum = 0;
    for (u32 begin = 0; begin < p.blocks; begin += AHEAD * WARP) {
        const u32 first = begin + threadIdx.x % WARP;
        u32 values[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            values[i] = first + i * WARP < p.blocks ? counts[first + i * WARP] : 0;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 up_to = sum_up_to(values[i]);
            if (first + i * WARP < p.blocks) {
                counts[first + i * WARP] = sum + up_to - values[i];
            }
            sum += __shfl_sync(WHOLE_WARP, up_to, WARP - 1);
        }
    }
    if (threadIdx.x % WARP == 0) {
        p.totals[digit] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_scatter(const SortIdsParams p) {
    // Of each warp: how often it has met a digit, and then where in the block its first key with that digit goes.
    __shared__ u32 places[WARPS][DIGITS];
    // What is added to a key's place in the order of the block.
    __shared__ u32 moves[DIGITS];
    // Keys and positions in that order.
    __shared__ uint2 order[KEYS_PER_BLOCK];
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
        u32 *met = places[warp] + digit_of(p, keys[step]), before = *met;
        u32 equal = equal_lanes(digit_of(p, keys[step]), is_key), earlier = equal & lanes_before();
        ranks[step] = before + __popc(earlier);
        __syncwarp();
        if (is_key && earlier == 0) {
            *met = before + __popc(equal);
        }
        __syncwarp();
    }
    __syncthreads();
    const bool is_digit = threadIdx.x < p.digits;
    u32 count = 0, total;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        u32 of_warp = places[w][threadIdx.x];
        places[w][threadIdx.x] = count;
        count += of_warp;
    }
    const u32 in_block = sum_before(count, total);
    u32 move = sum_before(is_digit ? __ldg(p.totals + threadIdx.x) : 0, total) - in_block;
    if (is_digit) {
        move += p.counts[(u64)threadIdx.x * p.blocks + blockIdx.x];
    }
    moves[threadIdx.x] = move;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        places[w][threadIdx.x] += in_block;
    }
    __syncthreads();
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u64 from = first + step * WARP;
        if (from < p.length) {
            u32 position = p.from_positions ? __ldg(p.from_positions + from) : (u32)from;
            order[places[warp][digit_of(p, keys[step])] + ranks[step]] = make_uint2(keys[step], position);
        }
    }
    __syncthreads();
    const u64 left = p.length - (u64)blockIdx.x * KEYS_PER_BLOCK;
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        const u32 place = step * THREADS + threadIdx.x;
        if (place < left) {
            const uint2 one = order[place];
            const u32 to = moves[digit_of(p, one.x)] + place;
            p.to_keys[to] = one.x;
            p.to_positions[to] = one.y;
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
