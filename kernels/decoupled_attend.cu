// All behaviours take part: out[m] = Σ_l w[m,l] · [R_1[ids[l,1]] ‖ …], w = softmax over all scores (decoupled_scores.cuh).
//
// A block takes a tile of 16 candidates, a part of their user's history, and 128 columns of the output (a wider output
// has its scores taken again for each 128). Of 256 behaviours at a time it writes the scores to shared memory; a warp a
// candidate makes weights of them, below the highest score so far, and the factor by which that lowers the sums; then
// groups of threads, as many as there are fours of columns, read the rows, each group for its share of the candidates.
// Parts of a history leave sums, peak and total, which decoupled_attend_merge brings together in their order.
// Precision: f32; weights as in decoupled.cu.
#include "decoupled_rows.cuh"
#include "decoupled_scores.cuh"

static_assert(THREADS == ROW_THREADS, "the same block scores and sums");

enum : u32 {
    CANDIDATES = 16,
    // Candidates of a thread: no fewer than four groups share them.
    SHARE = CANDIDATES / (THREADS / ROW_FOURS),
};

struct AttendParams {
    // Pieces, or the tiles to merge.
    const Piece *pieces;
    const Tile *merges;
    // [slots, candidates, fours], four numbers each, and peak and total of [slots, candidates].
    Four *sums;
    float2 *totals;
    // Blocks side by side over the columns.
    u32 column_blocks;
    u32 unused;
    Scoring scoring;
    Rows rows;
};

struct alignas(16) Weighing {
    // [CANDIDATES, BEHAVIOURS]: scores, then weights.
    float weights[CANDIDATES][BEHAVIOURS];
    float peaks[CANDIDATES], totals[CANDIDATES];
    // By which sums so far shrink.
    float factors[CANDIDATES];
};

static_assert(sizeof(Weighing) == CANDIDATES * (BEHAVIOURS + 3) * 4, "src/cuda/decoupled.rs counts on it");

// e^(score - peak), where a score of -∞ takes no part.
__device__ __forceinline__ float weight_of(float score, float peak) {
    return score == -infinity() ? 0.0f : exp_approx(score - peak);
}

// Turns the scores of a candidate into weights. A warp does.
__device__ __forceinline__ void weigh(Weighing &w, u32 candidate) {
    u32 lane = threadIdx.x % WARP;
    float before = w.peaks[candidate], peak = before, total = 0.0f;
    for (u32 i = lane; i < BEHAVIOURS; i += WARP) {
        peak = fmaxf(peak, w.weights[candidate][i]);
    }
    peak = warp_max(peak);
    for (u32 i = lane; i < BEHAVIOURS; i += WARP) {
        float weight = weight_of(w.weights[candidate][i], peak);
        w.weights[candidate][i] = weight;
        total += weight;
    }
    total = warp_sum(total);
    // All have read the peak.
    __syncwarp();
    if (lane == 0) {
        float factor = weight_of(before, peak);
        w.factors[candidate] = factor;
        w.peaks[candidate] = peak;
        w.totals[candidate] = fma(w.totals[candidate], factor, total);
    }
}

// Adds the rows of `count` behaviours from `start` on to the sums of the candidates group, group + groups, …
__device__ __forceinline__ void add_rows(
    Four *sums, const Rows &p, const Slice &slice, const Weighing &w, u64 start, u32 count, u32 group, u32 groups) {
    for (u32 begin = 0; begin < count; begin += AHEAD) {
        u32 id[AHEAD];
        Four row[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            id[i] = begin + i < count ? id_of(p, p.ids, slice, start + begin + i) : NONE;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            row[i] = begin + i < count ? four_of(p, slice, id[i]) : zeros();
        }
#pragma unroll
        for (u32 share = 0; share < SHARE; share++) {
            u32 candidate = group + share * groups;
            if (candidate >= CANDIDATES) {
                break;
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                float weight = w.weights[candidate][begin + i];
                // What takes no part does not, even where its row is not finite.
                if (weight != 0.0f) {
#pragma unroll
                    for (u32 e = 0; e < COLUMNS; e++) {
                        sums[share].numbers[e] = fma(weight, row[i].numbers[e], sums[share].numbers[e]);
                    }
                }
            }
        }
    }
}

__device__ __forceinline__ void scale(Four &sums, float factor) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sums.numbers[e] *= factor;
    }
}

