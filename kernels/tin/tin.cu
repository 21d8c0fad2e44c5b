// TIN: what comes before and after the kernels that attend (fma.cu, stream.cu).
#include "target_attention/combine.cuh"
#include "tin/rows.cuh"

enum : u32 {
    PREPARE_THREADS = 256,
};

struct TinPrepareParams {
    TinPositions positions;
    // [M, d], and [M]; null: 0.
    const void *targets;
    const u32 *target_positions;
    // The records for positions out of range.
    u64 *history_record, *target_record;
    // [M, d]: written.
    float *sums;
    // Of the backward pass, null otherwise: [M, d]; written: its product with the sums, [M, d], and the candidates' positions, [M].
    const void *grad_out;
    float *grad_pooled;
    u32 *ids;
    // Behaviours whose positions are checked, and candidates.
    u64 behaviours, candidates;
    u32 width, multiply_target;
};

// tin_prepare: checks positions that are given, and adds those of candidates to their rows.
//
//     ṽ_m = v_m + p[f(m)]        backward: da_m = grad_out_m ⊙ ṽ_m
//
// A thread for each behaviour that is checked, then one for each number of the candidates.
extern "C" __global__ void __launch_bounds__(PREPARE_THREADS) tin_prepare(const TinPrepareParams p) {
    const u64 item = (u64)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    if (item < p.behaviours) {
        const u32 position = __ldg(p.positions.of_history + item);
        if (position > p.positions.last) report_bad_id(p.history_record, item, position);
        return;
    }
    const u64 at = item - p.behaviours, target = at / p.width;
    if (target >= p.candidates) return;
    const u32 column = (u32)(at - target * p.width);
    u32 position = p.target_positions == nullptr ? 0 : __ldg(p.target_positions + target);
    if (position > p.positions.last) {
        if (column == 0) report_bad_id(p.target_record, target, position);
        position = p.positions.last;
    }
    const u32 storage = p.positions.storage;
    const float added = load_stored(storage, p.positions.rows, (u64)position * p.width + column);
    const float sum = load_stored(storage, p.targets, at) + added;
    p.sums[at] = sum;
    if (p.grad_pooled != nullptr) {
        const float grad = load_stored(storage, p.grad_out, at);
        p.grad_pooled[at] = p.multiply_target ? grad * sum : grad;
    }
    if (p.ids != nullptr && column == 0) p.ids[target] = position;
}

struct TinCombineParams {
    CombinePiecesParams pieces;
    TinOutputPointers outputs;
};

extern "C" __global__ void __launch_bounds__(THREADS) tin_combine(const TinCombineParams p) {
    combine_pieces(p.pieces, [&](u64 row, u32 column, float mean) { put_mean(p.outputs, row + column, mean); });
}
