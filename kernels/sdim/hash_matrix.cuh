// Hashing on matrix units: the same signatures as hash.cuh, in far fewer instructions.
//
// Rotations and rows are rounded to bf16, and the remainder once more: two parts each, one for bf16 rows. A warp takes 16 rows
// and 8 groups, three bits at a time. The sum of the products may differ from the fused multiply-adds of hash.cuh, because of
// remainders that no part holds and of the device's order and rounding of sums, by at most a known fraction of Σ|x·r|, which
// is computed too. If the sum does not exceed this bound, the bit is decided by those multiply-adds, in their order: one to
// three sums in ten thousand for normally distributed numbers.
#pragma once
#include "sdim/hash.cuh"

enum : u32 {
    ROTATION_PARTS = 2,
    MATRIX_ROWS = 16,
    MATRIX_GROUPS = 8,
};

// The hash functions of a block's groups.
struct Functions {
    // [width, stride], and the first function of the block.
    const float *rotations;
    u32 width, stride, first, groups, bits;
    // [ROTATION_PARTS, bits, groups, columns], padded: an address in shared memory.
    u32 parts;
    // The width rounded up to a multiple of 16.
    u32 columns;

    // The distances between groups and between bits: see tile_pitch and bit_pitch.
    __device__ __forceinline__ constexpr u32 pitch() const { return columns + 8; }
    __device__ __forceinline__ constexpr u32 apart() const {
        u32 words = groups * pitch() / 2;
        return 2 * (words + (4 * bits - words) % 32);
    }
};

// Two numbers rounded to bf16; they keep the remainders. If the rounding overflows, no sum is decided.
__device__ __forceinline__ u32 round_pair(float &low, float &high) {
    u32 pair = narrow_pair<bf16>(low, high);
    low -= __uint_as_float(pair << 16);
    high -= __uint_as_float(pair & 0xffff0000u);
    return pair;
}

