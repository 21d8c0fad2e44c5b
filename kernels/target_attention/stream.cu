// Target attention of few candidates: f32, widths in multiples of 4 up to 128, rows aligned to 16 bytes.
//
//     s_l = scale·⟨q, k_l⟩ + bias_l        out = Σ_l w_l·v_l        w from s by `weighting`
//
// With so few output rows, each loaded number is used a few times at most and memory is the limit, so nothing is staged:
//   CHUNK/4 lanes hold a row of the history, 4 numbers each, straight from global memory; a warp takes 1 to 4 behaviours
//   at a time and keeps UNROLL such loads in flight. Scores are summed over the lanes of a row; if the keys are the values,
//   the same registers serve as values.
// Grid: a block of four warps for each piece of the plan and key/value head. Each group of lanes keeps its own max, sum and
//   weighted values over every PARTS-th behaviour; the groups are combined at the end, in shared memory, in order.
// Variants: rows_1 and rows_4 output rows.
// Precision: f32 throughout. Softmax in powers of 2 with a running maximum.
#include "target_attention/stream.cuh"

#define STREAM_HISTORY(NAME, CHUNK, ROWS)                                                          \
    LAYOUT(NAME, StreamHistory<CHUNK, ROWS>::STEP);                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const TargetAttentionParams p) { \
        stream_history<CHUNK, ROWS>(StreamedRows{p});                                              \
    }

STREAM_HISTORY(stream_history_32_rows_1_f32, 32, 1)
STREAM_HISTORY(stream_history_32_rows_4_f32, 32, 4)
STREAM_HISTORY(stream_history_64_rows_1_f32, 64, 1)
STREAM_HISTORY(stream_history_64_rows_4_f32, 64, 4)
STREAM_HISTORY(stream_history_128_rows_1_f32, 128, 1)
STREAM_HISTORY(stream_history_128_rows_4_f32, 128, 4)
