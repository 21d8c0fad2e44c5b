// Hashing of 16-bit rows on the matrix units: the same signatures as by sdim_hash.cuh, in far fewer instructions.
//
// Rotations are cut into three bf16 parts that add up to them, f16 rows into two. A warp takes 16 rows and 8 groups,
// three bits at a time. How far the sum of the products may be from the exact one, in whatever order and with
// whatever cut-off a device sums, is a known part of Σ|x·r|, which is summed beside it. Where the sum does not exceed
// that, the bit is decided as in sdim_hash.cuh, by fused multiply-adds in order: for about one sum in ten thousand.
#pragma once
#include "sdim_hash.cuh"

enum : u32 {
    ROTATION_PARTS = 3,
    MATRIX_ROWS = 16,
    MATRIX_GROUPS = 8,
};

// Of one function's numbers; between two bits of a group: see tile_pitch and bit_pitch.
__device__ __forceinline__ u32 part_pitch(u32 columns) { return columns + 8; }
__device__ __forceinline__ u32 part_bit_pitch(u32 columns, u32 groups, u32 bits) {
    u32 words = groups * part_pitch(columns) / 2;
    return 2 * (words + (4 * bits - words) % 32);
}

// The upper halves of two numbers, and what is left of them. Cut, not rounded: nothing overflows.
__device__ __forceinline__ u32 cut_pair(float &low, float &high) {
    u32 pair = __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
    low -= __uint_as_float(pair << 16);
    high -= __uint_as_float(pair & 0xffff0000u);
    return pair;
}

// Copies the rotations [width, groups, bits] to shared memory as [parts, bits, groups, columns], pitched.
__device__ __forceinline__ void load_rotation_parts(u16 *to, const float *rotations, u32 width, u32 columns, u32 groups,
                                                    u32 bits) {
    u32 functions = groups * bits, apart = part_bit_pitch(columns, groups, bits);
    u32 tiles = (functions + 7) / 8 * (columns / 4);
    for (u32 tile = threadIdx.x / WARP; tile < tiles; tile += blockDim.x / WARP) {
        u32 function = tile / (columns / 4) * 8 + threadIdx.x % 8;
        u32 column = tile % (columns / 4) * 4 + threadIdx.x % WARP / 8;
        if (function < functions) {
            float left = column < width ? rotations[column * functions + function] : 0.0f;
            u16 *at = to + function % bits * apart + function / bits * part_pitch(columns) + column;
#pragma unroll
            for (u32 part = 0; part < ROTATION_PARTS; part++) {
                at[part * bits * apart] = (u16)(__float_as_uint(left) >> 16);
                left -= __uint_as_float(__float_as_uint(left) & 0xffff0000u);
            }
        }
    }
}

// sum += ⟨x, r⟩ and magnitude += Σ|x·r|, nearly, of 16 columns; and how many products of parts that takes.
template <typename T>
struct Products;
template <>
struct Products<bf16> {
    static constexpr float COUNT = 3.0f;
    u32 a[4], size[4];
    __device__ __forceinline__ explicit Products(const u32 *rows) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            a[i] = rows[i];
            size[i] = a[i] & 0x7fff7fffu;
        }
    }
    __device__ __forceinline__ void add(float *sum, float *magnitude, const u32 (*r)[2]) const {
        u32 absolute[2] = {r[0][0] & 0x7fff7fffu, r[0][1] & 0x7fff7fffu};
        multiply_add<bf16>(magnitude, size, absolute);
#pragma unroll
        for (u32 part = 0; part < ROTATION_PARTS; part++) {
            multiply_add<bf16>(sum, a, r[part]);
        }
    }
};
template <>
struct Products<f16> {
    static constexpr float COUNT = 5.0f;
    Products<bf16> high;
    u32 low[4];
    __device__ __forceinline__ explicit Products(u32 *rows) : high(cut(rows, low)) {}
    __device__ __forceinline__ static const u32 *cut(u32 *rows, u32 *low) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float x[2];
            widen_pair<f16>(rows[i], x);
            rows[i] = cut_pair(x[0], x[1]);
            low[i] = cut_pair(x[0], x[1]);
        }
        return rows;
    }
    __device__ __forceinline__ void add(float *sum, float *magnitude, const u32 (*r)[2]) const {
        high.add(sum, magnitude, r);
        // The last part of a rotation times the last of a row is below what the sum may be off by.
        multiply_add<bf16>(sum, low, r[0]);
        multiply_add<bf16>(sum, low, r[1]);
    }
};

