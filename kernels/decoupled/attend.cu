// Attention over all behaviours: out[m] = Σ_l w[m,l] · [R_1[ids[l,1]] ‖ …], w = softmax over all scores (scores.cuh).
//
// A block takes a tile of 16 candidates, a span of their user's history, and 128 columns of the output (for a wider output the
// scores are recomputed for each 128). Threads turn the scores of 256 behaviours, which they hold in registers, into weights
// relative to the largest score so far, and write them to shared memory. Then groups of threads, one thread per vec4 of
// columns, read the rows, each group a share of the behaviours, and add them to the sums of all candidates, in registers, so
// that each row is read once. At the end the sums of the groups are added, in order.
// Spans of a history leave weighted sums, max and sum, which decoupled_attend_combine combines in order.
// Precision: f32; weights as in decoupled.cu. A score of -∞ removes its behaviour, whatever the row holds. Where sums are not
// finite, the block runs again with halves of normalised weights: rows of the largest numbers do not overflow. A negative sum
// of weights tells decoupled_attend_combine that the weighted sums are already divided by it.
#include "decoupled/rows.cuh"
#include "decoupled/scores.cuh"

static_assert(THREADS == ROW_THREADS, "the same block scores and acc");

enum : u32 {
    CANDIDATES = 16,
    // Numbers from the weights of one behaviour to those of the next, so that eight threads write to all banks.
    PITCH = CANDIDATES + 4,
    // Candidates whose sums are in shared memory together at the end.
    SHARE = 8,
};

static_assert(WARPS * SHARE * ROW_VEC4S * COLUMNS <= BEHAVIOURS * PITCH, "the acc of warps fit where weights were");

struct DecoupledAttendParams {
    // Pieces, or the tiles to combine.
    const Piece *pieces;
    const Tile *tiles;
    // Weighted sums [slots, candidates, vec4s], and max and sum [slots, candidates, column_blocks].
    Vec4 *partial;
    float2 *stats;
    // Adjacent blocks over the columns.
    u32 column_blocks;
    u32 unused;
    Scoring scoring;
    Rows rows;
};

struct alignas(16) Weighing {
    float weights[BEHAVIOURS][PITCH];
    // The largest score so far, the factor that rescales older sums, and the sum of weights.
    float maxima[CANDIDATES], rescales[CANDIDATES], row_sums[CANDIDATES];
    // For the behaviours of each warp.
    float warp_maxima[WARPS][CANDIDATES], warp_sums[WARPS][CANDIDATES];
};

LAYOUT(decoupled_attend, sizeof(Weighing), stage_bytes(1, CANDIDATES), stage_bytes(3, CANDIDATES), stage_bytes(40, CANDIDATES));

// Stands for the weight of a behaviour with a score of -∞: added like 0, but distinct from it.
__device__ __forceinline__ float removed() { return -0.0f; }
__device__ __forceinline__ bool is_removed(float weight) { return __float_as_uint(weight) == 0x80000000u; }

// e^(score - max), where a score of -∞ has no weight.
__device__ __forceinline__ float weight_of(float score, float row_max) {
    return score == -infinity() ? removed() : exp_approx(score - row_max);
}

// Reduces each candidate over all lanes, always in the same order; lane l gets the result of candidate l / 2. Each step
// halves the candidates that a lane still reduces.
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
        Vec4 vec4 = get_vec4((const Vec4 *)(from + c));
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            to[c + e] = vec4.numbers[e];
        }
    }
}

// Turns scores into weights; scores are -∞ past the last behaviour. All threads call it together.
__device__ __forceinline__ void weigh(Weighing &w, const float (*scores)[OWN]) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float values[CANDIDATES], maxima[CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        values[c] = fmaxf(scores[c][0], scores[c][1]);
    }
    float row_max = over_lanes<false>(values);
    if (lane % 2 == 0) {
        w.warp_maxima[warp][lane / 2] = row_max;
    }
    __syncthreads();
    if (threadIdx.x < CANDIDATES) {
        float before = w.maxima[threadIdx.x];
        row_max = before;
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) {
            row_max = fmaxf(row_max, w.warp_maxima[other][threadIdx.x]);
        }
        w.maxima[threadIdx.x] = row_max;
        w.rescales[threadIdx.x] = fabsf(weight_of(before, row_max));
    }
    __syncthreads();
    read_all(maxima, w.maxima);
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        values[c] = 0.0f;
    }
