// Gradients of target attention: what comes before and after backward_fma.cu, and the gradients of a merge.
#include "target_attention/backward.cuh"

enum : u32 {
    ROWS_PER_BLOCK = WARPS,
    // The widest row.
    MOST_WIDTH = 256,
};

struct AttentionStatesParams {
    // Whole histories, of the users that have candidates.
    const AttentionSpan *users;
    const void *queries;
    const void *keys;
    const float *bias;
    // What the forward pass saved: [M, H, d_v] and [M, H].
    const void *out;
    const float *lse;
    // [M, H, d_v] and [M, H]; grad_lse may be null.
    const void *grad_out;
    const float *grad_lse;
    // [M, H].
    RowState *states;
    u64 rows;
    u32 user_count, kv_heads, group_heads, width, value_width, storage;
    float scale;
    // How the kernel that follows adds the products of a score, one of ScoredBy.
    u32 scored_by;
};

enum ScoredBy : u32 {
    // One chain of multiply-adds: backward_fma.cu.
    BY_THREADS = 0,
    // The columns of a behaviour lie four to a lane: backward_stream.cu.
    BY_LANES = 1,
    // Matrix units: backward_mma.cu.
    BY_MATRIX_UNITS = 2
};

// attention_states: what softmax subtracts in each query row.
//
//     shift = lse   factor = 1   subtracted = ⟨grad_out, out⟩ - grad_lse
//
// exp(score - lse) is as exact as lse, which is rounded to f32. Above COARSE in magnitude shift is the largest score and factor
// 1/Σ exp(score - shift), computed again: otherwise each of n behaviours that are all masked with f32's smallest number would get
// the weight 1.
// A warp per row. Where a row is coarse, the whole block goes over its user's history: a behaviour per thread, or per warp, or 16 per
// warp. Scores have the same bits as in the kernel that follows (ScoredBy). Otherwise a score could exceed the largest one by its
// rounding error.
constexpr float COARSE = 256.0f;

// The user of a candidate.
__device__ __forceinline__ AttentionSpan user_of(const AttentionStatesParams &p, u64 target) {
    u32 low = 0, high = p.user_count;
#pragma unroll 1
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        bool after = p.users[middle].first_target <= target;
        low = after ? middle : low;
        high = after ? high : middle;
    }
    return p.users[low];
}

// The product of a query and a key, of the same bits in all lanes that take part: this thread alone, or the warp.
__device__ __forceinline__ float dot_as_scored(const AttentionStatesParams &p, u64 query, u64 key) {
    float dot = 0.0f;
    if (p.scored_by == BY_THREADS) {
#pragma unroll 1
        for (u32 i = 0; i < p.width; i++) {
            dot = fma(load_stored(p.storage, p.queries, query + i), load_stored(p.storage, p.keys, key + i), dot);
        }
        return dot;
    }
    u32 column = threadIdx.x % WARP * 4;
    if (column < p.width) {
#pragma unroll 1
        for (u32 i = column; i < column + 4; i++) {
            dot = fma(load_stored(p.storage, p.queries, query + i), load_stored(p.storage, p.keys, key + i), dot);
        }
    }
    return warp_sum(dot);
}

// The products of a query and the keys of 16 behaviours: of the behaviours lane / 4 and lane / 4 + 8, whose keys are given.
template <typename T>
__device__ __forceinline__ float2 dots_of_matrix_units(const AttentionStatesParams &p, u64 query, u64 low_key, u64 high_key) {
    const u16 *from[3] = {(const u16 *)p.queries + query, (const u16 *)p.keys + low_key, (const u16 *)p.keys + high_key};
    float dots[4] = {};
#pragma unroll 1
    for (u32 k = threadIdx.x % 4 * 2; k < (p.width + 15) / 16 * 16; k += 16) {
        // Widths are multiples of 8.
        const bool whole = k + 8 < p.width;
        u32 a[4], b[2];
        b[0] = *(const u32 *)(from[0] + k);
        b[1] = whole ? *(const u32 *)(from[0] + k + 8) : 0;
        a[0] = *(const u32 *)(from[1] + k);
        a[1] = *(const u32 *)(from[2] + k);
        a[2] = whole ? *(const u32 *)(from[1] + k + 8) : 0;
        a[3] = whole ? *(const u32 *)(from[2] + k + 8) : 0;
        __syncwarp();
        multiply_add<T>(dots, a, b);
    }
    return make_float2(dots[0], dots[2]);
}

// A maximum, and the sum of what exceeds it as a power.
struct SoftmaxPart {
    float most, sum;

    __device__ __forceinline__ void add(const AttentionStatesParams &p, float dot, u64 bias) {
        float score = p.bias == nullptr ? dot * p.scale : fma(dot, p.scale, p.bias[bias]);
        if (score == -infinity()) return;
        float new_most = fmaxf(most, score);
        sum = (most == -infinity() ? 0.0f : sum * exp_approx(most - new_most)) + exp_approx(score - new_most);
        most = new_most;
    }
};

