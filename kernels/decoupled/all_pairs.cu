// Gradients of decoupled embeddings over all behaviours, of a bounded number of behaviours and pairs at a time (a chunk).
//
// With the candidates' attention rows times the scales q (divided by a power of two c where they are larger than 1), gathered rows k and
// r of the behaviours, and gradients g of the means:
//
//     s = c·⟨q_m, k_l⟩    w = exp(s − max_m) / sum_m    ds = c·w · (⟨g_m, r_l⟩ − mean_m)    mean_m = Σ_l w ⟨g_m, r_l⟩
//     dr_l = Σ_m w · g_m      dk_l = Σ_m ds · q_m       dq_m = Σ_l ds · k_l              mean row of m: Σ_l w · r_l
//
// Chunks are cut into spans of up to 256 behaviours of one user, and spans into tiles with up to 16 candidates.
// decoupled_all_states computes maximum, sum and mean of each tile, decoupled_merge_states adds those of the spans of a chunk to the
// candidates' in order. With these, decoupled_all_pairs writes w and ds of the pairs of a chunk, from scores that are computed by the same
// operations, so that a score and its maximum are rounded alike. decoupled_all_behaviours and decoupled_all_candidates sum over
// candidates and over behaviours; decoupled_merge_sums adds the sums of spans to the candidates' rows in order.
// The ids of the behaviours that any candidate keeps, and of the candidates that keep any, are then sorted, and what
// each id gets from a chunk is added to its row by decoupled_add_rows.
//
// A score of -∞ removes a behaviour: the pair has the weight -1, and nothing is multiplied by it.
// Precision: f32; a weight is computed by the special function unit, with an error of a few ulp.
// This file has the kernels up to decoupled_all_pairs, all_sums.cu those that follow.
#include "decoupled/chunks.cuh"

struct DecoupledPairsParams {
    const DecoupledSpan *spans;
    const DecoupledTile *tiles;
    // [M, Σ a] and [M, Σ r].
    const float *queries, *grads;
    // Of the chunk, [_, Σ a] and [_, Σ r]; values are null where only weights are wanted.
    const float *keys, *values;
    const State *states;
    State *partial;
    // Of the chunk's behaviours: whether any candidate keeps it.
    u32 *kept;
    // Of the pairs.
    float *weights, *score_grads;
    u32 attention_width, representation_width;
    // c: on the products of rows, and so on the gradients of scores.
    float factor;
    u32 unused;
};

struct DecoupledMergeStatesParams {
    const DecoupledMerge *merges;
    const State *partial;
    State *states;
};

struct Stage {
    float behaviours[BEHAVIOURS][STAGED + 1];
    float candidates[CANDIDATES][STAGED + 1];
};

// Copies columns of some rows; zeros for rows that are not there.
template <u32 ROWS>
__device__ __forceinline__ void stage_rows(float (*to)[STAGED + 1], const float *from, u32 rows, u32 width, u32 first) {
    for (u32 i = threadIdx.x; i < ROWS * STAGED; i += THREADS) {
        u32 row = i / STAGED, column = i % STAGED;
        bool there = row < rows && first + column < width;
        to[row][column] = there ? __ldg(from + (u64)row * width + first + column) : 0.0f;
    }
}

// The products of the rows of this thread's candidates and behaviours. All threads call it together.
__device__ __forceinline__ void multiply_rows(
    float (*out)[OWN_BEHAVIOURS], Stage &stage, const float *candidates, u32 candidate_rows, const float *behaviours,
    u32 behaviour_rows, u32 width) {
    const u32 lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
#pragma unroll
        for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
            out[c][l] = 0.0f;
        }
    }
    for (u32 first = 0; first < width; first += STAGED) {
        __syncthreads();
        stage_rows<BEHAVIOURS>(stage.behaviours, behaviours, behaviour_rows, width, first);
        stage_rows<CANDIDATES>(stage.candidates, candidates, candidate_rows, width, first);
        __syncthreads();
        const u32 columns = min((u32)STAGED, width - first);
        for (u32 column = 0; column < columns; column++) {
            float own[OWN_BEHAVIOURS];
#pragma unroll
            for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
                own[l] = stage.behaviours[lane + l * LANES][column];
            }
#pragma unroll
            for (u32 c = 0; c < OWN_CANDIDATES; c++) {
                const float other = stage.candidates[group * OWN_CANDIDATES + c][column];
#pragma unroll
                for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
                    out[c][l] = fma(other, own[l], out[c][l]);
                }
            }
        }
    }
}

// The scores of this thread's pairs, and the products of gradients and values if there are values.
__device__ __forceinline__ void score_pairs(
    float (*scores)[OWN_BEHAVIOURS], float (*products)[OWN_BEHAVIOURS], Stage &stage, const DecoupledPairsParams &p,
    const DecoupledSpan &span, u32 first_row, u32 begin) {
    const u32 a = p.attention_width, r = p.representation_width;
    const u32 rows = min((u32)BEHAVIOURS, span.rows - begin), candidates = min((u32)CANDIDATES, span.targets - first_row);
    const u64 m = (u64)span.first_target + first_row, row = (u64)span.row + begin;
    multiply_rows(scores, stage, p.queries + m * a, candidates, p.keys + row * a, rows, a);
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
#pragma unroll
        for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
            scores[c][l] *= p.factor;
        }
    }
    if (p.values) {
        multiply_rows(products, stage, p.grads + m * r, candidates, p.values + row * r, rows, r);
    }
}

