// Weighted sums over the behaviours that a search kept:
//
//     out[m] = Σ_k w[m,k] · [R_1[ids[l,1]] ‖ … ‖ R_F[ids[l,F]]],  l = positions[m,k],  w = softmax over scores[m,:]
//
// optionally times the candidate's own rows. A block takes a candidate. It first computes max and sum of the scores; then
// it writes the weights of 512 behaviours at a time to shared memory, and groups of threads, one thread per vec4 of a row, take
// the behaviours in turn, with four rows in flight each. The sums of the groups are added in order.
// Positions and counts come from the caller: those out of range are reported, and neither read nor summed.
// Precision: f32; a weight is computed by the special function unit, with an error of a few ulp. Halves of weights are summed,
// so that rows of the largest numbers do not overflow. A score of -∞ removes its behaviour, whatever the row holds.
#include "decoupled/rows.cuh"
#include "decoupled/weights.cuh"

enum : u32 {
    WEIGHTS = 512,
};

struct DecoupledAggregateParams {
    // One candidate each.
    const Tile *tiles;
    const u32 *positions;
    const float *scores;
    const u32 *counts;
    // Records for counts above K, and for positions outside their history.
    u64 *bad_counts, *bad_positions;
    u32 top_k;
    u32 unused;
    Rows rows;
};

// Stands for the weight of a behaviour that does not count.
__device__ __forceinline__ float removed() { return -1.0f; }

// Adds weight · row of the behaviours first, first + step, … below `count`. A weight of 0 counts: 0·NaN is NaN.
__device__ __forceinline__ void add_rows(
    Vec4 &acc, const Rows &p, const Slice &slice, u64 history, const float *weights, const u32 *positions, u32 first,
    u32 count, u32 step) {
    for (u32 begin = first; begin < count; begin += AHEAD * step) {
        float weight[AHEAD];
        u32 id[AHEAD];
        Vec4 row[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 k = begin + i * step;
            weight[i] = k < count ? weights[k] : removed();
            id[i] = weight[i] != removed() ? id_of(p, p.ids, slice, history + positions[k]) : 0;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            row[i] = weight[i] != removed() ? vec4_of(p, slice, id[i]) : zeros();
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                acc.numbers[e] = fma(weight[i], row[i].numbers[e], acc.numbers[e]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS, 8) decoupled_aggregate(const DecoupledAggregateParams p) {
    __shared__ float weights[WEIGHTS];
    __shared__ u32 positions[WEIGHTS];
    __shared__ Vec4 of_groups[ROW_THREADS];
    const Tile tile = p.tiles[blockIdx.x];
    u64 m = tile.first_target + tile.first_row, first = m * p.top_k, length = tile.history_end - tile.history_start;
    u32 count = p.counts[m];
    if (count > p.top_k) {
        if (threadIdx.x == 0) {
            report_bad_id(p.bad_counts, m, count);
        }
        count = 0;
    }
    float row_max = -infinity(), row_sum = 0.0f;
    for (u32 k = threadIdx.x; k < count; k += ROW_THREADS) {
        row_max = fmaxf(row_max, p.scores[first + k]);
    }
    row_max = over_block<false>(row_max);
    for (u32 k = threadIdx.x; k < count; k += ROW_THREADS) {
        row_sum += weight_of(p.scores[first + k], row_max);
    }
    row_sum = over_block<true>(row_sum);
    u32 lanes = lanes_of(p.rows.vec4s), groups = ROW_THREADS / lanes;
    u32 lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    for (u32 first_vec4 = 0; first_vec4 < p.rows.vec4s; first_vec4 += lanes) {
        const Slice slice = slice_of(p.rows, first_vec4 + lane);
        Vec4 acc = zeros();
        for (u32 begin = 0; begin < count; begin += WEIGHTS) {
            u32 some = min((u32)WEIGHTS, count - begin);
            __syncthreads();
            for (u32 k = threadIdx.x; k < some; k += ROW_THREADS) {
                u32 position = p.positions[first + begin + k];
                bool inside = position < length;
                if (!inside) {
                    report_bad_id(p.bad_positions, first + begin + k, position);
                }
                positions[k] = position;
                float score = p.scores[first + begin + k];
                bool counts = inside && score != -infinity();
                weights[k] = counts ? weight_of(score, row_max) / (2.0f * row_sum) : removed();
            }
            __syncthreads();
            if (slice.there) {
                Vec4 sum = zeros();
                add_rows(sum, p.rows, slice, tile.history_start, weights, positions, group, some, groups);
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    acc.numbers[e] += sum.numbers[e];
                }
            }
        }
        __syncthreads();
        put_vec4(&of_groups[threadIdx.x], acc);
        __syncthreads();
        if (group == 0 && slice.there) {
            for (u32 other = 1; other < groups; other++) {
                Vec4 more = get_vec4(&of_groups[other * lanes + lane]);
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    acc.numbers[e] += more.numbers[e];
                }
            }
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                acc.numbers[e] = doubled(acc.numbers[e]);
            }
            write_sums(p.rows, slice, m, acc);
        }
    }
}
