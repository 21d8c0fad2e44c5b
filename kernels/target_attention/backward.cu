// Gradients of target attention: what comes before and after backward_fma.cu, and the gradients of a merge.
#include "target_attention/backward_states.cuh"

enum : u32 {
    // The widest row.
    MOST_WIDTH = 256,
};

extern "C" __global__ void __launch_bounds__(THREADS, 8) attention_states(const AttentionStatesParams p) {
    __shared__ float mosts[THREADS], sums[THREADS];
    attention_states_of(p, StatesAlike{p}, mosts, sums);
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
