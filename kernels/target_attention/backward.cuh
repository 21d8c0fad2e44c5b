// What the kernels of the gradients share: spans of histories, the states of query rows.
#pragma once
#include "target_attention/attend.cuh"
#include "target_attention/stored.cuh"

// A span of one user's behaviours, against all of the user's candidates.
struct AttentionSpan {
    u64 history_start, first_target;
    // The first row of its partial results, counted in candidates; all ones: the span is the user's only one, and its block writes
    // the gradients of the queries itself.
    u64 first_partial;
    u32 length, targets;
    // Of the whole history.
    u32 history_length, unused;
};
static_assert(sizeof(AttentionSpan) == 40, "twin in src/cuda/target_attention/backward/spans.rs");

// What a query row subtracts and multiplies by: its weights are exp(score - shift)·factor, and the gradients of its scores
// weight·(⟨grad_out, v⟩ - subtracted). score - shift is at most `most`: infinity, or 0 where shift is the largest score.
struct RowState {
    float shift, factor, subtracted, most;
};
