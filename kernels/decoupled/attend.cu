// All behaviours take part: out[m] = Σ_l w[m,l] · [R_1[ids[l,1]] ‖ …], w = softmax over all scores (decoupled_scores.cuh).
//
// A block takes a tile of 16 candidates, a part of their user's history, and 128 columns of the output (a wider output
// has its scores taken again for each 128). Threads turn the scores of 256 behaviours, which they have in registers, into
// weights below the highest score so far, and write those to shared memory. Then groups of threads, as many as there are
// fours of columns, read the rows, each group a share of the behaviours, and add them to the sums of all candidates, in
// registers: a row is read once. At the end the sums of the groups are added in their order.
// Parts of a history leave sums, peak and total, which decoupled_attend_merge brings together in their order.
// Precision: f32; weights as in decoupled.cu.
#include "decoupled/rows.cuh"
#include "decoupled/scores.cuh"

static_assert(THREADS == ROW_THREADS, "the same block scores and sums");

enum : u32 {
    CANDIDATES = 16,
    // Numbers from the weights of a behaviour to the next one's, so that eight threads write them to all banks.
    PITCH = CANDIDATES + 4,
    // Candidates whose sums are in shared memory together at the end.
    SHARE = 8,
};

static_assert(WARPS * SHARE * ROW_FOURS * COLUMNS <= BEHAVIOURS * PITCH, "the sums of warps fit where weights were");

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
    float weights[BEHAVIOURS][PITCH];
    // The highest so far, and by what that lowers the sums so far.
    float peaks[CANDIDATES], factors[CANDIDATES], totals[CANDIDATES];
    // Of the behaviours of each warp.
    float warp_peaks[WARPS][CANDIDATES], warp_totals[WARPS][CANDIDATES];
};

static_assert(sizeof(Weighing) == (BEHAVIOURS * PITCH + (3 + 2 * WARPS) * CANDIDATES) * 4, "src/cuda/decoupled_attend.rs counts on it");

// e^(score - peak), where a score of -∞ takes no part.
__device__ __forceinline__ float weight_of(float score, float peak) {
    return score == -infinity() ? 0.0f : exp_approx(score - peak);
}

// Of each candidate over all lanes, always in the same order; lane l gets that of candidate l / 2. With each step lanes
// halve among them what they still have to bring together.
template <bool SUM, u32 HALF = CANDIDATES / 2>
__device__ __forceinline__ float over_lanes(float *values) {
    auto both = [](float a, float b) { return SUM ? a + b : fmaxf(a, b); };
    if constexpr (HALF == 0) {
        return both(values[0], shuffle_xor(values[0], 1));
    } else {
        const bool upper = threadIdx.x & 2 * HALF;
#pragma unroll
        for (u32 i = 0; i < HALF; i++) {
            float low = values[i], high = values[i + HALF];
            values[i] = both(upper ? high : low, shuffle_xor(upper ? low : high, 2 * HALF));
        }
        return over_lanes<SUM, HALF / 2>(values);
    }
}

__device__ __forceinline__ void read_all(float *to, const float *from) {
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c += COLUMNS) {
        Four four = get_four((const Four *)(from + c));
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            to[c + e] = four.numbers[e];
        }
    }
}

// Turns scores into weights, -∞ where no behaviour is. All threads call it together.
__device__ __forceinline__ void weigh(Weighing &w, const float (*scores)[OWN]) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float values[CANDIDATES], peaks[CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        values[c] = fmaxf(scores[c][0], scores[c][1]);
    }
    float peak = over_lanes<false>(values);
    if (lane % 2 == 0) {
        w.warp_peaks[warp][lane / 2] = peak;
    }
    __syncthreads();
    if (threadIdx.x < CANDIDATES) {
        float before = w.peaks[threadIdx.x];
        peak = before;
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) {
            peak = fmaxf(peak, w.warp_peaks[other][threadIdx.x]);
        }
        w.peaks[threadIdx.x] = peak;
        w.factors[threadIdx.x] = weight_of(before, peak);
    }
    __syncthreads();
    read_all(peaks, w.peaks);
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        values[c] = 0.0f;
    }
#pragma unroll
    for (u32 own = 0; own < OWN; own++) {
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c += COLUMNS) {
            Four weights;
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                weights.numbers[e] = weight_of(scores[c + e][own], peaks[c + e]);
                values[c + e] += weights.numbers[e];
            }
            put_four((Four *)&w.weights[own * THREADS + threadIdx.x][c], weights);
        }
    }
    float total = over_lanes<true>(values);
    if (lane % 2 == 0) {
        w.warp_totals[warp][lane / 2] = total;
    }
    __syncthreads();
    if (threadIdx.x < CANDIDATES) {
        total = 0.0f;
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) {
            total += w.warp_totals[other][threadIdx.x];
        }
        w.totals[threadIdx.x] = fma(w.totals[threadIdx.x], w.factors[threadIdx.x], total);
    }
}