#pragma unroll
    for (u32 own = 0; own < OWN; own++) {
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c += COLUMNS) {
            Vec4 weights;
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                weights.numbers[e] = weight_of(scores[c + e][own], maxima[c + e]);
                values[c + e] += weights.numbers[e];
            }
            put_vec4((Vec4 *)&w.weights[own * THREADS + threadIdx.x][c], weights);
        }
    }
    float row_sum = over_lanes<true>(values);
    if (lane % 2 == 0) {
        w.warp_sums[warp][lane / 2] = row_sum;
    }
    __syncthreads();
    if (threadIdx.x < CANDIDATES) {
        row_sum = 0.0f;
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) {
            row_sum += w.warp_sums[other][threadIdx.x];
        }
        w.row_sums[threadIdx.x] = fma(w.row_sums[threadIdx.x], w.rescales[threadIdx.x], row_sum);
    }
}

// Turns scores into halves of normalised weights: max is known, and w.rescales holds the halves of 1 / sum. All threads call it
// together.
__device__ __forceinline__ void weigh_again(Weighing &w, const float (*scores)[OWN]) {
#pragma unroll
    for (u32 own = 0; own < OWN; own++) {
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            float weight = weight_of(scores[c][own], w.maxima[c]);
            w.weights[own * THREADS + threadIdx.x][c] = is_removed(weight) ? weight : weight * w.rescales[c];
        }
    }
}

__device__ __forceinline__ void add_row(Vec4 *acc, const float *weights, const Vec4 &row) {
    // 0 times a number that is not finite is NaN.
    float zero = 0.0f;
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        zero = fma(row.numbers[e], 0.0f, zero);
    }
    const bool finite = zero == 0.0f;
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c += COLUMNS) {
        Vec4 vec4 = get_vec4((const Vec4 *)(weights + c));
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++) {
            // A removed behaviour does not count, even if its row is not finite.
            if (finite || !is_removed(vec4.numbers[i])) {
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    acc[c + i].numbers[e] = fma(vec4.numbers[i], row.numbers[e], acc[c + i].numbers[e]);
                }
            }
        }
    }
}

// Adds the rows of the behaviours group, group + groups, … of `count` from `start` on to the sums of all candidates.
__device__ __forceinline__ void add_rows(
    Vec4 *acc, const Rows &p, const Slice &slice, const Weighing &w, u64 start, u32 count, u32 group, u32 groups) {
    for (u32 begin = group; begin < count; begin += AHEAD * groups) {
        u32 id[AHEAD];
        Vec4 row[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            u32 behaviour = begin + i * groups;
            id[i] = behaviour < count ? id_of(p, p.ids, slice, start + behaviour) : NONE;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            row[i] = begin + i * groups < count ? vec4_of(p, slice, id[i]) : zeros();
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            if (begin + i * groups < count) {
                add_row(acc, w.weights[begin + i * groups], row[i]);
            }
        }
    }
}

__device__ __forceinline__ void scale(Vec4 &acc, float factor) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        acc.numbers[e] *= factor;
    }
}

// Without any weight the result is a row of zeros.
__device__ __forceinline__ Vec4 mean_of(Vec4 acc, float row_sum) {
    if (row_sum == 0.0f) {
        return zeros();
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        acc.numbers[e] /= row_sum;
    }
    return acc;
}

// Where max and sum of a candidate's slot are, for the block of a vec4.
__device__ __forceinline__ u64 stat_at(const DecoupledAttendParams &p, u64 at, u32 vec4) {
    return at * p.column_blocks + vec4 / ROW_VEC4S;
}

