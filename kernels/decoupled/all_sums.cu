// Sums of the gradients over all behaviours, from the weights and gradients of scores of all_pairs.cu, which says what they are.
// Precision: f32.
#include "decoupled/chunks.cuh"

struct DecoupledPairSumsParams {
    const DecoupledSpan *spans;
    const DecoupledTile *tiles;
    // Of the pairs: the factors, and weights, which tell what is removed.
    const float *factors, *weights;
    // [M, width] or [_, width] of the chunk.
    const float *rows;
    // Of the chunk's behaviours, or partial results of candidates.
    float *out;
    u32 width;
    // Blocks that share a span or a tile: of columns.
    u32 column_blocks;
};

struct DecoupledMergeSumsParams {
    const DecoupledMerge *merges;
    const float *partial;
    // [M, width], which are added to.
    float *out;
    u32 width;
    // Blocks that share 16 candidates.
    u32 blocks;
};

struct DecoupledAllIdsParams {
    const u32 *kept;
    const State *states;
    const u32 *ids, *target_ids;
    // [N, F] and [M, F]; NONE where nothing is kept.
    u32 *behaviour_ids, *candidate_ids;
    u64 behaviours, candidates;
    u32 features;
    u32 unused;
};

struct DecoupledScaleParams {
    // [rows, row_width], of which some columns are multiplied by factors of the same shape, and by `scale`.
    float *data;
    // Null: ones.
    const float *factors;
    u64 items;
    u32 row_width, first_column, width;
    float scale;
};

struct DecoupledAddRowsParams {
    // The rows of a chunk; null: rows are cleared.
    const float *rows;
    const u32 *ids, *count;
    float *out;
    // The ids of all rows, and their number; null: every row is there.
    const u32 *out_ids, *out_count;
    // Threads that may have something to do.
    u64 items;
    u32 width;
    u32 unused;
};

// Adds factor · row of the pairs that are not removed.
template <bool ALL, u32 COUNT, u32 OUTER, u32 INNER, typename Factor, typename Row>
__device__ __forceinline__ void add_products(float (*sums)[INNER], Factor factor, Row row) {
    for (u32 i = 0; i < COUNT; i++) {
        float rows[INNER];
#pragma unroll
        for (u32 column = 0; column < INNER; column++) {
            rows[column] = row(i, column);
        }
#pragma unroll
        for (u32 own = 0; own < OUTER; own++) {
            bool keeps = true;
            const float by = factor(i, own, keeps);
#pragma unroll
            for (u32 column = 0; column < INNER; column++) {
                if (ALL || keeps) {
                    sums[own][column] = fma(by, rows[column], sums[own][column]);
                }
            }
        }
    }
}

