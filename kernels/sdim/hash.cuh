// SDIM hashing: sig[g](x) = Σ_t [⟨x, R[:,g,t]⟩ > 0]·2^t, for a tile of 64 rows in shared memory.
//
// A thread takes four rows and one group, three bits at a time (the paper's τ): twelve sums, for which it reads four
// numbers of each row and of each rotation at once. Sums run over the columns in order, one fused multiply-add each, so
// that every kernel computes the same signature for the same row. In f32: as exact a product on matrix units would need
// six or more passes over parts of the numbers.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    TILE_ROWS = 64,
    // Groups of four rows.
    TILE_QUADS = TILE_ROWS / 4,
    BITS_AT_ONCE = 3,
};

// Rows are an odd multiple of 16 bytes apart, so that the eight that a matrix load reads are in different banks. Widths
// of tiles are multiples of 16.
template <typename T>
__device__ __forceinline__ constexpr u32 tile_pitch(u32 columns) {
    return columns + PER_VECTOR<T>;
}
// The same for rotations, which a thread per group reads 16 bytes at a time. The padding between the bits of a group
// lets a warp write four columns of any eight adjacent functions to different banks if the number of bits is odd.
__device__ __forceinline__ u32 rotation_pitch(u32 columns) { return columns + 4; }
__device__ __forceinline__ u32 bit_pitch(u32 columns, u32 groups, u32 bits) {
    u32 words = groups * rotation_pitch(columns);
    return words + (4 * bits - words) % 32;
}

// The rows of a quad are those whose numbers one lane's registers of B in mma hold: 2j, 2j+1, 2j+8 and 2j+9 of 16.
__device__ __forceinline__ u32 quad_row(u32 quad, u32 i) { return quad / 4 * 16 + quad % 4 * 2 + i % 2 + i / 2 * 8; }

// Where the signatures of a group's 64 rows are in shared memory. Groups are an odd multiple of four words apart, for
// the eight that half a warp writes, 8 bytes per lane; after each eight come two more words, for sixteen groups, 2
// bytes per lane.
__device__ __forceinline__ constexpr u32 group_place(u32 group) { return group * (TILE_ROWS + 8) + group / 8 * 4; }

// sum[i][t] += ⟨row i, rotation t⟩ over `columns` columns (a multiple of 16): `rows` is the first row of the quad, the
// rotation of bit t is at `rotations + t·apart`. Past the last bit, the last one is repeated.
template <typename T>
__device__ __forceinline__ void project(float (*sum)[BITS_AT_ONCE], const T *rows, u32 pitch, const float *rotations,
                                        u32 apart, u32 bits, u32 columns) {
    // Unrolled, it would spill.
#pragma unroll 1
    for (u32 column = 0; column < columns; column += PER_VECTOR<T>) {
        float x[4][PER_VECTOR<T>];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            widen_vector<T>(read_vector(rows + (i % 2 + i / 2 * 8) * pitch + column), x[i]);
        }
#pragma unroll
        for (u32 t = 0; t < BITS_AT_ONCE; t++) {
            const float *rotation = rotations + min(t, bits - 1) * apart + column;
#pragma unroll
            for (u32 k = 0; k < PER_VECTOR<T>; k += 4) {
                float r[4];
                widen_vector<float>(read_vector(rotation + k), r);
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        sum[i][t] = fma(x[i][k + e], r[e], sum[i][t]);
                    }
                }
            }
        }
    }
}

// The bits of the sums: 1 if positive, 0 if exactly 0 or NaN.
__device__ __forceinline__ u32 positive_bits(const float *sum, u32 bits) {
    u32 code = 0;
#pragma unroll
    for (u32 t = 0; t < BITS_AT_ONCE; t++) {
        code |= (t < bits && sum[t] > 0.0f ? 1u : 0u) << t;
    }
    return code;
}

// Copies columns of the rotations [width, groups, bits] to shared memory as [bit_count, group_count, columns], padded.
// Columns from `width` on are zeros. A warp takes 8 functions of 4 columns: a whole sector of each column, if aligned.
__device__ __forceinline__ void load_rotations(float *to, const float *rotations, u32 width, u32 first_column,
                                               u32 columns, u32 groups, u32 bits, u32 first_group, u32 group_count,
                                               u32 first_bit, u32 bit_count) {
    u32 functions = group_count * bit_count, pitch = rotation_pitch(columns);
    u32 apart = bit_pitch(columns, group_count, bit_count);
    u32 tiles = (functions + 7) / 8 * (columns / 4);
    for (u32 tile = threadIdx.x / WARP; tile < tiles; tile += blockDim.x / WARP) {
        u32 function = tile / (columns / 4) * 8 + threadIdx.x % 8;
        u32 column = tile % (columns / 4) * 4 + threadIdx.x % WARP / 8;
        if (function < functions) {
            u32 g = function / bit_count, t = function % bit_count;
            u32 from = (first_column + column) * groups * bits + (first_group + g) * bits + first_bit + t;
            to[t * apart + g * pitch + column] = first_column + column < width ? rotations[from] : 0.0f;
        }
    }
}

// What a thread copies of each tile: a vector, or a number, of every so many rows. Blocks have a multiple of the
// threads that a row takes.
template <typename T>
struct TileCopy {
    u32 row, column, every, width, columns;
    bool vectors;
    __device__ __forceinline__ TileCopy(u32 width, u32 columns, bool vectors)
        : width(width), columns(columns), vectors(vectors) {
        u32 step = vectors ? PER_VECTOR<T> : 1, chunks = columns / step;
        row = threadIdx.x / chunks;
        column = threadIdx.x % chunks * step;
        every = blockDim.x / chunks;
    }
    // Copies a tile of rows [*, width] to shared memory: `columns` (a multiple of 16) from `first_column`, the first
    // `rows` of 64, padded with zeros. With `vectors` asynchronously: the caller commits and waits. Without, rows may
    // have any alignment.
    __device__ __forceinline__ void load(T *to, const T *from, u32 rows, u32 first_column) const {
        u32 pitch = tile_pitch<T>(columns);
        rows = first_column + column < width ? rows : 0;
        from += (u64)row * width + first_column + column;
        to += row * pitch + column;
        for (u32 at = row; at < TILE_ROWS; at += every) {
            if (vectors) {
                copy_async(shared_address(to), from, at < rows ? 16 : 0);
            } else {
                *to = at < rows ? *from : T{};
            }
            from += (u64)every * width;
            to += every * pitch;
        }
    }
};
