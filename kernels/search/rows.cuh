// How a search reads rows, 16 bytes (a vector) at a time, and adds up their products with candidates.
//
// Each of these holds what belongs to one behaviour while its row passes by. A vector is read as one or more quads, of 16 bytes in
// registers, which meet a quad of each candidate:
//
//     FloatRow<T>   f32, f16, bf16, and 8-bit codes with a scale and an offset; a quad is four numbers of f32. Fused
//                   multiply-adds in the order of the row.
//     CodeRow       8-bit codes that are the values; a quad is 16 codes. dp4a: sums are exact in 32 bits, for which rows have at
//                   most 2^16 codes.
//     SignRow       packed signs; a quad is 128 bits. Counts the bits that differ.
//
// A cosine needs the length of each row: squares are added up next to the products, and what only a row's length decides is
// done once per row. Squares of four or eight numbers are added up in f32 and their sums in two parts, so that the error of a
// length does not grow with the width. Where squares leave the range of f32, the block starts its behaviours again with such
// rows times 2^-80.
#pragma once
#include "search/params.cuh"
#include "selection/block.cuh"
#include "shared/tables.cuh"

// A row whose squares overflow is multiplied with this, exactly, unless its numbers are too small to matter.
__device__ __forceinline__ float shrunk() { return __int_as_float(0x17800000); }

// A sum of squares in two parts: what the first loses to rounding is in the second.
struct Square {
    float sum, rest;

    __device__ __forceinline__ void add(float more) {
        float together = sum + more, added = together - sum;
        rest += (sum - (together - added)) + (more - added);
        sum = together;
    }
    __device__ __forceinline__ float value() const { return sum + rest; }
};

// 1 / max(length, 1e-12), from the square of a length; NaN if that is not finite.
__device__ __forceinline__ float inverse_length(float square) {
    float out;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(out) : "f"(square));
    return is_finite(square) ? fminf(out, 1e12f) : __int_as_float(0x7fc00000);
}

// COUNT words of a candidate's row, of which a quad has so many.
template <u32 NUMBER_BYTES, u32 COUNT>
__device__ __forceinline__ void query_words(u32 *out, const SearchParams &p, u64 row, u32 quad) {
    const u8 *from = (const u8 *)p.queries + row * p.row_bytes;
    loose_words<NUMBER_BYTES, COUNT>(out, from, 4 * COUNT * quad, p.row_bytes, p.access != NUMBERS);
}

template <typename T>
struct FloatRow {
    typedef float Sum;
    typedef Vec4 Quad;
    enum : u32 {
        NUMBER_BYTES = sizeof(T),
        // Numbers, and quads, per vector.
        PER = 16 / sizeof(T),
        QUADS = 4 / sizeof(T),
        MAY_SHRINK = 1,
    };

    // Of 8-bit rows.
    float scale, offset;
    // With cosines: the factor on the row's numbers, the sum of squares, and the bits of all numbers without their signs.
    float shrink;
    Square square;
    u32 bits;

    __device__ __forceinline__ void begin(const float *scales, const float *offsets, u64 row, bool there) {
        square = Square{0.0f, 0.0f};
        bits = 0;
        scale = 1.0f;
        offset = 0.0f;
        if (sizeof(T) == 1 && scales && there) {
            scale = __ldg(scales + row);
            offset = __ldg(offsets + row);
        }
    }

    // Four numbers, of which the first `left` are of the row, from the words that hold them.
    __device__ __forceinline__ Vec4 numbers(const u32 *words, u32 left) const {
        Vec4 out;
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                out.numbers[e] = __uint_as_float(words[e]);
            }
        } else if constexpr (sizeof(T) == 2) {
            widen_pair<T>(words[0], out.numbers);
            widen_pair<T>(words[1], out.numbers + 2);
        } else {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                float number = fma(scale, widen((i8)(words[0] >> 8 * e)), offset);
                out.numbers[e] = e < left ? number : 0.0f;
            }
        }
        return out;
    }
    // A quad of a vector in which `left` numbers of the row are left.
    __device__ __forceinline__ Vec4 quad(const Vector &vector, u32 part, u32 left) const {
        return numbers(vector.words + sizeof(T) * part, left - min(left, COLUMNS * part));
    }

    // Shrinks the numbers, and adds their squares to `sum`.
    __device__ __forceinline__ void measure(Vec4 &numbers, float &sum) {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            bits |= __float_as_uint(numbers.numbers[e]) & 0x7fffffffu;
            numbers.numbers[e] *= shrink;
            sum = fma(numbers.numbers[e], numbers.numbers[e], sum);
        }
    }
    __device__ __forceinline__ void measured(float sum) { square.add(sum); }

    static __device__ __forceinline__ float add(float sum, const Vec4 &query, const Vec4 &row) {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            sum = fma(query.numbers[e], row.numbers[e], sum);
        }
        return sum;
    }

    __device__ __forceinline__ bool is_zero() const { return bits == 0; }
    __device__ __forceinline__ float inverse() const { return inverse_length(square.value()); }
    // Candidates are read with their own factors.
    static __device__ __forceinline__ float score(float sum, float, float factor, float bias, u32) {
        return fma(sum, factor, bias);
    }

    // Four numbers of a candidate, as stored.
    static __device__ __forceinline__ Vec4 stored(const SearchParams &p, u64 row, u32 index) {
        FloatRow candidate;
        candidate.begin(p.query_scales, p.query_offsets, row, true);
        u32 words[sizeof(T)];
        query_words<NUMBER_BYTES, sizeof(T)>(words, p, row, index);
        // The last quads of a vector may be past the end.
        return candidate.numbers(words, p.width - min(p.width, COLUMNS * index));
    }
    // The same as the products take them.
    static __device__ __forceinline__ Vec4 query(const SearchParams &p, u64 row, u32 index, float shrink, float inverse) {
        Vec4 out = stored(p, row, index);
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            out.numbers[e] = out.numbers[e] * shrink * inverse;
        }
        return out;
    }

    // The factors that make a candidate's row one of length 1; a warp computes them.
    static __device__ __forceinline__ void direction(const SearchParams &p, u64 row, float &shrink, float &inverse) {
        shrink = 1.0f;
        for (u32 turn = 0; turn < 2; turn++) {
            Square square = {0.0f, 0.0f};
            for (u32 index = threadIdx.x % WARP; index < p.vectors * QUADS; index += WARP) {
                Vec4 numbers = stored(p, row, index);
                float sum = 0.0f;
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    float number = numbers.numbers[e] * shrink;
                    sum = fma(number, number, sum);
                }
                square.add(sum);
            }
            float sum = warp_sum(square.value());
            inverse = inverse_length(sum);
            if (is_finite(sum)) {
                break;
            }
            shrink = shrunk();
        }
    }
};