// The gradients of behaviours: out[l] = Σ_m factor · rows[m]. A block takes 64 behaviours and 32 columns.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_all_behaviours(const DecoupledPairSumsParams p) {
    __shared__ float factors[CANDIDATES][BEHAVIOURS + 1], weights[CANDIDATES][BEHAVIOURS + 1];
    __shared__ float rows[CANDIDATES][BEHAVIOUR_COLUMNS + 1];
    const u32 part = blockIdx.x / p.column_blocks, first_column = blockIdx.x % p.column_blocks * BEHAVIOUR_COLUMNS;
    const DecoupledSpan span = p.spans[part / (SPAN / BEHAVIOURS)];
    const u32 begin = part % (SPAN / BEHAVIOURS) * BEHAVIOURS;
    if (begin >= span.rows) {
        return;
    }
    const u32 lane = threadIdx.x % LANES, own_column = threadIdx.x / LANES * OWN_COLUMNS;
    float sums[OWN_BEHAVIOURS][OWN_COLUMNS] = {};
    for (u32 first = 0; first < span.targets; first += CANDIDATES) {
        __syncthreads();
        bool all = true;
        for (u32 i = threadIdx.x; i < CANDIDATES * BEHAVIOURS; i += THREADS) {
            const u32 c = i / BEHAVIOURS, l = i % BEHAVIOURS;
            const bool there = first + c < span.targets && begin + l < span.rows;
            const u64 pair = span.pairs + (u64)(first + c) * span.rows + begin + l;
            factors[c][l] = there ? __ldg(p.factors + pair) : 0.0f;
            weights[c][l] = there ? __ldg(p.weights + pair) : 0.0f;
            all &= weights[c][l] != -1.0f;
        }
        for (u32 i = threadIdx.x; i < CANDIDATES * BEHAVIOUR_COLUMNS; i += THREADS) {
            const u32 c = i / BEHAVIOUR_COLUMNS, column = first_column + i % BEHAVIOUR_COLUMNS;
            const bool there = first + c < span.targets && column < p.width;
            const float *from = p.rows + ((u64)span.first_target + first + c) * p.width + column;
            rows[c][i % BEHAVIOUR_COLUMNS] = there ? __ldg(from) : 0.0f;
        }
        all = __syncthreads_and(all);
        float some[OWN_BEHAVIOURS][OWN_COLUMNS] = {};
        auto factor = [&](u32 c, u32 own, bool &keeps) {
            keeps = all || weights[c][lane + own * LANES] != -1.0f;
            return factors[c][lane + own * LANES];
        };
        auto row = [&](u32 c, u32 column) { return rows[c][own_column + column]; };
        if (all) {
            add_products<true, CANDIDATES, OWN_BEHAVIOURS, OWN_COLUMNS>(some, factor, row);
        } else {
            add_products<false, CANDIDATES, OWN_BEHAVIOURS, OWN_COLUMNS>(some, factor, row);
        }
#pragma unroll
        for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
#pragma unroll
            for (u32 column = 0; column < OWN_COLUMNS; column++) {
                sums[l][column] += some[l][column];
            }
        }
    }
#pragma unroll
    for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
        const u32 row = begin + lane + l * LANES;
#pragma unroll
        for (u32 column = 0; column < OWN_COLUMNS; column++) {
            const u32 to = first_column + own_column + column;
            if (row < span.rows && to < p.width) {
                p.out[((u64)span.row + row) * p.width + to] = sums[l][column];
            }
        }
    }
}

// Halves of the partial sums of candidates: out[m] = Σ_l factor/2 · rows[l] over a span. (A mean of the largest numbers may be beyond
// them by a rounding error.) A block takes a tile and 64 columns.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_all_candidates(const DecoupledPairSumsParams p) {
    __shared__ float factors[CANDIDATES][STAGED + 1], weights[CANDIDATES][STAGED + 1];
    __shared__ float rows[STAGED][CANDIDATE_COLUMNS];
    const DecoupledTile tile = p.tiles[blockIdx.x / p.column_blocks];
    const u32 first_column = blockIdx.x % p.column_blocks * CANDIDATE_COLUMNS;
    const DecoupledSpan span = p.spans[tile.span];
    const u32 lane = threadIdx.x % LANES, own_row = threadIdx.x / LANES * OWN_CANDIDATES;
    float sums[OWN_CANDIDATES][OWN_COLUMNS] = {};
    for (u32 begin = 0; begin < span.rows; begin += STAGED) {
        __syncthreads();
        bool all = true;
        for (u32 i = threadIdx.x; i < CANDIDATES * STAGED; i += THREADS) {
            const u32 c = i / STAGED, l = i % STAGED, m = tile.first_row + c;
            const bool there = m < span.targets && begin + l < span.rows;
            const u64 pair = span.pairs + (u64)m * span.rows + begin + l;
            factors[c][l] = there ? 0.5f * __ldg(p.factors + pair) : 0.0f;
            weights[c][l] = there ? __ldg(p.weights + pair) : 0.0f;
            all &= weights[c][l] != -1.0f;
        }
        for (u32 i = threadIdx.x; i < STAGED * CANDIDATE_COLUMNS; i += THREADS) {
            const u32 l = i / CANDIDATE_COLUMNS, column = first_column + i % CANDIDATE_COLUMNS;
            const bool there = begin + l < span.rows && column < p.width;
            const float *from = p.rows + ((u64)span.row + begin + l) * p.width + column;
            rows[l][i % CANDIDATE_COLUMNS] = there ? __ldg(from) : 0.0f;
        }
        all = __syncthreads_and(all);
        float some[OWN_CANDIDATES][OWN_COLUMNS] = {};
        auto factor = [&](u32 l, u32 own, bool &keeps) {
            keeps = all || weights[own_row + own][l] != -1.0f;
            return factors[own_row + own][l];
        };
        auto row = [&](u32 l, u32 column) { return rows[l][lane + column * LANES]; };
        if (all) {
            add_products<true, STAGED, OWN_CANDIDATES, OWN_COLUMNS>(some, factor, row);
        } else {
            add_products<false, STAGED, OWN_CANDIDATES, OWN_COLUMNS>(some, factor, row);
        }
#pragma unroll
        for (u32 c = 0; c < OWN_CANDIDATES; c++) {
#pragma unroll
            for (u32 column = 0; column < OWN_COLUMNS; column++) {
                sums[c][column] += some[c][column];
            }
        }
    }
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
        const u32 m = tile.first_row + own_row + c;