// This thread's part of the softmax state of a row: maximum and sum over every THREADS-th behaviour; or, for the first lane of a
// warp, every WARPS-th; or, for the first lane of every four, two of the 16 that the warp takes at a time.
__device__ __forceinline__ SoftmaxPart part_of_state(const AttentionStatesParams &p, u64 row) {
    const u32 heads = p.kv_heads * p.group_heads, head = row % heads, kv_head = head / p.group_heads;
    const AttentionSpan user = user_of(p, row / heads);
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    SoftmaxPart part = {-infinity(), 0.0f}, nothing = part;
    if (p.scored_by == BY_MATRIX_UNITS) {
#pragma unroll 1
        for (u32 first = warp * 16; first < user.length; first += WARPS * 16) {
            u64 keys[2], biases[2];
            bool exists[2];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 l = first + lane / 4 + i * 8;
                exists[i] = l < user.length;
                u64 behaviour = user.history_start + (exists[i] ? l : 0);
                keys[i] = (behaviour * p.kv_heads + kv_head) * p.width;
                biases[i] = behaviour * heads + head;
            }
            const bool is_f16 = p.storage == STORED_F16;
            float2 dots = is_f16 ? dots_of_matrix_units<f16>(p, row * p.width, keys[0], keys[1])
                                 : dots_of_matrix_units<bf16>(p, row * p.width, keys[0], keys[1]);
            if (exists[0]) part.add(p, dots.x, biases[0]);
            if (exists[1]) part.add(p, dots.y, biases[1]);
            __syncwarp();
        }
        return lane % 4 == 0 ? part : nothing;
    }
    const bool by_lanes = p.scored_by == BY_LANES;
#pragma unroll 1
    for (u32 l = by_lanes ? warp : threadIdx.x; l < user.length; l += by_lanes ? WARPS : THREADS) {
        u64 behaviour = user.history_start + l;
        float dot = dot_as_scored(p, row * p.width, (behaviour * p.kv_heads + kv_head) * p.width);
        part.add(p, dot, behaviour * heads + head);
    }
    return by_lanes && lane != 0 ? nothing : part;
}

extern "C" __global__ void __launch_bounds__(THREADS, 8) attention_states(const AttentionStatesParams p) {
    __shared__ float mosts[THREADS], sums[THREADS];
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u64 first = (u64)blockIdx.x * ROWS_PER_BLOCK, row = first + warp;
    bool coarse = false;
    if (row < p.rows) {
        float sum = 0.0f;
#pragma unroll 1
        for (u32 i = lane; i < p.value_width; i += WARP) {
            u64 at = row * p.value_width + i;
            sum = fma(load_stored(p.storage, p.out, at), load_stored(p.storage, p.grad_out, at), sum);
        }
        sum = warp_sum(sum);
        if (p.grad_lse != nullptr) sum -= p.grad_lse[row];
        float lse = p.lse[row];
        coarse = is_finite(lse) && fabsf(lse) > COARSE;
        float shift = lse;
        // Everything is removed.
        if (lse == -infinity()) shift = 0.0f;
        // As in the forward pass, where a score of +inf makes NaN of all weights.
        if (lse == infinity()) shift = lse - lse;
        if (lane == 0) p.states[row] = RowState{shift, 1.0f, sum, infinity()};
    }
    if (!__syncthreads_or(coarse)) return;
#pragma unroll 1
    for (u32 i = 0; i < ROWS_PER_BLOCK && first + i < p.rows; i++) {
        float lse = p.lse[first + i];
        if (!is_finite(lse) || fabsf(lse) <= COARSE) continue;
        SoftmaxPart part = part_of_state(p, first + i);
        mosts[threadIdx.x] = part.most;
        sums[threadIdx.x] = part.sum;
        __syncthreads();
        if (warp == 0) {
            float most = -infinity(), sum = 0.0f;
#pragma unroll
            for (u32 j = 0; j < WARPS; j++) {
                most = fmaxf(most, mosts[lane + j * WARP]);
            }
            most = warp_max(most);
#pragma unroll
            for (u32 j = 0; j < WARPS; j++) {
                float from = mosts[lane + j * WARP];
                sum += from == -infinity() ? 0.0f : sums[lane + j * WARP] * exp_approx(from - most);
            }
            sum = warp_sum(sum);
            if (lane == 0 && most != -infinity()) {
                p.states[first + i].shift = most == infinity() ? most - most : most;
                p.states[first + i].most = 0.0f;
                p.states[first + i].factor = reciprocal_approx(sum);
            }
        }
        __syncthreads();
    }
}

// A candidate whose user's history is cut into spans.
struct SplitTarget {
    // The rows of its partial results, counted in candidates: the first, and the distance to the next.
    u64 first_partial, target;
    u32 stride, slots;
};
static_assert(sizeof(SplitTarget) == 24, "twin in src/cuda/target_attention/backward/spans.rs");