// 16 columns of a warp's rows: A, in parts. PRODUCTS of parts are summed; LEFT_OUT times 2^-16 of Σ|x·r| is in none.
template <typename T>
struct RowParts;
template <>
struct RowParts<bf16> {
    static constexpr float PRODUCTS = 2.0f, LEFT_OUT = 1.0f;
    u32 high[4];
    // The row of line `i` (of the first eight) of a fragment; the distance between the lanes of rows 2n and 2n + 1.
    __device__ __forceinline__ static u32 row_of(u32 i) { return i; }
    static constexpr u32 NEXT_ROW = 4;
    // The column at a place of A and B.
    __device__ __forceinline__ static u32 column_of(u32 place) { return place; }
    // Where this lane begins to read.
    __device__ __forceinline__ static const bf16 *start(const bf16 *rows, u32 pitch) {
        return rows + threadIdx.x % 16 * pitch + threadIdx.x % WARP / 16 * 8;
    }
    __device__ __forceinline__ RowParts(const bf16 *from, u32) { load_matrices_4(high, shared_address(from)); }
    __device__ __forceinline__ void multiply(float *sum, const u32 (*r)[2]) const {
        multiply_add<bf16>(sum, high, r[1]);
        multiply_add<bf16>(sum, high, r[0]);
    }
};
template <>
struct RowParts<f16> {
    static constexpr float PRODUCTS = 3.0f, LEFT_OUT = 2.0f;
    u32 high[4], low[4];
    __device__ __forceinline__ static u32 row_of(u32 i) { return i; }
    static constexpr u32 NEXT_ROW = 4;
    __device__ __forceinline__ static u32 column_of(u32 place) { return place; }
    __device__ __forceinline__ static const f16 *start(const f16 *rows, u32 pitch) {
        return rows + threadIdx.x % 16 * pitch + threadIdx.x % WARP / 16 * 8;
    }
    __device__ __forceinline__ RowParts(const f16 *from, u32) {
        load_matrices_4(high, shared_address(from));
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float x[2];
            widen_pair<f16>(high[i], x);
            high[i] = round_pair(x[0], x[1]);
            low[i] = narrow_pair<bf16>(x[0], x[1]);
        }
    }
    __device__ __forceinline__ void multiply(float *sum, const u32 (*r)[2]) const {
        multiply_add<bf16>(sum, high, r[1]);
        multiply_add<bf16>(sum, low, r[0]);
        multiply_add<bf16>(sum, high, r[0]);
    }
};
// Each lane reads 16 bytes and puts the four columns at its four places. Rows are ordered so that those that eight
// lanes read together are in different banks, and so are the signatures that sixteen lanes write.
template <>
struct RowParts<float> {
    static constexpr float PRODUCTS = 3.0f, LEFT_OUT = 3.0f;
    u32 high[4], low[4];
    __device__ __forceinline__ static u32 row_of(u32 i) { return i % 2 * 4 + (i / 2 % 2 * 3 ^ i / 4); }
    static constexpr u32 NEXT_ROW = 16;
    __device__ __forceinline__ static u32 column_of(u32 place) {
        return place / 16 * 16 + place % 8 / 2 * 4 + place % 16 / 8 * 2 + place % 2;
    }
    __device__ __forceinline__ static const float *start(const float *rows, u32 pitch) {
        return rows + row_of(threadIdx.x % WARP / 4) * pitch + threadIdx.x % 4 * 4;
    }
    __device__ __forceinline__ RowParts(const float *from, u32 pitch) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float x[4];
            widen_vector<float>(read_vector(from + half * 8 * pitch), x);
#pragma unroll
            for (u32 pair = 0; pair < 2; pair++) {
                high[pair * 2 + half] = round_pair(x[pair * 2], x[pair * 2 + 1]);
                low[pair * 2 + half] = narrow_pair<bf16>(x[pair * 2], x[pair * 2 + 1]);
            }
        }
    }
    __device__ __forceinline__ void multiply(float *sum, const u32 (*r)[2]) const {
        multiply_add<bf16>(sum, high, r[1]);
        multiply_add<bf16>(sum, low, r[0]);
        multiply_add<bf16>(sum, high, r[0]);
    }
};

// Splits the rotations into parts in shared memory. A warp takes 8 functions of 8 columns: each read is a whole sector
// of each column, if aligned.
template <typename T>
__device__ __forceinline__ void load_rotation_parts(u16 *to, const Functions &f) {
    u32 functions = f.groups * f.bits, apart = f.apart(), column_blocks = f.columns / 8;
    u32 tiles = (functions + 7) / 8 * column_blocks;
    for (u32 tile = threadIdx.x / WARP; tile < tiles; tile += blockDim.x / WARP) {
        u32 block = tile / column_blocks, function = block * 8 + threadIdx.x % 8;
        // Two adjacent places have adjacent columns.
        u32 place = (tile - block * column_blocks) * 8 + threadIdx.x % WARP / 8 * 2, column = RowParts<T>::column_of(place);
        if (function < functions) {
            const float *from = f.rotations + column * f.stride + f.first + function;
            float low = column < f.width ? from[0] : 0.0f, high = column + 1 < f.width ? from[f.stride] : 0.0f;
            u32 group = function / f.bits;
            u16 *at = to + (function - group * f.bits) * apart + group * f.pitch() + place;
            *(u32 *)at = round_pair(low, high);
            *(u32 *)(at + f.bits * apart) = narrow_pair<bf16>(low, high);
        }
    }
}