// Writes the sums of a candidate, of which a thread has a vec4. `again`: they are halves of normalised sums. Returns whether
// any is not finite though all weights are numbers.
__device__ __forceinline__ bool write_candidate(
    const DecoupledAttendParams &p, const Weighing &w, const Piece &piece, const Slice &slice, u32 vec4, u32 candidate, Vec4 sum,
    bool again) {
    float row_sum = w.row_sums[candidate];
    if (again) {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            sum.numbers[e] = doubled(sum.numbers[e]);
        }
    }
    if (piece.slot == NONE) {
        u64 m = piece.first_target + piece.first_row + candidate;
        write_sums(p.rows, slice, m, again ? sum : mean_of(sum, row_sum));
    } else {
        u64 at = (u64)piece.slot * CANDIDATES + candidate;
        put_vec4(p.partial + at * p.rows.vec4s + vec4, sum);
        if (vec4 % ROW_VEC4S == 0) {
            p.stats[stat_at(p, at, vec4)] = make_float2(w.maxima[candidate], again ? -row_sum : row_sum);
        }
    }
    return any_not_finite<COLUMNS>(sum.numbers) && row_sum == row_sum;
}

// The vec4 of columns that a thread sums, and its group's share of the behaviours.
struct Share {
    u32 lanes, lane, group, vec4;
};

__device__ __forceinline__ Share share_of(const DecoupledAttendParams &p) {
    u32 thread = threadIdx.x, lanes = lanes_of(p.rows.vec4s);
    // Keeps the compiler from computing this once, ahead of the loops: registers are scarce.
    asm volatile("" : "+r"(thread));
    return Share{lanes, thread % lanes, thread / lanes, blockIdx.x % p.column_blocks * lanes + thread % lanes};
}

// Adds all behaviours of the piece, weighted, to the sums of all candidates. `again`: with halves of normalised weights.
__device__ __forceinline__ void add_piece(
    Vec4 *acc, const DecoupledAttendParams &p, Weighing &w, Stage &stage, const Piece &piece, bool again) {
#pragma unroll 1
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
        if (again) {
            weigh_again(w, scores);
            __syncthreads();
        } else {
            weigh(w, scores);
            float rescales[CANDIDATES];
            read_all(rescales, w.rescales);
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                scale(acc[c], rescales[c]);
            }
        }
        const Share share = share_of(p);
        const Slice slice = slice_of(p.rows, share.vec4);
        if (slice.there) {
            u32 count = min((u32)BEHAVIOURS, piece.length - begin);
            add_rows(acc, p.rows, slice, w, piece.history_start + begin, count, share.group, THREADS / share.lanes);
        }
        __syncwarp();
    }
}

// Adds the sums of the block's threads, and writes those of each candidate. Returns whether any that this thread writes is
// not finite though all weights are numbers.
__device__ __forceinline__ bool write_piece(
    Vec4 *acc, const DecoupledAttendParams &p, Weighing &w, const Piece &piece, bool again) {
    const Share share = share_of(p);
    const u32 lanes = share.lanes, lane = share.lane, group = share.group, groups = THREADS / lanes, vec4 = share.vec4;
    const Slice slice = slice_of(p.rows, vec4);
    // Over the groups of a warp, then over the warps.
    for (u32 distance = lanes; distance < WARP; distance *= 2) {
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                acc[c].numbers[e] += shuffle_xor(acc[c].numbers[e], distance);
            }
        }
    }
    bool not_finite = false;
    Vec4 *of_warps = (Vec4 *)w.weights;
#pragma unroll
    for (u32 begin = 0; begin < CANDIDATES; begin += SHARE) {
        __syncthreads();
        if (threadIdx.x % WARP < lanes) {
#pragma unroll
            for (u32 c = 0; c < SHARE; c++) {
                put_vec4(of_warps + (threadIdx.x / WARP * SHARE + c) * lanes + lane, acc[begin + c]);
            }
        }
        __syncthreads();
        for (u32 c = group; c < SHARE; c += groups) {
            u32 candidate = begin + c;
            if (candidate >= piece.rows || !slice.there) {
                break;
            }
            Vec4 sum = zeros();
#pragma unroll
            for (u32 warp = 0; warp < WARPS; warp++) {
                Vec4 more = get_vec4(of_warps + (warp * SHARE + c) * lanes + lane);
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    sum.numbers[e] += more.numbers[e];
                }
            }
            not_finite |= write_candidate(p, w, piece, slice, vec4, candidate, sum, again);
        }
        __syncwarp();
    }
    return not_finite;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) decoupled_attend(const DecoupledAttendParams p) {
    Weighing &w = *(Weighing *)dynamic_shared;
    // Read again wherever it is needed, because registers are scarce.
    const Piece &piece = p.pieces[blockIdx.x / p.column_blocks];
    Stage stage = stage_at(&w + 1, p.scoring);
    send_first(p.scoring, stage, piece);
    if (threadIdx.x < CANDIDATES) {
        w.maxima[threadIdx.x] = -infinity();
        w.row_sums[threadIdx.x] = 0.0f;
    }
#pragma unroll 1
    for (bool again = false;; again = true) {
        Vec4 acc[CANDIDATES];
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            acc[c] = zeros();
        }
        add_piece(acc, p, w, stage, piece, again);
        bool not_finite = write_piece(acc, p, w, piece, again);
        if (again || !__syncthreads_or(not_finite)) {
            return;
        }
        if (threadIdx.x < CANDIDATES) {
            w.rescales[threadIdx.x] = 0.5f / w.row_sums[threadIdx.x];
        }
        send_first(p.scoring, stage, piece);
        __syncwarp();
    }
}

