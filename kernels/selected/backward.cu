// Gradients of attention over a selection. With the weights w of a head of a candidate, over its kept behaviours l:
//
//     dw_l = ⟨grad_out, v_l⟩            D = Σ w_l·dw_l             dα_l = w_l · (dw_l − D + grad_lse)
//     ds_l = dα_l · (γ₁ + γ₃·R_l)       dR[m,k] = Σ_h dα_l · (γ₂ + γ₃·s_l)      dγ[h] = Σ dα_l · (s_l, R_l, s_l·R_l)
//     dq = scale · Σ_l ds_l·k_l         dk_l = scale · Σ ds_l·q    dv_l = Σ w_l·grad_out              dbias[l,h] = Σ_m ds_l
//
// What a behaviour gets from a head of a candidate is a number times a row of the candidate, so that no gradient of a behaviour
// is stored: selected_gradients computes weights and gradients of scores again, one block per head of a candidate (rows.cuh), and
// writes for each slot its behaviour's row and (row, number) of what that row adds up. The slots are then sorted by row and summed
// by the kernels of look-ups (lookup/sort.cu, lookup/backward.cu), whose "bags" these are: a behaviour that all candidates keep
// costs as much as others.
//
// selected_widen makes queries and grad_out f32; selected_narrow stores sums; selected_gammas and selected_similarities add up
// what heads and candidates have found. Sums have a fixed order.
// Precision: f32; a weight is computed by the special function unit.
#include "selected/rows.cuh"

struct SelectedGradientParams {
    SelectedInputs inputs;
    const void *grad_out;
    // Null: zeros.
    const float *grad_lse;
    // [M, H, K] each: what each slot has. `grads` are first ⟨grad_out, v⟩, then the gradients of scores.
    u32 *places;
    float *weights;
    float *scores;
    float *grads;
    // [M, H, d], [M, H, K] and [M, H, 3]; null: not wanted.
    void *grad_queries;
    float *grad_similarities;
    float *grad_gammas;
    // [M, H, K]: the row of [N, H_kv], and that of [N, H]; NONE: the slot keeps nothing. Null: not wanted.
    u32 *key_rows;
    u32 *bias_rows;
    // [M, H, K]: the row of the queries and scale · ds, and the row of grad_out and the weight. Null: not wanted.
    uint2 *score_bags;
    uint2 *weight_bags;
    // The row of zeros after those of the queries, for heads whose scores do not count.
    u32 zeros;
    // Whether anything depends on gradients of α, and whether the gradient of the queries is stored in f32.
    u32 needs_grads, wide;
    u32 unused;
};

