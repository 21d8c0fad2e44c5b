// Target attention: each candidate attends to its user's whole history. This file combines partial results, and merges
// results of disjoint histories; fma.cu, mma.cu and stream.cu attend.
#include "target_attention/combine.cuh"

struct MergePairsParams {
    const void *first;
    const void *second;
    const float *first_lse;
    const float *second_lse;
    void *out;
    float *lse;
    u64 length;
    u32 width;
    u32 unused;
};

// merge_pairs: merges softmax attention over two disjoint spans of the same histories.
//
//     lse = log(exp lse_a + exp lse_b)       out = exp(lse_a - lse)·out_a + exp(lse_b - lse)·out_b
//
// A result whose lse is -inf has no behaviours, and its row is not read. Halves of the weights are multiplied, so that rows of the
// largest numbers do not overflow.
// One thread per element of the output, [rows, width]; `lse` may be null. Memory-bound: three coalesced streams, and two
// log-sum-exps per row, which its threads read from the cache.
template <typename T>
__device__ void merge_pairs(const MergePairsParams &p) {
    const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= p.length) return;
    const u64 row = index / p.width;
    const float a = p.first_lse[row];
    const float b = p.second_lse[row];
    const float row_max = fmaxf(a, b);
    // A result without behaviours has -inf, and if both have it, -inf - -inf is NaN.
    const float weight_a = a == -infinity() ? 0.0f : exp_approx(a - row_max);
    const float weight_b = b == -infinity() ? 0.0f : exp_approx(b - row_max);
    const float row_sum = weight_a + weight_b, half = 0.5f / row_sum;
    float sum = 0.0f;
    if (a != -infinity()) sum = fma(weight_a * half, widen(((const T *)p.first)[index]), sum);
    if (b != -infinity()) sum = fma(weight_b * half, widen(((const T *)p.second)[index]), sum);
    ((T *)p.out)[index] = narrow<T>(doubled(sum));
    if (p.lse != nullptr && index % p.width == 0) {
        p.lse[row] = row_sum == 0.0f ? -infinity() : row_max + logf(row_sum);
    }
}

extern "C" __global__ void __launch_bounds__(256) merge_pairs_f32(const MergePairsParams p) { merge_pairs<float>(p); }
extern "C" __global__ void __launch_bounds__(256) merge_pairs_f16(const MergePairsParams p) { merge_pairs<f16>(p); }
extern "C" __global__ void __launch_bounds__(256) merge_pairs_bf16(const MergePairsParams p) { merge_pairs<bf16>(p); }

#define COMBINE_PIECES(NAME, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const CombinePiecesParams p) {                          \
        combine_pieces(p, [&](u64 row, u32 column, float number) { ((T *)p.out)[row + column] = narrow<T>(number); }); \
    }

COMBINE_PIECES(combine_pieces_f32, f32)
COMBINE_PIECES(combine_pieces_f16, f16)
COMBINE_PIECES(combine_pieces_bf16, bf16)
