// TIN of few candidates: widths in multiples of 4 up to 128, rows aligned to four numbers, all storage types, arithmetic in f32. Formula:
// fma.cu; grid, variants and sums: target_attention/stream.cu. A lane's four numbers of a behaviour and of its position are added in registers;
// rows of positions come from the cache.
#include "target_attention/stream.cuh"
#include "tin/rows.cuh"

struct StreamedSums : PositionedRows {
    // Four numbers of COUNT behaviours, PARTS apart, from a column on; zeros past the end of the history and of the row.
    template <u32 COUNT, u32 PARTS>
    __device__ __forceinline__ void load_history(float4 (&to)[COUNT], const Work &work, bool, u32 behaviour, u32 column) const {
        constexpr u32 AHEAD = 4;
        const bool is_column = column < p.width;
        uint4 rows[COUNT];
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            const u32 l = behaviour + i * PARTS;
            rows[i] = make_uint4(0, 0, 0, 0);
            if (is_column && l < work.piece.length) rows[i] = load_raw(storage(), p.keys, row_at(work, l) + column);
        }
#pragma unroll
        for (u32 begin = 0; begin < COUNT; begin += AHEAD) {
            uint4 added[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 l = behaviour + (begin + i) * PARTS;
                added[i] = make_uint4(0, 0, 0, 0);
                if (is_column && l < work.piece.length) {
                    added[i] = load_raw(storage(), tin.positions.rows, position_at(work, l) + column);
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                to[begin + i] = sum_of_raw(storage(), rows[begin + i], added[i]);
            }
        }
    }
};

#define TIN_STREAM(NAME, CHUNK, ROWS)                                                  \
    LAYOUT(NAME, StreamHistory<CHUNK, ROWS>::STEP);                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const TinParams p) { \
        stream_history<CHUNK, ROWS>(StreamedSums{rows_of_block(p)});                   \
    }

TIN_STREAM(tin_stream_32_rows_1, 32, 1)
TIN_STREAM(tin_stream_32_rows_4, 32, 4)
TIN_STREAM(tin_stream_64_rows_1, 64, 1)
TIN_STREAM(tin_stream_64_rows_4, 64, 4)
TIN_STREAM(tin_stream_128_rows_1, 128, 1)
TIN_STREAM(tin_stream_128_rows_4, 128, 4)