#pragma unroll
        for (u32 column = 0; column < OWN_COLUMNS; column++) {
            const u32 to = first_column + lane + column * LANES;
            if (m < span.targets && to < p.width) {
                p.out[((u64)span.partial + m) * p.width + to] = sums[c][column];
            }
        }
    }
}

// A thread for each number of some candidates' rows.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_merge_sums(const DecoupledMergeSumsParams p) {
    const DecoupledMerge merge = p.merges[blockIdx.x / p.blocks];
    const u32 item = blockIdx.x % p.blocks * THREADS + threadIdx.x;
    if (item >= merge.rows * p.width) {
        return;
    }
    float *to = p.out + (u64)merge.first_target * p.width + item;
    float sum = 0.0f;
    for (u32 span = 0; span < merge.spans; span++) {
        sum += __ldg(p.partial + (merge.partial + (u64)span * merge.step) * p.width + item);
    }
    *to += sum;
}

// A thread for each id.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_all_ids(const DecoupledAllIdsParams p) {
    const u64 index = (u64)blockIdx.x * THREADS + threadIdx.x, behaviours = p.behaviours * p.features;
    if (index < behaviours) {
        p.behaviour_ids[index] = __ldg(p.kept + index / p.features) ? __ldg(p.ids + index) : NONE;
    } else if (index - behaviours < p.candidates * p.features) {
        const u64 own = index - behaviours;
        // NaN is not equal to 0.
        p.candidate_ids[own] = p.states[own / p.features].sum != 0.0f ? __ldg(p.target_ids + own) : NONE;
    }
}

// A thread for each number.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_scale(const DecoupledScaleParams p) {
    const u64 item = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (item < p.items) {
        const u64 at = item / p.width * p.row_width + p.first_column + item % p.width;
        // The scale comes last: it doubles halves of sums.
        p.data[at] = p.data[at] * (p.factors ? __ldg(p.factors + at) : 1.0f) * p.scale;
    }
}

// A thread for each number of the rows of a chunk, or, where there are none, of what is cleared.
extern "C" __global__ void __launch_bounds__(THREADS) decoupled_add_rows(const DecoupledAddRowsParams p) {
    const u64 item = (u64)blockIdx.x * THREADS + threadIdx.x, row = item / p.width;
    if (item >= p.items) {
        return;
    }
    if (!p.rows) {
        if (!p.out_count || row < *p.out_count) {
            p.out[item] = 0.0f;
        }
        return;
    }
    if (row >= *p.count) {
        return;
    }
    const u32 id = __ldg(p.ids + row);
    u64 place = id;
    if (p.out_ids) {
        u32 low = 0, high = __ldg(p.out_count);
        while (high - low > 1) {
            u32 middle = low + (high - low) / 2;
            if (__ldg(p.out_ids + middle) <= id) {
                low = middle;
            } else {
                high = middle;
            }
        }
        place = low;
    }
    p.out[place * p.width + item % p.width] += __ldg(p.rows + item);
}
