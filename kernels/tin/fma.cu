// TIN on multiply-adds: target attention whose keys, which are the values, are sums of behaviours and positions. Any widths, any
// alignment, all storage types, arithmetic in f32. Grid, shared memory, registers and variants: target_attention/fma.cu.
//
//     ẽ_l = e_l + p[f(l)]        s_l = scale·⟨ẽ_l, ṽ⟩        a = Σ_l α_l·ẽ_l        out = ṽ ⊙ a
//
// `wide`: rows aligned to four numbers. These are copied to the place of their sum as they are stored. Once they have arrived, the thread
//   that copied them adds the position's, which comes from the cache, and writes the sum in f32 where they lie, before the barrier that
//   the tile waits at anyhow. `any`: the sum is made number by number.
#include "target_attention/fma.cuh"
#include "tin/rows.cuh"

// Copies 8 bytes, aligned to as many, as copy_async does 16.
__device__ __forceinline__ void copy_async_8(u32 to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}

template <bool IS_WIDE>
struct StagedSums : PositionedRows {
    typedef f32 T;
    enum : bool {
        WIDE = IS_WIDE,
        CHANGES = IS_WIDE
    };
    // A behaviour of the piece, and a column.
    struct Place {
        const Work &work;
        u32 behaviour, column;
    };
    __device__ __forceinline__ Place row(const Work &work, bool, u32 behaviour, u32, u32 column) const {
        return {work, behaviour, column};
    }

    // Loads rows of CHUNK numbers: those that exist, or all, padded with zeros.
    template <u32 CHUNK, u32 PITCH>
    __device__ __forceinline__ void load_rows(float *to, const Place &from, u64, u32 rows, u32 rows_there, u32 width) const {
        constexpr u32 NUMBERS = WIDE ? 4 : 1, LANES = CHUNK / NUMBERS, AT_ONCE = THREADS / LANES;
        const u32 column = threadIdx.x % LANES * NUMBERS;
        const bool is_column = column < width;
        to += column;
        if constexpr (!WIDE) {
#pragma unroll 2
            for (u32 i = threadIdx.x / LANES; i < rows; i += AT_ONCE) {
                float sum = 0.0f;
                if (is_column && i < rows_there) sum = row_from(from.work, from.behaviour + i, from.column)[column];
                to[i * PITCH] = sum;
            }
            return;
        }
        if (!is_column) return;
        const u32 bytes = storage() == STORED_F32 ? 4 : 2, end = min(rows, rows_there);
        const u8 *row = (const u8 *)p.keys + (row_at(from.work, from.behaviour) + from.column + column) * bytes;
#pragma unroll 2
        for (u32 i = threadIdx.x / LANES; i < end; i += AT_ONCE) {
            const u32 slot = shared_address(to + i * PITCH);
            const u8 *at = row + (u64)i * p.width * bytes;
            if (storage() == STORED_F32) {
                copy_async(slot, at);
            } else {
                copy_async_8(slot, at);
            }
        }
    }

    // What this thread has copied becomes a sum; zeros for the rest.
    template <u32 CHUNK, u32 PITCH, u32 COUNT>
    __device__ __forceinline__ void arrive(float *tile, const Work &work, u32 first, u32 skip, u32 width) const {
        constexpr u32 LANES = CHUNK / 4, AT_ONCE = THREADS / LANES, AHEAD = 4;
        const u32 column = threadIdx.x % LANES * 4, row = threadIdx.x / LANES, left = work.piece.length - first;
        const bool is_column = column < width;
#pragma unroll 1
        for (u32 round = row; round < COUNT; round += AHEAD * AT_ONCE) {
            u64 at[AHEAD];
            uint4 added[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 behaviour = round + i * AT_ONCE;
                at[i] = is_column && behaviour < left ? position_at(work, first + behaviour) + skip + column : 0;
            }
            // Of rows that do not exist the first position is loaded, and not used.
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                added[i] = load_raw(storage(), tin.positions.rows, at[i]);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 behaviour = round + i * AT_ONCE;
                float *slot = tile + behaviour * PITCH + column;
                float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (is_column && behaviour < left) {
                    // 16-bit numbers fill the first half.
                    uint4 own = {};
                    if (storage() == STORED_F32) {
                        own = *(const uint4 *)slot;
                    } else {
                        uint2 pairs = *(const uint2 *)slot;
                        own = make_uint4(pairs.x, pairs.y, 0, 0);
                    }
                    sum = sum_of_raw(storage(), own, added[i]);
                }
                *(float4 *)slot = sum;
            }
        }
    }
};

#define TIN_FMA(NAME, WIDE, CHUNK, ROWS)                                               \
    LAYOUT(NAME, SplitHistory<f32, WIDE, CHUNK, ROWS>::BEHAVIOURS,                     \
           SplitHistory<f32, WIDE, CHUNK, ROWS>::shared_bytes(true),                   \
           SplitHistory<f32, WIDE, CHUNK, ROWS>::shared_bytes(false));                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const TinParams p) { \
        split_history_fma<CHUNK, ROWS>(StagedSums<WIDE>{rows_of_block(p)});            \
    }

TIN_FMA(tin_fma_wide_64_rows_8, true, 64, 8)
TIN_FMA(tin_fma_wide_64_rows_32, true, 64, 32)
TIN_FMA(tin_fma_wide_128_rows_8, true, 128, 8)
TIN_FMA(tin_fma_wide_128_rows_32, true, 128, 32)
TIN_FMA(tin_fma_any_64_rows_8, false, 64, 8)
TIN_FMA(tin_fma_any_64_rows_32, false, 64, 32)
