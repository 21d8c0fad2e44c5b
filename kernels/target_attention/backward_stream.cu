// Gradients of target attention for one to four query rows of a key/value head, as when every user has one candidate: rows aligned
// to four numbers, widths up to 128, all storage types, arithmetic in f32. Formulas: backward_fma.cu.
//
// Grid: a block of four warps for each span of a history and key/value head. LANES lanes hold a behaviour, four columns each; a
//   block takes GROUPS behaviours at a time, and loads AHEAD of those before it computes, straight into registers. Queries, grad_out
//   and the gradients of queries stay in registers; the latter are added over the lanes and warps, in order, at the end.
// Memory: each row is read once and its gradient written once, whole cache lines at a time.
#include "target_attention/backward_stream.cuh"

#define BACKWARD_STREAM(NAME, LANES, ROWS)                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const AttentionBackwardParams p) { \
        backward_stream<LANES, ROWS>(p, StreamedAlike{});                                            \
    }

BACKWARD_STREAM(backward_stream_64_rows_1, 16, 1)
BACKWARD_STREAM(backward_stream_64_rows_4, 16, 4)
BACKWARD_STREAM(backward_stream_128_rows_1, 32, 1)
BACKWARD_STREAM(backward_stream_128_rows_4, 32, 4)
