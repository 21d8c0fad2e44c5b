// Interest channels: each behaviour goes to the one of a candidate's axes (axes.cu) that it points along most, and each axis pools its
// best behaviours:
//
//     A_li = ⟨e_l, O_i⟩        channel(l) = argmax_i A_li        r_i = (1/L) Σ_{l in kept_i} A_li·e_l        out = r_i, or r_i/max(‖r_i‖, 1e-12)
//
// channels_route (route.cu) writes where each behaviour goes, and the key of its score there or, where channels keep the best among all,
// along every axis.
// channels_select: a block per channel. An entry is the key of a score and the inverted position, so that the highest entry is the best
//   (selection/lists.cuh). With more entries than are kept, the lowest that is kept is found 8 bits at a time, from counts of digits;
//   those from there on are collected and sorted. Among all, those that go to other channels are left out then.
// channels_pool_T: a block per channel adds up the rows that are kept, groups of lanes taking rows in turn (selected/rows.cuh). Sums have
//   a fixed order.
#include "interest_channels/pool.cuh"
#include "selection/select.cuh"

// ---- What channels keep --------------------------------------------------------------------------------------------

enum : u32 {
    SELECT_THREADS = 512,
    SELECT_WARPS = SELECT_THREADS / WARP,
    // The most entries that are sorted in shared memory.
    SHARED_ENTRIES = 2048,
    DIGIT_BITS = 8,
    DIGITS = 1 << DIGIT_BITS,
};

struct ChannelsSelectParams {
    // [candidates]: their users' histories, and their pairs with the first behaviour.
    const Tile *tiles;
    const u64 *first_pairs;
    // What channels_route wrote and read.
    const u32 *keys;
    const u32 *routed;
    const u32 *states;
    // [candidates, c, pitch], of which the slots after the last are filled; scores may be null. [candidates, c].
    u32 *positions;
    float *scores;
    u32 *counts;
    // [candidates, c, top_k]: A/L; not written after the last.
    float *weights;
    // [candidates, c, places]; null: in shared memory.
    u64 *entries;
    u32 channels;
    // The most that a channel keeps, no more than the longest history has.
    u32 top_k;
    u32 pitch, places;
    u32 all;
    u32 unused;
};

// The shared memory of a block.
struct Selected {
    u64 entries[SHARED_ENTRIES];
    u32 counts[DIGITS];
    u32 of_warps[SELECT_WARPS];
    // Entries so far; the digit that was found, how many entries have a higher one, and how many have it.
    u32 length, digit, above, equal;
};

// The entries that a channel chooses from.
struct Channel {
    const u32 *keys;
    const u32 *routed;
    u32 length, channel;
    bool all;

    __device__ __forceinline__ bool goes_here(u32 position) const { return __ldg(routed + position) == channel; }
    // 0: none.
    __device__ __forceinline__ u64 entry(u32 position) const {
        const bool is_one = position < length && (all || goes_here(position));
        return is_one ? (u64)__ldg(keys + position) << 32 | ~position : 0;
    }
};

// How many threads before this one take part; `total`: of all. All threads call it together.
__device__ __forceinline__ u32 threads_before(Selected &s, bool takes_part, u32 &total) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 votes = __ballot_sync(WHOLE_WARP, takes_part);
    // What an earlier call wrote has been read.
    __syncthreads();
    if (lane == 0) {
        s.of_warps[warp] = __popc(votes);
    }
    __syncthreads();
    u32 before = __popc(votes & ((1u << lane) - 1));
    total = 0;
#pragma unroll
    for (u32 w = 0; w < SELECT_WARPS; w++) {
        before += w < warp ? s.of_warps[w] : 0;
        total += s.of_warps[w];
    }
    return before;
}

// The highest digit that no more than `wanted` entries exceed, of those counted; a warp finds it.
__device__ __forceinline__ void find_digit(Selected &s, u32 wanted) {
    constexpr u32 EACH = DIGITS / WARP;
    const u32 lane = threadIdx.x, first = DIGITS - 1 - lane * EACH;
    u32 sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        sum += s.counts[first - i];
    }
    u32 up_to = sum;
#pragma unroll
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        const u32 before = __shfl_up_sync(WHOLE_WARP, up_to, lanes);
        up_to += lane >= lanes ? before : 0;
    }
    u32 above = up_to - sum;
    if (above < wanted && up_to >= wanted) {
        for (u32 digit = first;; digit--) {
            const u32 equal = s.counts[digit];
            if (above + equal >= wanted) {
                s.digit = digit, s.above = above, s.equal = equal;
                break;
            }
            above += equal;
        }
    }
}

// The lowest of the `top_k` highest entries, of which there are more. All threads call it together.
__device__ __forceinline__ u64 lowest_kept(Selected &s, const Channel &channel, u32 top_k) {
    u64 prefix = 0;
    u32 wanted = top_k;
    for (u32 shift = 64 - DIGIT_BITS;; shift -= DIGIT_BITS) {
        for (u32 digit = threadIdx.x; digit < DIGITS; digit += SELECT_THREADS) {
            s.counts[digit] = 0;
        }
        __syncthreads();
        for (u32 position = threadIdx.x; position < channel.length; position += SELECT_THREADS) {
            const u64 entry = channel.entry(position);
            // In two steps: a shift by all 64 bits is not defined.
            if (entry != 0 && entry >> shift >> DIGIT_BITS == prefix) {
                atomicAdd(s.counts + (u32)(entry >> shift) % DIGITS, 1u);
            }
        }
        __syncthreads();
        if (threadIdx.x < WARP) {
            find_digit(s, wanted);
        }
        __syncthreads();
        prefix = prefix << DIGIT_BITS | s.digit;
        wanted -= s.above;
        // All with these bits are kept. Entries differ, so that with all bits there is one.
        if (s.equal == wanted || shift == 0) {
            return prefix << shift;
        }
    }
}