// Whether ⟨x, r⟩ > 0, by fused multiply-adds in the order of the columns; the numbers of `r` are `stride` apart.
template <typename T>
__device__ __forceinline__ bool is_positive(const T *x, const float *r, u32 width, u32 stride) {
    // Rows of zeros are not rare, and all of their sums come here. `x` is padded with zeros to a multiple of 16
    // columns.
    u32 any = 0;
    for (u32 column = 0; column < width && any == 0; column += PER_VECTOR<T>) {
        Vector vector = read_vector(x + column);
        any = (vector.words[0] | vector.words[1] | vector.words[2] | vector.words[3]) & (sizeof(T) == 4 ? 0x7fffffffu : 0x7fff7fffu);
    }
    float sum = 0.0f;
#pragma unroll 1
    for (const T *end = any == 0 ? x : x + width; x != end; x++, r += stride) {
        sum = fma(widen(*x), *r, sum);
    }
    return sum > 0.0f;
}

// Adds the products of 16 rows with the functions of BITS_AT_ONCE bits, whose parts are at `address`, and the products of
// their magnitudes. `start`: this lane's row.
template <typename T>
__device__ __forceinline__ void add_products(
    float (*sum)[4], float (*magnitude)[4], const u32 *address, const T *start, u32 pitch, u32 columns) {
#pragma unroll 1
    for (u32 column = 0; column < columns; column += 16) {
        RowParts<T> x(start + column, pitch);
#pragma unroll
        for (u32 t = 0; t < BITS_AT_ONCE; t++) {
            u32 r[2][2];
            load_matrices_4(&r[0][0], address[t] + column * 2);
            x.multiply(sum[t], r);
            u32 size[4], absolute[2] = {r[0][0] & 0x7fff7fffu, r[0][1] & 0x7fff7fffu};
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                size[k] = x.high[k] & 0x7fff7fffu;
            }
            multiply_add<bf16>(magnitude[t], size, absolute);
        }
    }
}

// `positive` with the bits that the matrix units leave undecided taken from fused multiply-adds. `group`: of e = 0, in row i.
template <typename T>
__device__ __forceinline__ u32 decide(
    u32 positive, const float (*sum)[4], const float (*magnitude)[4], float slack, float most, const T *rows, u32 i,
    u32 pitch, const Functions &f, u32 first, u32 group_of_first) {
    u32 undecided = 0;
#pragma unroll
    for (u32 which = 0; which < 4 * BITS_AT_ONCE; which++) {
        u32 e = which / BITS_AT_ONCE, t = which % BITS_AT_ONCE;
        bool decided = fabsf(sum[t][e]) > fma(slack, magnitude[t][e], 1e-30f) && magnitude[t][e] < most;
        decided |= first + t >= f.bits;
        undecided |= (decided ? 0u : 1u) << which;
    }
    for (; undecided != 0; undecided &= undecided - 1) {
        u32 which = __ffs(undecided) - 1, e = which / BITS_AT_ONCE, t = first + which % BITS_AT_ONCE;
        u32 group = min(group_of_first + e % 2, f.groups - 1);
        bool yes = is_positive(rows + (i + e / 2 * 8) * pitch, f.rotations + f.first + group * f.bits + t, f.width, f.stride);
        positive = (positive & ~(1u << which)) | (yes ? 1u : 0u) << which;
    }
    return positive;
}