// The factor on sums whose maximum was `before`; both may be -∞.
__device__ __forceinline__ float rescale(float before, float now) { return before == now ? 1.0f : exp_approx(before - now); }

// Adds the sums of b to those of a. `mean` is still a sum.
__device__ __forceinline__ State merged(const State &a, const State &b) {
    const float now = fmaxf(a.max, b.max);
    const float of_a = rescale(a.max, now), of_b = rescale(b.max, now);
    return State{now, a.sum * of_a + b.sum * of_b, a.mean * of_a + b.mean * of_b, 0};
}

__device__ __forceinline__ State lane_state(const State &state, u32 lanes) {
    return State{shuffle_xor(state.max, lanes), shuffle_xor(state.sum, lanes), shuffle_xor(state.mean, lanes), 0};
}

extern "C" __global__ void __launch_bounds__(THREADS) decoupled_all_states(const DecoupledPairsParams p) {
    __shared__ Stage stage;
    const DecoupledTile tile = p.tiles[blockIdx.x];
    const DecoupledSpan span = p.spans[tile.span];
    const u32 lane = threadIdx.x % LANES, first_own = tile.first_row + threadIdx.x / LANES * OWN_CANDIDATES;
    State states[OWN_CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
        states[c] = State{-infinity(), 0.0f, 0.0f, 0};
    }
    for (u32 begin = 0; begin < span.rows; begin += BEHAVIOURS) {
        float scores[OWN_CANDIDATES][OWN_BEHAVIOURS], products[OWN_CANDIDATES][OWN_BEHAVIOURS] = {};
        score_pairs(scores, products, stage, p, span, tile.first_row, begin);
#pragma unroll
        for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
            const u32 row = begin + lane + l * LANES;
            bool keeps = false;
#pragma unroll
            for (u32 c = 0; c < OWN_CANDIDATES; c++) {
                const float score = scores[c][l];
                if (row < span.rows && first_own + c < span.targets && score != -infinity()) {
                    const float now = fmaxf(states[c].max, score), factor = rescale(states[c].max, now);
                    const float weight = exp_approx(score - now);
                    states[c].max = now;
                    states[c].sum = fma(states[c].sum, factor, weight);
                    states[c].mean = fma(weight, products[c][l], states[c].mean * factor);
                    keeps = true;
                }
            }
            if (keeps) {
                atomicOr(p.kept + span.row + row, 1u);
            }
        }
    }
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
        for (u32 lanes = LANES / 2; lanes > 0; lanes /= 2) {
            states[c] = merged(states[c], lane_state(states[c], lanes));
        }
        if (lane == 0 && first_own + c < span.targets) {
            p.partial[span.partial + first_own + c] = states[c];
        }
    }
}

// A thread for each candidate.
extern "C" __global__ void __launch_bounds__(WARP) decoupled_merge_states(const DecoupledMergeStatesParams p) {
    const DecoupledMerge merge = p.merges[blockIdx.x];
    if (threadIdx.x >= merge.rows) {
        return;
    }
    State *to = p.states + merge.first_target + threadIdx.x;
    State state = *to;
    // Cleared at first.
    if (state.sum == 0.0f) {
        state.max = -infinity();
    }
    for (u32 span = 0; span < merge.spans; span++) {
        state = merged(state, p.partial[merge.partial + (u64)span * merge.step + threadIdx.x]);
    }
    *to = state;
}

extern "C" __global__ void __launch_bounds__(THREADS) decoupled_all_pairs(const DecoupledPairsParams p) {
    __shared__ Stage stage;
    const DecoupledTile tile = p.tiles[blockIdx.x];
    const DecoupledSpan span = p.spans[tile.span];
    const u32 lane = threadIdx.x % LANES, first_own = tile.first_row + threadIdx.x / LANES * OWN_CANDIDATES;
    float row_max[OWN_CANDIDATES], inverse[OWN_CANDIDATES], means[OWN_CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < OWN_CANDIDATES; c++) {
        const bool there = first_own + c < span.targets;
        const State state = there ? p.states[span.first_target + first_own + c] : State{0.0f, 1.0f, 0.0f, 0};
        row_max[c] = state.max;
        inverse[c] = 1.0f / state.sum;
        means[c] = state.mean * inverse[c];
    }
    for (u32 begin = 0; begin < span.rows; begin += BEHAVIOURS) {
        float scores[OWN_CANDIDATES][OWN_BEHAVIOURS], products[OWN_CANDIDATES][OWN_BEHAVIOURS] = {};
        score_pairs(scores, products, stage, p, span, tile.first_row, begin);
#pragma unroll
        for (u32 c = 0; c < OWN_CANDIDATES; c++) {
#pragma unroll
            for (u32 l = 0; l < OWN_BEHAVIOURS; l++) {
                const u32 row = begin + lane + l * LANES;
                if (row < span.rows && first_own + c < span.targets) {
                    const float score = scores[c][l];
                    const bool removed = score == -infinity();
                    const float weight = removed ? -1.0f : exp_approx(score - row_max[c]) * inverse[c];
                    const u64 pair = span.pairs + (u64)(first_own + c) * span.rows + row;
                    p.weights[pair] = weight;
                    if (p.values) {
                        p.score_grads[pair] = removed ? 0.0f : p.factor * (weight * (products[c][l] - means[c]));
                    }
                }
            }
        }
    }
}