struct CodeRow {
    typedef i32 Sum;
    typedef Vector Quad;
    enum : u32 {
        NUMBER_BYTES = 1,
        PER = 16,
        QUADS = 1,
        MAY_SHRINK = 0,
    };

    float shrink;
    i32 square;

    // ⟨a, b⟩ + sum of four codes each.
    static __device__ __forceinline__ i32 four(u32 a, u32 b, i32 sum) {
        i32 out;
        asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
        return out;
    }
    static __device__ __forceinline__ i32 add(i32 sum, const Vector &query, const Vector &row) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum = four(query.words[i], row.words[i], sum);
        }
        return sum;
    }

    __device__ __forceinline__ void begin(const float *, const float *, u64, bool) { square = 0; }
    __device__ __forceinline__ Vector quad(const Vector &vector, u32, u32) const { return vector; }
    __device__ __forceinline__ void measure(Vector &codes, float &) { square = add(square, codes, codes); }
    __device__ __forceinline__ void measured(float) {}
    __device__ __forceinline__ bool is_zero() const { return square == 0; }
    __device__ __forceinline__ float inverse() const { return inverse_length((float)square); }
    static __device__ __forceinline__ float score(i32 sum, float of_query, float factor, float bias, u32) {
        return fma((float)sum * of_query, factor, bias);
    }

    static __device__ __forceinline__ Vector query(const SearchParams &p, u64 row, u32 index, float, float) {
        Vector out;
        query_words<NUMBER_BYTES, 4>(out.words, p, row, index);
        return out;
    }
    static __device__ __forceinline__ void direction(const SearchParams &p, u64 row, float &shrink, float &inverse) {
        i32 square = 0;
        for (u32 index = threadIdx.x % WARP; index < p.vectors; index += WARP) {
            Vector codes = query(p, row, index, 1.0f, 1.0f);
            square = add(square, codes, codes);
        }
        shrink = 1.0f;
        inverse = inverse_length((float)__reduce_add_sync(WHOLE_WARP, square));
    }
};

struct SignRow {
    typedef u32 Sum;
    typedef Vector Quad;
    enum : u32 {
        NUMBER_BYTES = 4,
        PER = 128,
        QUADS = 1,
        MAY_SHRINK = 0,
    };

    float shrink;

    static __device__ __forceinline__ u32 add(u32 sum, const Vector &query, const Vector &row) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum += __popc(query.words[i] ^ row.words[i]);
        }
        return sum;
    }

    __device__ __forceinline__ void begin(const float *, const float *, u64, bool) {}
    // Without the bits past the width.
    __device__ __forceinline__ Vector quad(Vector vector, u32, u32 left) const {
        if (left < PER) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 bits = left - min(left, 32 * i);
                vector.words[i] &= bits < 32 ? (1u << bits) - 1 : ~0u;
            }
        }
        return vector;
    }
    __device__ __forceinline__ void measure(Vector &, float &) {}
    __device__ __forceinline__ void measured(float) {}
    __device__ __forceinline__ bool is_zero() const { return false; }
    __device__ __forceinline__ float inverse() const { return 1.0f; }
    static __device__ __forceinline__ float score(u32 differing, float, float, float, u32 bits) {
        return (float)(bits - differing);
    }

    static __device__ __forceinline__ Vector query(const SearchParams &p, u64 row, u32 index, float, float) {
        Vector out;
        query_words<NUMBER_BYTES, 4>(out.words, p, row, index);
        return SignRow{1.0f}.quad(out, 0, p.width - index * PER);
    }
    static __device__ __forceinline__ void direction(const SearchParams &, u64, float &, float &) {}
};
