// Combines partial results of pieces: target_attention.cu.
#pragma once
#include "target_attention/attend.cuh"

struct CombinePiecesParams {
    // The tiles whose histories are split.
    const Tile *tiles;
    // Written by the pieces: [slots, H_kv, tile_rows, columns] and [slots, H_kv, tile_rows, 2].
    const float *partial;
    const float *stats;
    void *out;
    float *lse;
    u32 kv_heads, group_heads, value_width, first_column, columns, tile_rows, weighting;
    u32 unused;
};

// combine_pieces: an output row from the partial results of the pieces of its history.
//
//     out = Σ_i e^(max_i - max)·partial_i / Σ_i e^(max_i - max)·sum_i        without softmax: Σ_i partial_i
//
// max is in the units of scores, because f32 cannot hold the largest as powers of 2. A negative sum tells that the partial result
// is already divided by it; then, and where sums overflow, weights are normalised before they are multiplied.
// One block per row; each warp takes every fourth piece, each lane every 32nd column, so whole cache lines are read. The
// order of the sums is fixed: pieces of a warp, then warps.

// e^(from - to); 1 for equal infinities.
__device__ __forceinline__ float rescale_natural(float from, float to) { return from == to ? 1.0f : exp_approx(from - to); }

// One column, by halves of normalised weights; sets the sum of all weights.
__device__ __forceinline__ float combine_again(const CombinePiecesParams &p, u64 first, u64 stride, u32 slots, float row_max,
                                               u32 column, float &all_sum) {
    all_sum = 0.0f;
#pragma unroll 1
    for (u32 slot = 0; slot < slots; slot++) {
        const float *stat = p.stats + (first + slot * stride) * 2;
        all_sum = fma(rescale_natural(stat[0], row_max), fabsf(stat[1]), all_sum);
    }
    float all = 0.0f;
#pragma unroll 1
    for (u32 slot = 0; slot < slots; slot++) {
        u64 at = first + slot * stride;
        float part_sum = p.stats[at * 2 + 1];
        float weight = rescale_natural(p.stats[at * 2], row_max) * (part_sum < 0.0f ? -part_sum : 1.0f) / (2.0f * all_sum);
        all = fma(weight, p.partial[at * p.columns + column], all);
    }
    return doubled(all);
}

//
// `put(row, column, number)` writes a number of the output, of a row that begins there.
template <typename Put>
__device__ __forceinline__ void combine_pieces(const CombinePiecesParams &p, Put put) {
    constexpr u32 MOST_COLUMNS = 128;
    __shared__ float accs[WARPS][MOST_COLUMNS], row_sums[WARPS];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 row = blockIdx.x % p.tile_rows;
    u32 kv_head = blockIdx.x / p.tile_rows % p.kv_heads;
    const Tile tile = p.tiles[blockIdx.x / p.tile_rows / p.kv_heads];
    if (row >= tile.rows) return;
    u64 first = ((u64)tile.first_slot * p.kv_heads + kv_head) * p.tile_rows + row, stride = (u64)p.kv_heads * p.tile_rows;
    float row_max = -infinity();
    for (u32 slot = lane; slot < tile.slots; slot += WARP) {
        row_max = fmaxf(row_max, p.stats[(first + slot * stride) * 2]);
    }
    row_max = warp_max(row_max);
    float acc[MOST_COLUMNS / WARP] = {}, row_sum = 0.0f, least = 0.0f;
    for (u32 slot = warp; slot < tile.slots; slot += WARPS) {
        u64 at = first + slot * stride;
        float rescale = rescale_natural(p.stats[at * 2], row_max), part_sum = p.stats[at * 2 + 1];
        row_sum = fma(rescale, part_sum, row_sum);
        least = fminf(least, part_sum);
#pragma unroll
        for (u32 i = 0; i < MOST_COLUMNS / WARP; i++) {
            u32 column = lane + i * WARP;
            if (column < p.columns) acc[i] = fma(rescale, p.partial[at * p.columns + column], acc[i]);
        }
    }
#pragma unroll
    for (u32 i = 0; i < MOST_COLUMNS / WARP; i++) {
        accs[warp][lane + i * WARP] = acc[i];
    }
    if (lane == 0) row_sums[warp] = row_sum;
    bool normalised = __syncthreads_or(least < 0.0f);
    u32 column = threadIdx.x;
    float all = 0.0f, all_sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < WARPS; i++) {
        all += accs[i][column];
        all_sum += row_sums[i];
    }
    bool softmax = p.weighting == SOFTMAX;
    if (softmax && column < p.columns) {
        if (normalised || !is_finite(all)) {
            all = combine_again(p, first, stride, tile.slots, row_max, column, all_sum);
        } else {
            all = all_sum == 0.0f ? 0.0f : all / all_sum;
        }
    }
    u64 target = tile.first_target + (tile.first_row + row) / p.group_heads;
    u32 head = kv_head * p.group_heads + (tile.first_row + row) % p.group_heads;
    u64 out_row = target * (p.kv_heads * p.group_heads) + head;
    if (column < p.columns) put(out_row * p.value_width + p.first_column, column, all);
    if (column == 0 && p.lse != nullptr) {
        p.lse[out_row] = all_sum == 0.0f ? -infinity() : row_max + logf(all_sum);
    }
}