// Whether ⟨x, r⟩ > 0, by fused multiply-adds in the order of the columns; `r` has a number each `apart`.
template <typename T>
__device__ __forceinline__ bool is_positive(const T *x, const float *r, u32 width, u32 apart) {
    float sum = 0.0f;
#pragma unroll 1
    for (u32 column = 0; column < width; column++) {
        sum = fma(widen(x[column]), r[column * apart], sum);
    }
    return sum > 0.0f;
}

// Puts the signatures, each plus `base`, of 16 rows in groups `first_group`.. to codes + group·code_pitch, rows in the
// order in which a quad's are neighbours (quad_row). The whole warp together.
template <typename T>
__device__ __forceinline__ void hash_matrix(u16 *codes, u32 code_pitch, u32 base, const T *rows, const u16 *parts,
                                            const float *rotations, u32 width, u32 columns, u32 groups, u32 bits,
                                            u32 first_group) {
    u32 lane = threadIdx.x % WARP, i = lane / 4, j = lane % 4;
    u32 pitch = tile_pitch<T>(columns), apart = part_bit_pitch(columns, groups, bits);
    u32 row_address = shared_address(rows + lane % 16 * pitch + lane / 16 * 8);
    const u16 *own = parts + min(first_group + lane % 8, groups - 1) * part_pitch(columns) + lane / 8 % 2 * 8;
    u32 part_address = shared_address(own + lane / 16 * bits * apart), last_address = shared_address(own + 2 * bits * apart);
    // Each product of 16 columns adds up to 17 numbers to within 2^-23 of the largest, the fused multiply-adds one to
    // within 2^-24; what is cut off and the bf16 magnitude's own error are less than one column's share.
    float slack = (2.25f * Products<T>::COUNT + 2.0f) * (float)columns * 0x1p-24f;
    u32 code[4] = {base, base, base, base};
#pragma unroll 1
    for (u32 first = 0; first < bits; first += BITS_AT_ONCE) {
        float sum[BITS_AT_ONCE][4] = {}, magnitude[BITS_AT_ONCE][4] = {};
#pragma unroll 1
        for (u32 column = 0; column < columns; column += 16) {
            u32 a[4];
            load_matrices_4(a, row_address + column * 2);
            Products<T> products(a);
#pragma unroll
            for (u32 t = 0; t < BITS_AT_ONCE; t++) {
                u32 r[4][2], at = (min(first + t, bits - 1) * apart + column) * 2;
                load_matrices_4(&r[0][0], part_address + at);
                load_matrices_2(r[2], last_address + at);
                products.add(sum[t], magnitude[t], r);
            }
        }
        u32 positive = 0, undecided = 0;
#pragma unroll
        for (u32 t = 0; t < BITS_AT_ONCE; t++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                bool decided = fabsf(sum[t][e]) > fma(slack, magnitude[t][e], 1e-30f) || magnitude[t][e] == 0.0f;
                positive |= (sum[t][e] > 0.0f ? 1u : 0u) << (t * 4 + e);
                undecided |= (decided || first + t >= bits ? 0u : 1u) << (t * 4 + e);
            }
        }
        for (; undecided != 0; undecided &= undecided - 1) {
            u32 which = __ffs(undecided) - 1, t = first + which / 4;
            u32 group = min(first_group + 2 * j + which % 2, groups - 1);
            bool yes = is_positive(rows + (i + which % 4 / 2 * 8) * pitch, rotations + group * bits + t, width,
                                   groups * bits);
            positive = (positive & ~(1u << which)) | (yes ? 1u : 0u) << which;
        }
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
#pragma unroll
            for (u32 t = 0; t < BITS_AT_ONCE; t++) {
                code[e] |= (first + t < bits ? positive >> (t * 4 + e) & 1u : 0u) << (first + t);
            }
        }
    }
    // Lanes of an even and an odd row have two groups each: after an exchange, one group of both rows.
    bool odd = i % 2 != 0;
    u32 got = shuffle_xor(odd ? code[0] | code[2] << 16 : code[1] | code[3] << 16, 4);
    uint2 four = odd ? make_uint2((got & 0xffffu) | code[1] << 16, got >> 16 | code[3] << 16)
                     : make_uint2(code[0] | got << 16, code[2] | (got & 0xffff0000u));
    u32 group = first_group + 2 * j + i % 2;
    if (group < groups) {
        *(uint2 *)(codes + group * code_pitch + i / 2 * 4) = four;
    }
}
