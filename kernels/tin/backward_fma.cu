// Gradients of TIN on multiply-adds: those of target attention (target_attention/backward_fma.cu: formulas, grid, memory) whose keys, which
// are the values, are sums of behaviours and positions. A behaviour's gradient is that of its key; f32 copies of it, for the gradients of
// positions, are written from the same tile. Widths up to 256, any alignment, all storage types.
#include "target_attention/backward_fma.cuh"
#include "tin/backward.cuh"

#define TIN_BACKWARD_FMA(NAME, ...)                                                                                 \
    typedef Backward<SummedRows, __VA_ARGS__> NAME##_kernel;                                                        \
    LAYOUT(NAME, NAME##_kernel::BEHAVIOURS, NAME##_kernel::shared_bytes(false), NAME##_kernel::shared_bytes(true)); \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) NAME(const TinBackwardParams p) {                      \
        backward_fma<NAME##_kernel>(p.attention, SummedRows{p});                                                    \
    }

// Columns, behaviours per step, rows per tile, rows of a thread's scores, rows of a thread's gradients of queries.
TIN_BACKWARD_FMA(tin_backward_fma_64_rows_8, 64, 64, 8, 2, 1)
TIN_BACKWARD_FMA(tin_backward_fma_64_rows_32, 64, 64, 32, 4, 4)
TIN_BACKWARD_FMA(tin_backward_fma_128_rows_32, 128, 32, 32, 4, 4)
TIN_BACKWARD_FMA(tin_backward_fma_256_rows_16, 256, 16, 16, 1, 4)