// Writes the sorted entries that go to the channel, and returns how many these are.
__device__ __forceinline__ u32 write_kept(
    const ChannelsSelectParams &p, Selected &s, const Channel &channel, const u64 *entries, u32 length) {
    const u64 list = blockIdx.x;
    u32 kept = 0;
    for (u32 begin = 0; begin < length; begin += SELECT_THREADS) {
        const u32 at = begin + threadIdx.x;
        const u64 entry = at < length ? entries[at] : 0;
        const u32 position = ~(u32)entry;
        const bool keeps = entry != 0 && (!channel.all || channel.goes_here(position));
        u32 total;
        const u32 slot = kept + threads_before(s, keeps, total);
        if (keeps) {
            const float score = score_of(entry);
            p.positions[list * p.pitch + slot] = position;
            p.weights[list * p.top_k + slot] = score / (float)channel.length;
            if (p.scores) {
                p.scores[list * p.pitch + slot] = score;
            }
        }
        kept += total;
    }
    return kept;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS) channels_select(const ChannelsSelectParams p) {
    __shared__ Selected s;
    const u64 list = blockIdx.x;
    const u32 target = list / p.channels, own = list % p.channels;
    const Tile tile = p.tiles[target];
    const u32 history = tile.history_end - tile.history_start;
    const u64 pair = p.first_pairs[target];
    const u64 first_key = p.all ? pair * p.channels + (u64)own * history : pair;
    const bool is_channel = p.states[list] == IS_CHANNEL;
    const Channel channel = {p.keys + first_key, p.routed + pair, is_channel ? history : 0, own, p.all != 0};
    u32 count = 0, kept = 0;
    for (u32 begin = 0; begin < channel.length; begin += SELECT_THREADS) {
        count += __syncthreads_count(channel.entry(begin + threadIdx.x) != 0);
    }
    const u64 lowest = count > p.top_k ? lowest_kept(s, channel, p.top_k) : 1;
    if (threadIdx.x == 0) {
        s.length = 0;
    }
    __syncthreads();
    u64 *entries = p.entries ? p.entries + list * p.places : s.entries;
    const List all = {entries, &s.length, nullptr};
    for (u32 begin = 0; begin < channel.length; begin += SELECT_THREADS) {
        const u64 entry = channel.entry(begin + threadIdx.x);
        append(all, entry >= lowest, entry);
    }
    __syncthreads();
    const u32 length = s.length;
    if (length > 0) {
        sort<SELECT_THREADS>(entries, length);
        kept = write_kept(p, s, channel, entries, length);
    }
    for (u32 slot = kept + threadIdx.x; slot < p.pitch; slot += SELECT_THREADS) {
        p.positions[list * p.pitch + slot] = NONE;
        if (p.scores) {
            p.scores[list * p.pitch + slot] = -infinity();
        }
    }
    if (threadIdx.x == 0) {
        p.counts[list] = kept;
    }
}

// ---- The output ----------------------------------------------------------------------------------------------------

struct ChannelsPoolParams {
    // [candidates].
    const Tile *tiles;
    // [N, d].
    const void *history;
    const u32 *states;
    // What channels_select wrote.
    const u32 *positions;
    const u32 *counts;
    const float *weights;
    // [candidates, c, d]: r, where it is to be divided by its length; otherwise null.
    float *sums;
    // [candidates, c, d].
    void *out;
    u32 channels, width;
    // Slots of a channel in positions, and in weights.
    u32 pitch, top_k;
};

template <typename T>
__device__ __forceinline__ void pool(const ChannelsPoolParams &p) {
    constexpr u32 PER = PER_VECTOR<T>;
    const u64 list = blockIdx.x;
    const Tile &tile = p.tiles[list / p.channels];
    const KeptRows rows = whole_rows<T>(p.history, tile.history_start, p.width);
    const bool is_finite_candidate = p.states[list] != NOT_FINITE;
    T *out = (T *)p.out + list * p.width;
    float *sums = p.sums ? p.sums + list * p.width : nullptr;
    for (u32 first = 0; first < rows.vectors; first += rows.lanes) {
        const u32 vector = first + rows.lane();
        float sum[PER];
        sum_rows<T>(rows, vector, p.positions + list * p.pitch, p.weights + list * p.top_k, p.counts[list], sum);
        over_groups<PER>(sum, rows.lanes, (float *)dynamic_shared);
        if (threadIdx.x < rows.lanes && vector < rows.vectors) {
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                sum[e] = is_finite_candidate ? sum[e] : not_a_number();
            }
            if (sums) {
                store_numbers<PER>(sums, vector, p.width, sum);
            } else {
                store_part<T>(out, vector, p.width, sum);
            }
        }
    }
    if (!sums) {
        return;
    }
    __syncthreads();
    const double norm = norm_of(sums, p.width);
    const bool is_finite_norm = norm <= (double)largest() * (double)largest();
    for (u32 column = threadIdx.x; column < p.width; column += blockDim.x) {
        const float number = (float)((double)sums[column] / (norm > MIN_NORM ? norm : MIN_NORM));
        out[column] = narrow<T>(is_finite_norm ? number : not_a_number());
    }
}

#define POOL(T)                                                                                         \
    LAYOUT(channels_pool_##T, 32 * PER_VECTOR<T> * sizeof(float), 256 * PER_VECTOR<T> * sizeof(float)); \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 3) channels_pool_##T(const ChannelsPoolParams p) { pool<T>(p); }

POOL(f32)
POOL(f16)
POOL(bf16)
