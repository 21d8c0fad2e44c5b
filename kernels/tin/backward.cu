// Gradients of TIN: what comes before and after backward_fma.cu and backward_stream.cu.
//
//     da = grad_out ⊙ ṽ        dṽ = scale·Σ_l ds_l·ẽ_l + grad_out ⊙ a        dp[i] = Σ_{f(l) = i} dẽ_l + Σ_{f(m) = i} dṽ_m
//
// The last is a gradient of a table whose ids are the positions: kernels/lookup adds it up, of some behaviours at a time, then of the
// candidates; tin_add_positions adds up these parts, in order.
#include "target_attention/backward_states.cuh"
#include "tin/rows.cuh"

enum : u32 {
    ROW_THREADS = 256,
};

struct TinStatesParams {
    // Queries and grad_out (the gradient of the mean) are f32; `out` is the mean.
    AttentionStatesParams states;
    TinPositions positions;
};

struct SummedStates {
    enum : bool {
        HAS_MATRIX_UNITS = false
    };
    const AttentionStatesParams &p;
    const TinPositions &positions;

    struct Key {
        u32 storage;
        const void *row, *added;
        u64 at, added_at;
        __device__ __forceinline__ float operator[](u32 i) const {
            return load_stored(storage, row, at + i) + load_stored(storage, added, added_at + i);
        }
    };
    __device__ __forceinline__ float query(u64 at) const { return ((const float *)p.queries)[at]; }
    __device__ __forceinline__ Key key(u64 row) const {
        const u32 position = min(__ldg(positions.of_history + row), positions.last);
        return {positions.storage, p.keys, positions.rows, row * p.width, (u64)position * p.width};
    }
    __device__ __forceinline__ float grad_out(u64 at) const { return ((const float *)p.grad_out)[at]; }
};

extern "C" __global__ void __launch_bounds__(THREADS, 8) tin_states(const TinStatesParams p) {
    __shared__ float mosts[THREADS], sums[THREADS];
    attention_states_of(p.states, SummedStates{p.states, p.positions}, mosts, sums);
}

struct TinCountParams {
    // [users + 1]
    const u64 *offsets;
    // [N]: written.
    u32 *positions;
    u32 last;
    u32 unused;
};

// tin_count_positions: positions of behaviours, counted from the newest. A block per user.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) tin_count_positions(const TinCountParams p) {
    const u64 end = p.offsets[blockIdx.x + 1];
#pragma unroll 4
    for (u64 l = p.offsets[blockIdx.x] + threadIdx.x; l < end; l += ROW_THREADS) {
        p.positions[l] = (u32)min(end - l, (u64)p.last);
    }
}

struct TinTargetGradientParams {
    // [M, d]: what came in, and the mean; null: it is not multiplied by the candidate.
    const void *grad_out;
    const void *pooled;
    // [M, d]: the gradients through the scores; those of the candidates are written there, and to `out` if it is not null.
    float *grads;
    void *out;
    u64 length;
    u32 storage, grad_storage;
};

// tin_target_gradient: a thread for each number.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) tin_target_gradient(const TinTargetGradientParams p) {
    const u64 at = (u64)blockIdx.x * ROW_THREADS + threadIdx.x;
    if (at >= p.length) return;
    float grad = p.grads[at];
    if (p.pooled != nullptr) grad = fma(load_stored(p.storage, p.grad_out, at), load_stored(p.storage, p.pooled, at), grad);
    p.grads[at] = grad;
    if (p.out != nullptr) store_stored(p.grad_storage, p.out, at, grad);
}

struct TinPositionGradientParams {
    // Of a part: its positions, [count], and their sums, [count, d]; null: nothing is added.
    const u32 *ids;
    const u32 *count;
    const float *part;
    // [P, d], and where they are written at the end; null: not yet.
    float *sums;
    void *out;
    u64 items;
    u32 width, grad_storage;
};

// tin_add_positions: adds the sums of a part to those of all. A thread for each number; positions of a part differ.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) tin_add_positions(const TinPositionGradientParams p) {
    const u64 item = (u64)blockIdx.x * ROW_THREADS + threadIdx.x, row = item / p.width;
    if (item >= p.items || row >= *p.count) return;
    p.sums[(u64)p.ids[row] * p.width + (item - row * p.width)] += p.part[item];
}

// tin_write_positions: the sums as the gradient is stored.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) tin_write_positions(const TinPositionGradientParams p) {
    const u64 item = (u64)blockIdx.x * ROW_THREADS + threadIdx.x;
    if (item < p.items) store_stored(p.grad_storage, p.out, item, p.sums[item]);
}