// Combines partial results, of which some are normalised or too large to be added, with halves of normalised weights.
template <typename Factor>
__device__ __forceinline__ Vec4 combine_again(
    const DecoupledAttendParams &p, const Tile &tile, u32 candidate, u32 vec4, Factor factor_of) {
    float row_sum = 0.0f;
    for (u32 slot = tile.first_slot; slot < tile.first_slot + tile.slots; slot++) {
        float2 part = p.stats[stat_at(p, (u64)slot * CANDIDATES + candidate, vec4)];
        row_sum = fma(fabsf(part.y), factor_of(part), row_sum);
    }
    Vec4 acc = zeros();
    for (u32 slot = tile.first_slot; slot < tile.first_slot + tile.slots; slot++) {
        u64 at = (u64)slot * CANDIDATES + candidate;
        float2 part = p.stats[stat_at(p, at, vec4)];
        float weight = factor_of(part) * (part.y < 0.0f ? -part.y : 1.0f) / (2.0f * row_sum);
        Vec4 more = get_vec4(p.partial + at * p.rows.vec4s + vec4);
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            acc.numbers[e] = fma(more.numbers[e], weight, acc.numbers[e]);
        }
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        acc.numbers[e] = doubled(acc.numbers[e]);
    }
    return acc;
}

// A block per candidate of the tiles to combine.
extern "C" __global__ void __launch_bounds__(ROW_THREADS, 8) decoupled_attend_combine(const DecoupledAttendParams p) {
    const Tile tile = p.tiles[blockIdx.x / CANDIDATES];
    u32 candidate = blockIdx.x % CANDIDATES;
    if (candidate >= tile.rows) {
        return;
    }
    const u32 end = tile.first_slot + tile.slots;
    float row_max = -infinity();
    for (u32 slot = tile.first_slot; slot < end; slot++) {
        row_max = fmaxf(row_max, p.stats[stat_at(p, (u64)slot * CANDIDATES + candidate, 0)].x);
    }
    // If all scores of a piece were -∞ or NaN, its max is -∞; NaN is in its sum.
    auto factor_of = [&](float2 part) { return part.x == -infinity() ? 1.0f : exp_approx(part.x - row_max); };
    for (u32 vec4 = threadIdx.x; vec4 < p.rows.vec4s; vec4 += ROW_THREADS) {
        Vec4 acc = zeros();
        float row_sum = 0.0f, least = 0.0f;
        for (u32 slot = tile.first_slot; slot < end; slot++) {
            u64 at = (u64)slot * CANDIDATES + candidate;
            float2 part = p.stats[stat_at(p, at, vec4)];
            float factor = factor_of(part);
            Vec4 more = get_vec4(p.partial + at * p.rows.vec4s + vec4);
            row_sum = fma(part.y, factor, row_sum);
            least = fminf(least, part.y);
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                acc.numbers[e] = fma(more.numbers[e], factor, acc.numbers[e]);
            }
        }
        const bool plain = least == 0.0f && !any_not_finite<COLUMNS>(acc.numbers);
        acc = plain ? mean_of(acc, row_sum) : combine_again(p, tile, candidate, vec4, factor_of);
        write_sums(p.rows, slice_of(p.rows, vec4), tile.first_target + tile.first_row + candidate, acc);
    }
}