// Stores the signatures, plus `base`, of 16 rows in the block's groups from `first_group` on at codes +
// group_place(group), in the order in which the rows of a quad are adjacent (quad_row). The whole warp calls it
// together.
template <typename T>
__device__ __forceinline__ void hash_matrix(u16 *codes, u32 base, const T *rows, const Functions &f, u32 first_group) {
    u32 lane = threadIdx.x % WARP, i = RowParts<T>::row_of(lane / 4), j = lane % 4;
    u32 pitch = tile_pitch<T>(f.columns), apart = f.apart();
    const T *start = RowParts<T>::start(rows, pitch);
    // This lane's 16 bytes of the four matrices: columns 0.. and 8.. of the first part, then of the second.
    u32 own = f.parts + (min(first_group + lane % 8, f.groups - 1) * f.pitch() + lane / 8 % 2 * 8 +
                         lane / 16 * f.bits * apart) *
                            2;
    // Each product of 16 columns adds 17 numbers with an error of up to 2^-23 of the largest, the fused multiply-adds
    // one with up to 2^-24. One hundredth each for the roundings of the magnitude and of this bound.
    float slack = (((2.25f * RowParts<T>::PRODUCTS + 1.0f) * (float)f.columns) * 0x1p-24f +
                   RowParts<T>::LEFT_OUT * 0x1p-16f) *
                  1.02f;
    // Matrix instructions need all lanes together, wherever they come from.
    __syncwarp();
    // Of groups 2j and 2j + 1: the code of row i and, in the upper half, of row i + 8.
    u32 code[2] = {base | base << 16, base | base << 16};
#pragma unroll 1
    for (u32 first = 0; first < f.bits; first += BITS_AT_ONCE) {
        float sum[BITS_AT_ONCE][4] = {}, magnitude[BITS_AT_ONCE][4] = {};
        u32 address[BITS_AT_ONCE];
#pragma unroll
        for (u32 t = 0; t < BITS_AT_ONCE; t++) {
            address[t] = own + min(first + t, f.bits - 1) * apart * 2;
        }
        add_products(sum, magnitude, address, start, pitch, f.columns);
        // Bits 3e + t: the signs; and whether all of them are certain.
        u32 negative = 0;
        bool sure = true;
        float largest = 0.0f;
#pragma unroll
        for (u32 e = 4; e-- > 0;) {
#pragma unroll
            for (u32 t = BITS_AT_ONCE; t-- > 0;) {
                negative = __funnelshift_l(__float_as_uint(sum[t][e]), negative, 1);
                sure &= fabsf(sum[t][e]) > fma(slack, magnitude[t][e], 1e-30f);
                largest = fmaxf(largest, magnitude[t][e]);
            }
        }
        // Near the largest finite number, a device that truncates may not reach infinity.
        float most = 0x1p120f;
        sure &= largest < most;
        u32 positive = ~negative;
        if (!sure) {
            positive = decide(positive, sum, magnitude, slack, most, rows, i, pitch, f, first, first_group + 2 * j);
        }
        __syncwarp();
        u32 there = (1u << min(f.bits - first, (u32)BITS_AT_ONCE)) - 1;
#pragma unroll
        for (u32 n = 0; n < 2; n++) {
            u32 low = positive >> 3 * n & there, high = positive >> (3 * n + 6) & there;
            code[n] |= (low | high << 16) << first;
        }
    }
    // Lanes of an even and an odd row have two groups each; after an exchange, one group of both rows.
    bool odd = i % 2 != 0;
    u32 keep = odd ? code[1] : code[0], got = shuffle_xor(odd ? code[0] : code[1], RowParts<T>::NEXT_ROW);
    u32 even_row = odd ? got : keep, odd_row = odd ? keep : got;
    uint2 four = make_uint2(__byte_perm(even_row, odd_row, 0x5410), __byte_perm(even_row, odd_row, 0x7632));
    u32 group = first_group + 2 * j + i % 2;
    if (group < f.groups) {
        *(uint2 *)(codes + group_place(group) + i / 2 * 4) = four;
    }
}

// Computes the codes, plus `base`, of a tile's rows in the block's groups, placed so that the four of a lane are adjacent.
template <typename T>
__device__ __forceinline__ void hash_tile(const Functions &functions, u16 *codes, u32 base, const T *tile, u32 rows) {
    constexpr u32 ROW_BLOCKS = TILE_ROWS / MATRIX_ROWS;
    u32 units = (functions.groups + MATRIX_GROUPS - 1) / MATRIX_GROUPS * ROW_BLOCKS;
    for (u32 unit = threadIdx.x / WARP; unit < units; unit += blockDim.x / WARP) {
        u32 row = unit % ROW_BLOCKS * MATRIX_ROWS;
        if (row < rows) {
            hash_matrix(codes + row, base, tile + row * tile_pitch<T>(functions.columns), functions,
                        unit / ROW_BLOCKS * MATRIX_GROUPS);
        }
    }
}
