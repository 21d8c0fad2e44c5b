// Attention over the behaviours that a search kept, and histograms of their similarities.
//
//     s_l = scale · ⟨q[m,h], k[l,h']⟩ + bias[l,h]            l = positions[m,k],  h' = h·H_kv/H
//     α_l = γ₁[h]·s_l + γ₂[h]·R[m,k] + γ₃[h]·s_l·R[m,k]      R the selection's scores
//     out[m,h] = Σ w_l · v[l,h'],  w = softmax(α)            lse[m,h] = ln Σ exp α_l
//
// A block takes a head of a candidate, with as many threads as read its rows in one turn, from a warp to eight (rows.cuh). Keys
// are gathered for the scores, then values for the sums; keys that are the values come from the cache the second time. Places and
// weights of the slots are in shared memory, or in device memory where there are more than it has room for.
// Precision: f32; a weight is computed by the special function unit, with an error of a few ulp. Halves of weights are summed, so
// that values of the largest numbers do not overflow.
#include "selected/rows.cuh"

struct SelectedAttentionParams {
    SelectedInputs inputs;
    void *out;
    // Null: not wanted.
    float *lse;
    // [M, H, K] each; null: in shared memory.
    u32 *places;
    float *weights;
};

// Bytes of shared memory of a block that keeps so many slots there.
template <typename T>
__device__ constexpr u32 shared_bytes(u32 threads, u32 slots) {
    return threads * PER_VECTOR<T> * sizeof(float) + slots * (sizeof(u32) + sizeof(float));
}

template <typename T>
__device__ __forceinline__ void attend(const SelectedAttentionParams &p) {
    constexpr u32 PER = PER_VECTOR<T>;
    const Reader r = reader_of(p.inputs);
    float *of_groups = (float *)dynamic_shared;
    u32 *places = (u32 *)(of_groups + blockDim.x * PER);
    float *weights = (float *)(places + p.inputs.top_k);
    if (p.places) {
        places = p.places + r.row * p.inputs.top_k;
        weights = p.weights + r.row * p.inputs.top_k;
    }
    find_places(p.inputs, r, places);
    __syncthreads();
    if (r.uses_scores()) {
        const KeptRows keys = rows_of<T>(p.inputs, r, p.inputs.keys, p.inputs.width);
        multiply_rows<T>(keys, (const T *)p.inputs.queries + r.row * p.inputs.width, places, r.count, weights);
        __syncthreads();
    }
    const State state = weigh(p.inputs, r, r.uses_scores(), places, weights, nullptr);
    for (u32 k = threadIdx.x; k < r.count; k += blockDim.x) {
        weights[k] = places[k] != NONE ? weights[k] / (2.0f * state.row_sum) : 0.0f;
    }
    if (p.lse && threadIdx.x == 0) {
        p.lse[r.row] = state.row_sum == 0.0f ? -infinity() : state.row_max + logf(state.row_sum);
    }
    __syncthreads();
    const KeptRows values = rows_of<T>(p.inputs, r, p.inputs.values, p.inputs.value_width);
    T *out = (T *)p.out + r.row * p.inputs.value_width;
    for (u32 first = 0; first < values.vectors; first += values.lanes) {
        const u32 vector = first + values.lane();
        float sum[PER];
        sum_rows<T>(values, vector, places, weights, r.count, sum);
        over_groups<PER>(sum, values.lanes, of_groups);
        if (threadIdx.x < values.lanes && vector < values.vectors) {
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                sum[e] = doubled(sum[e]);
            }
            store_part<T>(out, vector, p.inputs.value_width, sum);
        }
    }
}

// Three blocks per multiprocessor: without the bound, ptxas aims at more on some devices, and spills.
#define ATTENTION(T)                                                                                                        \
    LAYOUT(selected_attention_##T, shared_bytes<T>(32, 0), shared_bytes<T>(256, 100));                                      \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 3) selected_attention_##T(const SelectedAttentionParams p) { \
        attend<T>(p);                                                                                                       \
    }

ATTENTION(f32)
ATTENTION(f16)
ATTENTION(bf16)

struct SimilarityHistogramParams {
    // [M, K] and [M].
    const float *similarities;
    const u32 *counts;
    // [M, 2n + 1]
    u32 *out;
    u64 *bad_counts;
    u32 top_k, steps;
    // Whether it is added to what is there.
    u32 add;
    u32 unused;
};

// A block takes a candidate: bin ⌈R·n⌉ + n, from 0 to 2n. Neither NaN nor -∞ is counted. Counts are integers, so that their order
// does not matter.
extern "C" __global__ void __launch_bounds__(MOST_THREADS) similarity_histogram(const SimilarityHistogramParams p) {
    u32 *bins = (u32 *)dynamic_shared;
    const u64 m = blockIdx.x;
    const u32 count = __ldg(p.counts + m);
    const float steps = (float)p.steps;
    if (count > p.top_k && threadIdx.x == 0) {
        report_bad_id(p.bad_counts, m, count);
    }
    for (u32 bin = threadIdx.x; bin < 2 * p.steps + 1; bin += blockDim.x) {
        bins[bin] = 0;
    }
    __syncthreads();
    for (u32 k = threadIdx.x; k < count && count <= p.top_k; k += blockDim.x) {
        const float similarity = __ldg(p.similarities + m * p.top_k + k);
        if (similarity > -infinity()) {
            const float bin = fminf(fmaxf(ceilf(similarity * steps), -steps), steps) + steps;
            atomicAdd(bins + (u32)bin, 1u);
        }
    }
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < 2 * p.steps + 1; bin += blockDim.x) {
        u32 *to = p.out + m * (2 * p.steps + 1) + bin;
        *to = p.add ? *to + bins[bin] : bins[bin];
    }
}