// Of no weight at all there is a row of zeros.
__device__ __forceinline__ Four mean_of(Four sums, float total) {
    if (total == 0.0f) {
        return zeros();
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sums.numbers[e] /= total;
    }
    return sums;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_attend(const AttendParams p) {
    Weighing &w = *(Weighing *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x / p.column_blocks];
    u32 columns = min((u32)FOURS, p.scoring.fours), stride = BEHAVIOURS + padding(columns);
    Four *staged = (Four *)(&w + 1);
    const Stage stage = {staged, staged + columns * stride, stride};
    u32 lanes = lanes_of(p.rows.fours), groups = THREADS / lanes, group = threadIdx.x / lanes;
    u32 four = blockIdx.x % p.column_blocks * lanes + threadIdx.x % lanes;
    const Slice slice = slice_of(p.rows, four);
    if (threadIdx.x < CANDIDATES) {
        w.peaks[threadIdx.x] = -infinity();
        w.totals[threadIdx.x] = 0.0f;
    }
    Four sums[SHARE];
#pragma unroll
    for (u32 share = 0; share < SHARE; share++) {
        sums[share] = zeros();
    }
    for (u32 begin = 0; begin < piece.length; begin += BEHAVIOURS) {
        float scores[CANDIDATES][OWN];
        score<CANDIDATES>(scores, p.scoring, stage, piece, begin);
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            u32 behaviour = own * THREADS + threadIdx.x;
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                w.weights[c][behaviour] = begin + behaviour < piece.length ? scores[c][own] : -infinity();
            }
        }
        __syncthreads();
        for (u32 c = threadIdx.x / WARP; c < CANDIDATES; c += WARPS) {
            weigh(w, c);
        }
        __syncthreads();
#pragma unroll
        for (u32 share = 0; share < SHARE; share++) {
            scale(sums[share], w.factors[min(group + share * groups, CANDIDATES - 1u)]);
        }
        if (slice.there) {
            u32 count = min((u32)BEHAVIOURS, piece.length - begin);
            add_rows(sums, p.rows, slice, w, piece.history_start + begin, count, group, groups);
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 share = 0; share < SHARE; share++) {
        u32 candidate = group + share * groups;
        if (candidate >= piece.rows || !slice.there) {
            break;
        }
        if (piece.slot == NONE) {
            u64 m = piece.first_target + piece.first_row + candidate;
            write_sums(p.rows, slice, m, mean_of(sums[share], w.totals[candidate]));
            continue;
        }
        u64 at = (u64)piece.slot * CANDIDATES + candidate;
        put_four(p.sums + at * p.rows.fours + four, sums[share]);
        if (four == 0) {
            p.totals[at] = make_float2(w.peaks[candidate], w.totals[candidate]);
        }
    }
}

// A block a candidate of the tiles to merge.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) decoupled_attend_merge(const AttendParams p) {
    const Tile tile = p.merges[blockIdx.x / CANDIDATES];
    u32 candidate = blockIdx.x % CANDIDATES;
    if (candidate >= tile.rows) {
        return;
    }
    float peak = -infinity();
    for (u32 slot = tile.first_slot; slot < tile.first_slot + tile.slots; slot++) {
        peak = fmaxf(peak, p.totals[(u64)slot * CANDIDATES + candidate].x);
    }
    for (u32 four = threadIdx.x; four < p.rows.fours; four += ROW_THREADS) {
        Four sums = zeros();
        float total = 0.0f;
        for (u32 slot = tile.first_slot; slot < tile.first_slot + tile.slots; slot++) {
            u64 at = (u64)slot * CANDIDATES + candidate;
            float2 part = p.totals[at];
            float factor = weight_of(part.x, peak);
            // A part whose scores were all -∞ or NaN has no peak; NaN is in its total.
            if (part.x == -infinity()) {
                factor = part.y == 0.0f ? 0.0f : 1.0f;
            }
            if (factor == 0.0f) {
                continue;
            }
            Four more = get_four(p.sums + at * p.rows.fours + four);
            total = fma(part.y, factor, total);
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                sums.numbers[e] = fma(more.numbers[e], factor, sums.numbers[e]);
            }
        }
        write_sums(p.rows, slice_of(p.rows, four), tile.first_target + tile.first_row + candidate, mean_of(sums, total));
    }
}
