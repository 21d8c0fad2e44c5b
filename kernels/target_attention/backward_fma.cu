// Gradients of target attention on multiply-adds: widths up to 256, any alignment, all storage types, arithmetic in f32.
//
//     dP_ml = ⟨grad_out_m, v_l⟩        dS_ml = P_ml·(dP_ml - subtracted_m)        other weightings: w'(S_ml)·dP_ml
//     dv_l = Σ_m P_ml·grad_out_m   dk_l = scale·Σ_m dS_ml·q_m   dq_m = scale·Σ_l dS_ml·k_l   dbias_l = Σ_m dS_ml
//
// Grid: a block of four warps for each span of a history and key/value head. It owns the span: it reads its keys and values once
//   and writes their gradients once. It takes BEHAVIOURS behaviours at a time, and for each of those steps goes over the query rows
//   of the user (candidates × heads that share the key head), ROWS at a time. If ROWS hold all of them, they are loaded once and
//   their gradients stay in registers for the whole span; otherwise what a step adds to them is added to the span's partial
//   result, which this block alone accesses.
// Shared memory, as f32: keys, values, queries, grad_out, in rows padded by 4 numbers; P and dS·scale [BEHAVIOURS, ROWS].
// Registers: a thread computes SCORE_BEHAVIOURS × SCORE_ROWS scores and dP, holds 4 behaviours × COLUMNS of dk and dv, and
//   QUERY_ROWS × QUERY_COLUMNS of dq. Lanes that read 16 bytes of 8 rows, or of 8 adjacent groups of columns, access every bank once.
// Removed behaviours: weight and dS are 0. A product of that with NaN or infinity is not 0, so where a step has both, the sums are
//   taken again without them.
#include "target_attention/backward_fma.cuh"

#define BACKWARD_FMA(NAME, ...)                                                                                     \
    typedef Backward<RowsAlike, __VA_ARGS__> NAME##_kernel;                                                         \
    LAYOUT(NAME, NAME##_kernel::BEHAVIOURS, NAME##_kernel::shared_bytes(false), NAME##_kernel::shared_bytes(true)); \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) NAME(const AttentionBackwardParams p) {                \
        backward_fma<NAME##_kernel>(p, RowsAlike{});                                                                \
    }

// Columns, behaviours per step, rows per tile, rows of a thread's scores, rows of a thread's gradients of queries.
BACKWARD_FMA(backward_fma_32_rows_32, 32, 64, 32, 4, 2)
BACKWARD_FMA(backward_fma_64_rows_8, 64, 64, 8, 2, 1)
BACKWARD_FMA(backward_fma_64_rows_32, 64, 64, 32, 4, 4)
BACKWARD_FMA(backward_fma_128_rows_32, 128, 32, 32, 4, 4)
BACKWARD_FMA(backward_fma_256_rows_16, 256, 16, 16, 1, 4)