__device__ __forceinline__ void add_row(Four *sums, const float *weights, const Four &row) {
    // 0 times what is not finite is NaN.
    float zero = 0.0f;
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        zero = fma(row.numbers[e], 0.0f, zero);
    }
    const bool finite = zero == 0.0f;
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c += COLUMNS) {
        Four four = get_four((const Four *)(weights + c));
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            // What takes no part does not, even where its row is not finite.
            if (finite || four.numbers[i] != 0.0f) {
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    sums[c + i].numbers[e] = fma(four.numbers[i], row.numbers[e], sums[c + i].numbers[e]);
                }
            }
        }
    }
}

// Adds the rows of the behaviours group, group + groups, … of `count` from `start` on to the sums of all candidates.
__device__ __forceinline__ void add_rows(
    Four *sums, const Rows &p, const Slice &slice, const Weighing &w, u64 start, u32 count, u32 group, u32 groups) {
    for (u32 begin = group; begin < count; begin += AHEAD * groups) {
        u32 id[AHEAD];
        Four row[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 behaviour = begin + i * groups;
            id[i] = behaviour < count ? id_of(p, p.ids, slice, start + behaviour) : NONE;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            row[i] = begin + i * groups < count ? four_of(p, slice, id[i]) : zeros();
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            if (begin + i * groups < count) {
                add_row(sums, w.weights[begin + i * groups], row[i]);
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

extern "C" __global__ void __launch_bounds__(THREADS, 3) decoupled_attend(const AttendParams p) {
    Weighing &w = *(Weighing *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x / p.column_blocks];
    Stage stage = stage_at(&w + 1, p.scoring);
    send_first(p.scoring, stage, piece);
    const u32 lanes = lanes_of(p.rows.fours), groups = THREADS / lanes, group = threadIdx.x / lanes;
    const u32 lane = threadIdx.x % lanes, four = blockIdx.x % p.column_blocks * lanes + lane;
    const Slice slice = slice_of(p.rows, four);
    if (threadIdx.x < CANDIDATES) {
        w.peaks[threadIdx.x] = -infinity();
        w.totals[threadIdx.x] = 0.0f;
    }
    Four sums[CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        sums[c] = zeros();
    }
    for (u32 begin = 0; begin < piece.length; begin += BEHAVIOURS) {
        float scores[CANDIDATES][OWN];
        score<CANDIDATES>(scores, p.scoring, stage, piece, begin);
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            bool there = begin + own * THREADS + threadIdx.x < piece.length;
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                scores[c][own] = there ? scores[c][own] : -infinity();
            }
        }
        weigh(w, scores);
        float factors[CANDIDATES];
        read_all(factors, w.factors);
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            scale(sums[c], factors[c]);
        }
        if (slice.there) {
            u32 count = min((u32)BEHAVIOURS, piece.length - begin);
            add_rows(sums, p.rows, slice, w, piece.history_start + begin, count, group, groups);
        }
    }
    // Of the groups of a warp, then of the warps.
    for (u32 distance = lanes; distance < WARP; distance *= 2) {
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                sums[c].numbers[e] += shuffle_xor(sums[c].numbers[e], distance);
            }
        }
    }
    Four *of_warps = (Four *)w.weights;
#pragma unroll
    for (u32 begin = 0; begin < CANDIDATES; begin += SHARE) {
        __syncthreads();
        if (threadIdx.x % WARP < lanes) {
#pragma unroll
            for (u32 c = 0; c < SHARE; c++) {
                put_four(of_warps + (threadIdx.x / WARP * SHARE + c) * lanes + lane, sums[begin + c]);
            }
        }
        __syncthreads();
        for (u32 c = group; c < SHARE; c += groups) {
            u32 candidate = begin + c;
            if (candidate >= piece.rows || !slice.there) {
                break;
            }
            Four sum = zeros();
#pragma unroll
            for (u32 warp = 0; warp < WARPS; warp++) {
                Four more = get_four(of_warps + (warp * SHARE + c) * lanes + lane);
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    sum.numbers[e] += more.numbers[e];
                }
            }
            if (piece.slot == NONE) {
                u64 m = piece.first_target + piece.first_row + candidate;
                write_sums(p.rows, slice, m, mean_of(sum, w.totals[candidate]));
                continue;
            }
            u64 at = (u64)piece.slot * CANDIDATES + candidate;
            put_four(p.sums + at * p.rows.fours + four, sum);
            if (four == 0) {
                p.totals[at] = make_float2(w.peaks[candidate], w.totals[candidate]);
            }
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
