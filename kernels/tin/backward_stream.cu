// Gradients of TIN for one to four candidates of a user: those of target attention (target_attention/backward_stream.cu: grid, memory)
// whose keys, which are the values, are sums of behaviours and positions, made in registers. Rows aligned to four numbers, widths up to
// 128, all storage types.
#include "target_attention/backward_stream.cuh"
#include "tin/backward.cuh"

// With four candidates a multiprocessor may run as few as three blocks, so that nothing is spilled.
#define TIN_BACKWARD_STREAM(NAME, LANES, ROWS, BLOCKS)                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const TinBackwardParams p) { \
        backward_stream<LANES, ROWS>(p.attention, StreamedSummedRows{p});                           \
    }

TIN_BACKWARD_STREAM(tin_backward_stream_64_rows_1, 16, 1, 4)
TIN_BACKWARD_STREAM(tin_backward_stream_64_rows_4, 16, 4, 3)
TIN_BACKWARD_STREAM(tin_backward_stream_128_rows_1, 32, 1, 4)
TIN_BACKWARD_STREAM(tin_backward_stream_128_rows_4, 32, 4, 3)
