// What softmax subtracts in each query row, for the kernels of the gradients.
#pragma once
#include "target_attention/backward.cuh"

enum : u32 {
    ROWS_PER_BLOCK = WARPS,
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

// Rows as they are stored. TIN's are sums (tin/backward.cu).
struct StatesAlike {
    enum : bool {
        HAS_MATRIX_UNITS = true
    };
    const AttentionStatesParams &p;

    __device__ __forceinline__ float query(u64 at) const { return load_stored(p.storage, p.queries, at); }
    struct Key {
        const AttentionStatesParams &p;
        u64 at;
        __device__ __forceinline__ float operator[](u32 i) const { return load_stored(p.storage, p.keys, at + i); }
    };
    __device__ __forceinline__ Key key(u64 row) const { return {p, row * p.width}; }
    __device__ __forceinline__ float grad_out(u64 at) const { return load_stored(p.storage, p.grad_out, at); }
};

// The product of a query and a key, of the same bits in all lanes that take part: this thread alone, or the warp.
template <typename Rows>
__device__ __forceinline__ float dot_as_scored(const AttentionStatesParams &p, const Rows &rows, u64 query, u64 row) {
    const auto key = rows.key(row);
    float dot = 0.0f;
    if (p.scored_by == BY_THREADS) {
#pragma unroll 1
        for (u32 i = 0; i < p.width; i++) {
            dot = fma(rows.query(query + i), key[i], dot);
        }
        return dot;
    }
    u32 column = threadIdx.x % WARP * 4;
    if (column < p.width) {
#pragma unroll 1
        for (u32 i = column; i < column + 4; i++) {
            dot = fma(rows.query(query + i), key[i], dot);
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
template <typename Rows>
__device__ __forceinline__ SoftmaxPart part_of_state(const AttentionStatesParams &p, const Rows &rows, u64 row) {
    const u32 heads = p.kv_heads * p.group_heads, head = row % heads, kv_head = head / p.group_heads;
    const AttentionSpan user = user_of(p, row / heads);
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    SoftmaxPart part = {-infinity(), 0.0f}, nothing = part;
    if (Rows::HAS_MATRIX_UNITS && p.scored_by == BY_MATRIX_UNITS) {
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
        float dot = dot_as_scored(p, rows, row * p.width, behaviour * p.kv_heads + kv_head);
        part.add(p, dot, behaviour * heads + head);
    }
    return by_lanes && lane != 0 ? nothing : part;
}

template <typename Rows>
__device__ __forceinline__ void attention_states_of(const AttentionStatesParams &p, const Rows &rows, float *mosts, float *sums) {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u64 first = (u64)blockIdx.x * ROWS_PER_BLOCK, row = first + warp;
    bool coarse = false;
    if (row < p.rows) {
        float sum = 0.0f;
#pragma unroll 1
        for (u32 i = lane; i < p.value_width; i += WARP) {
            u64 at = row * p.value_width + i;
            sum = fma(load_stored(p.storage, p.out, at), rows.grad_out(at), sum);
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
        SoftmaxPart part = part_of_state(p, rows, first + i);
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