struct CombineQueriesParams {
    const SplitTarget *targets;
    // [rows, H, d filled up to whole vec4s].
    const float *partial;
    void *grad_queries;
    u32 heads, width, storage, unused;
};

// combine_queries: the gradient of a query row from what the spans of its user's history add to it.
// One block per row; each warp takes every fourth span, each lane every 32nd column. The order of the sums is fixed: spans of a
// warp, then warps.
extern "C" __global__ void __launch_bounds__(THREADS) combine_queries(const CombineQueriesParams p) {
    __shared__ float sums[WARPS][MOST_WIDTH];
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const SplitTarget split = p.targets[blockIdx.x / p.heads];
    const u32 head = blockIdx.x % p.heads, pitch = (p.width + 3) / 4 * 4;
    float acc[MOST_WIDTH / WARP] = {};
#pragma unroll 2
    for (u32 slot = warp; slot < split.slots; slot += WARPS) {
        const float *row = p.partial + ((split.first_partial + (u64)slot * split.stride) * p.heads + head) * pitch;
#pragma unroll
        for (u32 i = 0; i < MOST_WIDTH / WARP; i++) {
            if (lane + i * WARP < p.width) acc[i] += row[lane + i * WARP];
        }
    }
#pragma unroll
    for (u32 i = 0; i < MOST_WIDTH / WARP; i++) {
        sums[warp][lane + i * WARP] = acc[i];
    }
    __syncthreads();
    for (u32 column = threadIdx.x; column < p.width; column += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < WARPS; i++) {
            sum += sums[i][column];
        }
        u64 at = (split.target * p.heads + head) * p.width + column;
        store_stored(p.storage, p.grad_queries, at, sum);
    }
}

struct MergeBackwardParams {
    // [rows, d_v] and [rows].
    const void *first;
    const void *second;
    const float *first_lse;
    const float *second_lse;
    const void *grad_out;
    const float *grad_lse;
    // What is asked for; null otherwise.
    void *first_out;
    void *second_out;
    float *first_grad_lse;
    float *second_grad_lse;
    u64 rows;
    u32 width, storage, grad_storage, unused;
};

// merge_backward: the gradients of a merge.
//
//     dout_i = w_i·grad_out            dlse_i = w_i·(⟨grad_out, out_i⟩ - ⟨grad_out, out⟩ + grad_lse)
//
// A part whose lse is -inf gets zeros, and its row is not read. A warp per row. Dot products are in double precision: those of
// the two parts may differ by less than a rounding error, and rows of the largest numbers must not overflow.
extern "C" __global__ void __launch_bounds__(THREADS) merge_backward(const MergeBackwardParams p) {
    const u32 lane = threadIdx.x % WARP;
    const u64 row = (u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (row >= p.rows) return;
    const float lses[2] = {p.first_lse[row], p.second_lse[row]};
    const void *const outs[2] = {p.first, p.second};
    void *const grad_outs[2] = {p.first_out, p.second_out};
    float *const grad_lses[2] = {p.first_grad_lse, p.second_grad_lse};
    const float most = fmaxf(lses[0], lses[1]);
    float weights[2], all = 0.0f;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        weights[i] = lses[i] == -infinity() ? 0.0f : exp_approx(lses[i] - most);
        all += weights[i];
    }
    double dots[2] = {}, mean = 0.0;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        const bool counts = lses[i] != -infinity();
        weights[i] = counts ? weights[i] / all : 0.0f;
        if (counts && (p.first_grad_lse != nullptr || p.second_grad_lse != nullptr)) {
#pragma unroll 1
            for (u32 column = lane; column < p.width; column += WARP) {
                u64 at = row * p.width + column;
                double grad = load_stored(p.storage, p.grad_out, at);
                dots[i] = __fma_rn(grad, (double)load_stored(p.storage, outs[i], at), dots[i]);
            }
#pragma unroll
            for (u32 lanes = WARP / 2; lanes > 0; lanes /= 2) {
                dots[i] += __shfl_xor_sync(WHOLE_WARP, dots[i], (int)lanes);
            }
            mean = __fma_rn((double)weights[i], dots[i], mean);
        }
    }
    const double grad_lse = p.grad_lse == nullptr ? 0.0 : p.grad_lse[row];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        const bool counts = lses[i] != -infinity();
        if (grad_lses[i] != nullptr && lane == 0) {
            grad_lses[i][row] = counts ? (float)((double)weights[i] * (dots[i] - mean + grad_lse)) : 0.0f;
        }
        if (grad_outs[i] == nullptr) continue;
#pragma unroll 1
        for (u32 column = lane; column < p.width; column += WARP) {
            u64 at = row * p.width + column;
            float grad = counts ? weights[i] * load_stored(p.storage, p.grad_out, at) : 0.0f;
            store_stored(p.grad_storage, grad_outs[i], at, grad);
        }
    }
}
