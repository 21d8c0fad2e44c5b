// TIN of few candidates: widths in multiples of 4 up to 128, rows aligned to four numbers, all storage types, arithmetic in f32.
// Formula: fma.cu; grid, variants and sums: target_attention/stream.cu. A lane's four numbers of a behaviour and of its position are added
// in registers; rows of positions come from the cache. A multiprocessor may run as few as three blocks, so that nothing is spilled.
#include "target_attention/stream.cuh"
#include "tin/rows.cuh"

// Four numbers as they are stored.
template <typename T>
struct Stored {
    uint2 pairs;
    __device__ __forceinline__ void load(const void *rows, u64 at) { pairs = __ldg((const uint2 *)((const T *)rows + at)); }
    __device__ __forceinline__ void widen(float (&out)[4]) const {
        widen_pair<T>(pairs.x, out);
        widen_pair<T>(pairs.y, out + 2);
    }
};
template <>
struct Stored<f32> {
    float4 four;
    __device__ __forceinline__ void load(const void *rows, u64 at) { four = __ldg((const float4 *)((const f32 *)rows + at)); }
    __device__ __forceinline__ void widen(float (&out)[4]) const {
        out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    }
};

struct StreamedSums : PositionedRows {
    enum : bool {
        ALIASED = true
    };

    // Four numbers of COUNT behaviours, PARTS apart, from a column on; zeros past the end of the history and of the row.
    template <u32 COUNT, u32 PARTS>
    __device__ __forceinline__ void load_history(float4 (&to)[COUNT], const Work &work, bool, u32 behaviour, u32 column) const {
        if (storage() == STORED_F32) return load_as<f32, COUNT, PARTS>(to, work, behaviour, column);
        if (storage() == STORED_F16) return load_as<f16, COUNT, PARTS>(to, work, behaviour, column);
        load_as<bf16, COUNT, PARTS>(to, work, behaviour, column);
    }

    template <typename T, u32 COUNT, u32 PARTS>
    __device__ __forceinline__ void load_as(float4 (&to)[COUNT], const Work &work, u32 behaviour, u32 column) const {
        constexpr u32 AHEAD = COUNT < 4 ? COUNT : 4;
        const bool is_column = column < p.width;
        Stored<T> rows[COUNT];
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            const u32 l = behaviour + i * PARTS;
            rows[i] = {};
            if (is_column && l < work.piece.length) rows[i].load(p.keys, row_at(work, l) + column);
        }
#pragma unroll
        for (u32 begin = 0; begin < COUNT; begin += AHEAD) {
            Stored<T> added[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 l = behaviour + (begin + i) * PARTS;
                added[i] = {};
                if (is_column && l < work.piece.length) added[i].load(tin.positions.rows, position_at(work, l) + column);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                float a[4], b[4];
                rows[begin + i].widen(a);
                added[i].widen(b);
                to[begin + i] = make_float4(a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]);
            }
        }
    }
};

#define TIN_STREAM(NAME, CHUNK, ROWS)                                                  \
    LAYOUT(NAME, StreamHistory<CHUNK, ROWS>::STEP);                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 3) NAME(const TinParams p) { \
        stream_history<CHUNK, ROWS>(StreamedSums{rows_of_block(p)});                   \
    }

TIN_STREAM(tin_stream_32_rows_1, 32, 1)
TIN_STREAM(tin_stream_32_rows_4, 32, 4)
TIN_STREAM(tin_stream_64_rows_1, 64, 1)
TIN_STREAM(tin_stream_64_rows_4, 64, 4)
TIN_STREAM(tin_stream_128_rows_1, 128, 1)
TIN_STREAM(tin_stream_128_rows_4, 128, 4)
