// What searches by every score share, and those that need no rows of numbers.
//
// search_select, search_select_many: the best of the lists of all spans (selection/select.cuh), for K of up to 1024 and 4096.
// search_newest: the newest K behaviours whose key is the candidate's. A block takes a candidate and reads keys from the newest
// on, 2048 at a time, of which each warp takes 256 adjacent ones, until K are found.
// pack_signs: bit i of a row is 1 where ⟨x, R[:,i]⟩ > 0. A block takes 64 rows and a word of each, a warp eight rows, a lane a bit;
// f32 multiply-adds in the order of the columns. A ballot makes the word.
#include "selection/select.cuh"

extern "C" __global__ void __launch_bounds__(256) search_select(const SelectParams p) {
    __shared__ Selecting<256> s;
    select(s, p);
}

LAYOUT(search_select_many, sizeof(Selecting<1024>));
extern "C" __global__ void __launch_bounds__(1024) search_select_many(const SelectParams p) {
    select(*(Selecting<1024> *)dynamic_shared, p);
}

enum : u32 {
    NEWEST_THREADS = 256,
    NEWEST_WARPS = NEWEST_THREADS / WARP,
    // Keys that a thread has in flight.
    NEWEST_AHEAD = 8,
    // Keys of a warp, and of a block, at a time.
    WARP_KEYS = NEWEST_AHEAD * WARP,
    NEWEST_KEYS = NEWEST_AHEAD * NEWEST_THREADS,
};

struct SearchNewestParams {
    // One candidate each.
    const Tile *tiles;
    const u32 *queries;
    const u32 *keys;
    u32 *positions;
    float *scores;
    u32 *counts;
    u32 top_k;
    u32 unused;
};

extern "C" __global__ void __launch_bounds__(NEWEST_THREADS) search_newest(const SearchNewestParams p) {
    // Two in turn: one is written while the other may still be read.
    __shared__ u32 found[2][NEWEST_WARPS];
    const Tile tile = p.tiles[blockIdx.x];
    const u64 m = tile.first_target + tile.first_row;
    const u32 query = p.queries[m], lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 kept = 0, turn = 0;
    // Ends are multiples of a warp, so that its loads are aligned.
    for (u64 end = (tile.history_end + WARP - 1) / WARP * WARP; end > tile.history_start && kept < p.top_k; turn ^= 1) {
        // The newest key of this lane comes first.
        const u64 last = end - 1 - warp * WARP_KEYS - lane;
        u32 keys[NEWEST_AHEAD], votes[NEWEST_AHEAD], own = 0;
#pragma unroll
        for (u32 i = 0; i < NEWEST_AHEAD; i++) {
            // Before the first key, this wraps around.
            u64 at = last - i * WARP;
            bool there = at < tile.history_end && at >= tile.history_start;
            keys[i] = there ? __ldg(p.keys + at) : ~query;
        }
#pragma unroll
        for (u32 i = 0; i < NEWEST_AHEAD; i++) {
            votes[i] = __ballot_sync(WHOLE_WARP, keys[i] == query);
            own += __popc(votes[i]);
        }
        if (lane == 0) {
            found[turn][warp] = own;
        }
        __syncthreads();
        u32 place = kept;
#pragma unroll
        for (u32 w = 0; w < NEWEST_WARPS; w++) {
            place += w < warp ? found[turn][w] : 0;
            kept += found[turn][w];
        }
#pragma unroll
        for (u32 i = 0; i < NEWEST_AHEAD; i++) {
            u32 to = place + __popc(votes[i] & ((1u << lane) - 1));
            if ((votes[i] >> lane & 1) && to < p.top_k) {
                p.positions[m * p.top_k + to] = (u32)(last - i * WARP - tile.history_start);
                p.scores[m * p.top_k + to] = 1.0f;
            }
            place += __popc(votes[i]);
        }
        end -= min(end, (u64)NEWEST_KEYS);
    }
    kept = min(kept, p.top_k);
    for (u32 slot = kept + threadIdx.x; slot < p.top_k; slot += NEWEST_THREADS) {
        p.positions[m * p.top_k + slot] = NONE;
        p.scores[m * p.top_k + slot] = -infinity();
    }
    if (threadIdx.x == 0) {
        p.counts[m] = kept;
    }
}

enum : u32 {
    PACK_THREADS = 256,
    PACK_ROWS = 64,
    // Rows of a warp.
    PACK_OWN = PACK_ROWS / (PACK_THREADS / WARP),
    // Columns in shared memory at a time.
    PACK_COLUMNS = 32,
    PACK_PITCH = PACK_COLUMNS + 4,
};

struct PackSignsParams {
    const void *rows;
    const float *rotations;
    u32 *out;
    u64 count;
    u32 width;
    u32 bits;
    // Words per row.
    u32 words;
    u32 unused;
};

template <typename T>
__device__ __forceinline__ void pack_signs(const PackSignsParams &p) {
    __shared__ alignas(16) float rows[PACK_ROWS * PACK_PITCH];
    __shared__ float rotations[PACK_COLUMNS * WARP];
    const u32 lane = threadIdx.x % WARP, first_own = threadIdx.x / WARP * PACK_OWN, word = blockIdx.x % p.words;
    const u64 first_row = (u64)(blockIdx.x / p.words) * PACK_ROWS, first_bit = (u64)word * WARP;
    const T *from = (const T *)p.rows;
    float sums[PACK_OWN] = {};
    for (u32 first = 0; first < p.width; first += PACK_COLUMNS) {
        __syncthreads();
        const u32 column = first + lane;
        for (u32 row = threadIdx.x / WARP; row < PACK_ROWS; row += PACK_THREADS / WARP) {
            bool there = column < p.width && first_row + row < p.count;
            rows[row * PACK_PITCH + lane] = there ? widen(from[(first_row + row) * p.width + column]) : 0.0f;
        }
        for (u32 row = threadIdx.x / WARP; row < PACK_COLUMNS; row += PACK_THREADS / WARP) {
            bool there = first + row < p.width && first_bit + lane < p.bits;
            rotations[row * WARP + lane] = there ? p.rotations[(u64)(first + row) * p.bits + first_bit + lane] : 0.0f;
        }
        __syncthreads();
#pragma unroll 2
        for (u32 c = 0; c < PACK_COLUMNS; c += 4) {
            float rotation[4];
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                rotation[e] = rotations[(c + e) * WARP + lane];
            }
#pragma unroll
            for (u32 i = 0; i < PACK_OWN; i++) {
                float x[4];
                widen_vector<float>(read_vector(rows + (first_own + i) * PACK_PITCH + c), x);
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    sums[i] = fma(x[e], rotation[e], sums[i]);
                }
            }
        }
    }
    u32 packed = 0;
#pragma unroll
    for (u32 i = 0; i < PACK_OWN; i++) {
        // Of 0 and of NaN, no bit.
        u32 votes = __ballot_sync(WHOLE_WARP, sums[i] > 0.0f);
        packed = lane == i ? votes : packed;
    }
    const u64 row = first_row + first_own + lane;
    if (lane < PACK_OWN && row < p.count) {
        p.out[row * p.words + word] = packed;
    }
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS) pack_signs_f32(const PackSignsParams p) { pack_signs<f32>(p); }
extern "C" __global__ void __launch_bounds__(PACK_THREADS) pack_signs_f16(const PackSignsParams p) { pack_signs<f16>(p); }
extern "C" __global__ void __launch_bounds__(PACK_THREADS) pack_signs_bf16(const PackSignsParams p) { pack_signs<bf16>(p); }
