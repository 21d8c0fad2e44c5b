// Target attention on multiply-adds: any widths, any alignment, all storage types, arithmetic in f32.
//
//     s_l = scale·⟨q, k_l⟩ + bias_l        out = Σ_l w_l·v_l        w from s by `weighting`
//
// Grid: a block of four warps for each piece of the plan and key/value head. The history passes through shared memory
//   as f32 in a ring of two tiles: the next tile is copied while this one is computed. A step is BEHAVIOURS behaviours:
//   one or more tiles of CHUNK columns of their keys, then the tile of their values; a single tile if the keys are the
//   values and fit. Rows are padded by 4 numbers, so that 8 lanes that read 16 bytes of 8 rows each access every bank once.
// Registers: half a warp computes 16·EACH behaviours by 4 output rows. A thread computes 4·EACH scores, using each number
//   that it loads EACH or 4 times; then, from the weights that its warp left in shared memory, 4 rows by CHUNK/16 columns.
//   All scores of a row are in one half warp, so the running maximum needs no barrier.
// Variants: rows_32: the warps share the behaviours, 8 rows each. rows_8, for few candidates: the warps share the rows and
//   take a quarter of the behaviours each; their sums are combined at the end. `wide` copies 16 bytes at a time directly to
//   shared memory (f32, aligned); `any` loads number by number and widens.
// Precision: f32 throughout. Softmax in powers of 2 with a running maximum. The sum of a row is kept per lane, and added
//   over the lanes at the end.
#include "target_attention/fma.cuh"

#define SPLIT_HISTORY_FMA(NAME, T, WIDE, CHUNK, ROWS)                                              \
    LAYOUT(NAME, SplitHistory<T, WIDE, CHUNK, ROWS>::BEHAVIOURS,                                   \
           SplitHistory<T, WIDE, CHUNK, ROWS>::shared_bytes(true),                                 \
           SplitHistory<T, WIDE, CHUNK, ROWS>::shared_bytes(false));                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const TargetAttentionParams p) { \
        split_history_fma<CHUNK, ROWS>(StagedRows<T, WIDE>{{p}});                                  \
    }

SPLIT_HISTORY_FMA(split_history_fma_wide_32_rows_8_f32, f32, true, 32, 8)
SPLIT_HISTORY_FMA(split_history_fma_wide_32_rows_32_f32, f32, true, 32, 32)
SPLIT_HISTORY_FMA(split_history_fma_wide_64_rows_8_f32, f32, true, 64, 8)
SPLIT_HISTORY_FMA(split_history_fma_wide_64_rows_32_f32, f32, true, 64, 32)
SPLIT_HISTORY_FMA(split_history_fma_wide_128_rows_8_f32, f32, true, 128, 8)
SPLIT_HISTORY_FMA(split_history_fma_wide_128_rows_32_f32, f32, true, 128, 32)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_8_f32, f32, false, 64, 8)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_32_f32, f32, false, 64, 32)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_8_f16, f16, false, 64, 8)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_32_f16, f16, false, 64, 32)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_8_bf16, bf16, false, 64, 8)
SPLIT_HISTORY_FMA(split_history_fma_any_64_rows_32_bf16, bf16, false, 64, 32)