// The gradients of what a head of a candidate reads, of all its slots. A thread has the same slots to itself as before.
__device__ __forceinline__ void write_slots(
    const SelectedGradientParams &p, const Reader &r, const u32 *places, const float *weights, const float *scores,
    float *grads) {
    const u64 first = r.row * p.inputs.top_k;
    float mean = 0.0f, of_score = 0.0f, of_similarity = 0.0f, of_product = 0.0f;
    for (u32 k = threadIdx.x; p.needs_grads && k < r.count; k += blockDim.x) {
        mean = places[k] != NONE ? fma(weights[k], grads[k], mean) : mean;
    }
    mean = over_block<true>(mean);
    const float grad_lse = p.grad_lse ? __ldg(p.grad_lse + r.row) : 0.0f;
    const u32 heads = p.inputs.heads, kv_heads = p.inputs.kv_heads;
    for (u32 k = threadIdx.x; k < p.inputs.top_k; k += blockDim.x) {
        const u32 place = k < r.count ? places[k] : (u32)NONE;
        float weight = 0.0f, grad_score = 0.0f, grad_similarity = 0.0f;
        if (place != NONE) {
            weight = weights[k];
        }
        if (place != NONE && p.needs_grads) {
            const float score = scores[k], similarity = __ldg(p.inputs.similarities + r.first_slot + k);
            const float grad = weight * (grads[k] - mean + grad_lse);
            of_score += grad * score;
            of_similarity += grad * similarity;
            of_product += grad * (score * similarity);
            if (r.of_similarity != 0.0f || r.of_product != 0.0f) {
                grad_similarity = grad * (r.of_similarity + term(r.of_product, score));
            }
            if (r.uses_scores()) {
                grad_score = grad * (r.of_score + term(r.of_product, similarity));
            }
        }
        // Of empty slots, too: the sums of the bias may read, and drop, any.
        if (p.needs_grads) {
            grads[k] = grad_score;
        }
        if (p.grad_similarities) {
            p.grad_similarities[first + k] = grad_similarity;
        }
        const u64 behaviour = r.history + place;
        if (p.key_rows) {
            p.key_rows[first + k] = place != NONE ? (u32)(behaviour * kv_heads + r.kv_head) : (u32)NONE;
        }
        if (p.bias_rows) {
            p.bias_rows[first + k] = place != NONE ? (u32)(behaviour * heads + r.head) : (u32)NONE;
        }
        if (p.score_bags) {
            const u32 row = r.uses_scores() ? (u32)r.row : p.zeros;
            p.score_bags[first + k] = make_uint2(row, __float_as_uint(p.inputs.scale * grad_score));
        }
        if (p.weight_bags) {
            p.weight_bags[first + k] = make_uint2((u32)r.row, __float_as_uint(weight));
        }
    }
    if (p.grad_gammas) {
        of_score = over_block<true>(of_score);
        of_similarity = over_block<true>(of_similarity);
        of_product = over_block<true>(of_product);
        if (threadIdx.x < 3) {
            p.grad_gammas[3 * r.row + threadIdx.x] =
                threadIdx.x == 0 ? of_score : threadIdx.x == 1 ? of_similarity
                                                               : of_product;
        }
    }
}

// Stores a vector's numbers of a row of the gradient of the queries.
template <typename T>
__device__ __forceinline__ void store_gradient(
    const SelectedGradientParams &p, u64 row, u32 vector, const float *numbers) {
    const u32 width = p.inputs.width;
    if (sizeof(T) == sizeof(float) || !p.wide) {
        store_part<T>((T *)p.grad_queries + row * width, vector, width, numbers);
        return;
    }
    constexpr u32 PARTS = PER_VECTOR<T> / PER_VECTOR<float>;
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
        const u32 part = PARTS * vector + i;
        if (PER_VECTOR<float> * part < width) {
            store_part<float>((float *)p.grad_queries + row * width, part, width, numbers + PER_VECTOR<float> * i);
        }
    }
}

// dq: zeros where scores do not count.
template <typename T>
__device__ __forceinline__ void write_query(
    const SelectedGradientParams &p, const Reader &r, const u32 *places, const float *grads) {
    constexpr u32 PER = PER_VECTOR<T>;
    const KeptRows keys = rows_of<T>(p.inputs, r, p.inputs.keys, p.inputs.width);
    const u32 count = r.uses_scores() ? r.count : 0;
    for (u32 first = 0; first < keys.vectors; first += keys.lanes) {
        const u32 vector = first + keys.lane();
        float sum[PER];
        sum_rows<T>(keys, vector, places, grads, count, sum);
        over_groups<PER>(sum, keys.lanes, (float *)dynamic_shared);
        if (threadIdx.x < keys.lanes && vector < keys.vectors) {
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                sum[e] *= p.inputs.scale;
            }
            store_gradient<T>(p, r.row, vector, sum);
        }
    }
}

