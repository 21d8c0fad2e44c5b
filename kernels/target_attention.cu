// Target attention: each candidate attends to its user's whole history.
#include "common.cuh"

struct MergePairsParams {
    const void* first;
    const void* second;
    const float* first_lse;
    const float* second_lse;
    void* out;
    float* lse;
    u64 length;
    u32 width;
    u32 unused;
};

// merge_pairs: merges softmax attention over two disjoint parts of the same histories.
//
//     lse = log(exp lse_a + exp lse_b)       out = exp(lse_a - lse)·out_a + exp(lse_b - lse)·out_b
//
// One thread an element of the output, [rows, width]; `lse` may be null. Bound by memory: three streams, each
// coalesced, and two log-sum-exps a row that all its threads share through the cache.
template <typename T>
__device__ void merge_pairs(const MergePairsParams& p) {
    const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= p.length) return;
    const u64 row = index / p.width;
    const float a = p.first_lse[row];
    const float b = p.second_lse[row];
    const float peak = fmaxf(a, b);
    // A part without behaviours has -inf, and -inf - -inf is NaN where both have it.
    const float weight_a = a == -infinity() ? 0.0f : exp_approx(a - peak);
    const float weight_b = b == -infinity() ? 0.0f : exp_approx(b - peak);
    const float total = weight_a + weight_b;
    float sum = 0.0f;
    // A part without weight takes no part, whatever its row holds.
    if (weight_a != 0.0f) sum = fma(weight_a, widen(((const T*)p.first)[index]), sum);
    if (weight_b != 0.0f) sum = fma(weight_b, widen(((const T*)p.second)[index]), sum);
    ((T*)p.out)[index] = narrow<T>(total == 0.0f ? 0.0f : sum / total);
    if (p.lse != nullptr && index % p.width == 0) {
        p.lse[row] = total == 0.0f ? -infinity() : peak + logf(total);
    }
}

extern "C" __global__ void __launch_bounds__(256) merge_pairs_f32(const MergePairsParams p) { merge_pairs<float>(p); }
extern "C" __global__ void __launch_bounds__(256) merge_pairs_f16(const MergePairsParams p) { merge_pairs<f16>(p); }
extern "C" __global__ void __launch_bounds__(256) merge_pairs_bf16(const MergePairsParams p) { merge_pairs<bf16>(p); }