template <typename T>
__device__ __forceinline__ void gradients(const SelectedGradientParams &p) {
    const Reader r = reader_of(p.inputs);
    const u64 first = r.row * p.inputs.top_k;
    u32 *places = p.places + first;
    float *weights = p.weights + first, *scores = p.scores + first, *grads = p.grads + first;
    const bool scored = r.uses_scores() || p.grad_gammas;
    find_places(p.inputs, r, places);
    __syncthreads();
    if (scored) {
        const KeptRows keys = rows_of<T>(p.inputs, r, p.inputs.keys, p.inputs.width);
        multiply_rows<T>(keys, (const T *)p.inputs.queries + r.row * p.inputs.width, places, r.count, weights);
        __syncthreads();
    }
    const State state = weigh(p.inputs, r, scored, places, weights, scores);
    for (u32 k = threadIdx.x; k < r.count; k += blockDim.x) {
        weights[k] = places[k] != NONE ? weights[k] / state.row_sum : 0.0f;
    }
    __syncthreads();
    if (p.needs_grads) {
        const u32 width = p.inputs.value_width;
        const KeptRows values = rows_of<T>(p.inputs, r, p.inputs.values, width);
        multiply_rows<T>(values, (const T *)p.grad_out + r.row * width, places, r.count, grads);
        __syncthreads();
    }
    write_slots(p, r, places, weights, scores, grads);
    if (p.grad_queries) {
        __syncthreads();
        write_query<T>(p, r, places, grads);
    }
}

// Three blocks per multiprocessor: without the bound, ptxas aims at more on some devices, and spills.
#define GRADIENTS(T)                                                                                                       \
    LAYOUT(selected_gradients_##T, 32 * PER_VECTOR<T> * sizeof(float), 256 * PER_VECTOR<T> * sizeof(float));               \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 3) selected_gradients_##T(const SelectedGradientParams p) { \
        gradients<T>(p);                                                                                                   \
    }

GRADIENTS(f32)
GRADIENTS(f16)
GRADIENTS(bf16)

__device__ __forceinline__ u64 thread_index() { return (u64)blockIdx.x * MOST_THREADS + threadIdx.x; }

struct SelectedWidenParams {
    const void *rows;
    float *out;
    // Numbers, and those and the zeros after them.
    u64 count, total;
};

template <typename T>
__device__ __forceinline__ void widen_rows(const SelectedWidenParams &p) {
    const u64 at = thread_index();
    if (at < p.total) {
        p.out[at] = at < p.count ? widen(((const T *)p.rows)[at]) : 0.0f;
    }
}

struct SelectedNarrowParams {
    const float *first;
    // Null: nothing is added.
    const float *second;
    void *out;
    u64 count;
};

template <typename T>
__device__ __forceinline__ void narrow_rows(const SelectedNarrowParams &p) {
    const u64 at = thread_index();
    if (at < p.count) {
        const float second = p.second ? p.second[at] : 0.0f;
        ((T *)p.out)[at] = narrow<T>(p.first[at] + second);
    }
}

#define ROWS(T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_widen_##T(const SelectedWidenParams p) {   \
        widen_rows<T>(p);                                                                                          \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_narrow_##T(const SelectedNarrowParams p) { \
        narrow_rows<T>(p);                                                                                         \
    }

ROWS(f32)
ROWS(f16)
ROWS(bf16)

struct SelectedGammasParams {
    // [candidates, numbers]
    const float *parts;
    float *out;
    u64 candidates;
    u32 numbers;
    u32 unused;
};

// A block takes a number.
extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_gammas(const SelectedGammasParams p) {
    float sum = 0.0f;
    for (u64 m = threadIdx.x; m < p.candidates; m += MOST_THREADS) {
        sum += __ldg(p.parts + m * p.numbers + blockIdx.x);
    }
    sum = over_block<true>(sum);
    if (threadIdx.x == 0) {
        p.out[blockIdx.x] = sum;
    }
}

struct SelectedSimilaritiesParams {
    // [M, H, K]
    const float *parts;
    float *out;
    // M·K
    u64 slots;
    u32 top_k;
    u32 heads;
};

extern "C" __global__ void __launch_bounds__(MOST_THREADS) selected_similarities(const SelectedSimilaritiesParams p) {
    const u64 slot = thread_index();
    if (slot < p.slots) {
        const u64 first = slot / p.top_k * p.heads * p.top_k + slot % p.top_k;
        float sum = 0.0f;
        for (u32 head = 0; head < p.heads; head++) {
            sum += __ldg(p.parts + first + (u64)head * p.top_k);
        }
        p.out[slot] = sum;
    }
}
