// What all kernels share. Kernels include nothing of the CUDA toolkit, so that NVRTC alone compiles them; instructions
// without a C++ spelling are inline PTX, in forms that every driver since CUDA 11.4 accepts (PTX 7.0, sm_80).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef int i32;
typedef long long i64;

// Constants are enumerators: NVRTC would put a constexpr variable into the PTX, as a global that nothing reads.
enum : u32 {
    WARP = 32,
    WHOLE_WARP = 0xffffffffu,
    // Stands for "none" among 32-bit indices.
    NONE = 0xffffffffu,
};

// ---- The work, as src/plan.rs cuts it ------------------------------------------------------------------------------

// Output rows of one user that read the history together.
struct Tile {
    // The user's first candidate, and the user's history.
    u64 first_target, history_start, history_end;
    // The tile's first row, counted from the first row of that candidate.
    u32 first_row, rows, user;
    // Its first slot and the number of its slots: 0 if its only piece writes the output.
    u32 first_slot, slots;
    u32 unused;
};
static_assert(sizeof(Tile) == 48, "twin in src/cuda/batch.rs");

// A tile against a span of `length` behaviours of its user's history.
struct Piece {
    u64 history_start, first_target;
    u32 length, first_row, rows;
    // The slot of the partial result; NONE: the piece writes the output itself.
    u32 slot;
    u32 user, tile;
};
static_assert(sizeof(Piece) == 40, "twin in src/cuda/batch.rs");

// ---- Storage types -------------------------------------------------------------------------------------------------

// Named as in the suffixes of kernels. The 16-bit types are for storage only: arithmetic is in float.
typedef float f32;
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(f16 x) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x.bits));
    return out;
}
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ f16 narrow<f16>(float x) {
    f16 out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
    return out;
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float x) {
    bf16 out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
    return out;
}

// Two numbers in one register, the first in the lower half, as in fragments of mma.
template <typename T>
__device__ __forceinline__ u32 narrow_pair(float low, float high);
template <>
__device__ __forceinline__ u32 narrow_pair<f16>(float low, float high) {
    u32 out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}
template <>
__device__ __forceinline__ u32 narrow_pair<bf16>(float low, float high) {
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

template <typename T>
__device__ __forceinline__ void widen_pair(u32 pair, float *out);
template <>
__device__ __forceinline__ void widen_pair<f16>(u32 pair, float *out) {
    out[0] = widen(f16{(u16)pair});
    out[1] = widen(f16{(u16)(pair >> 16)});
}
template <>
__device__ __forceinline__ void widen_pair<bf16>(u32 pair, float *out) {
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
}

// ---- Global memory, 16 bytes at a time -----------------------------------------------------------------------------

// The widest access: one of a whole warp covers four cache lines.
struct alignas(16) Vector {
    u32 words[4];
};

template <typename T>
constexpr u32 PER_VECTOR = 16 / sizeof(T);

// Loads through the read-only path: only for memory that the kernel does not write. The address is aligned to 16 bytes.
__device__ __forceinline__ Vector load_vector(const void *from) {
    Vector out;
    asm("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(out.words[0]), "=r"(out.words[1]), "=r"(out.words[2]), "=r"(out.words[3])
        : "l"(from));
    return out;
}

// Reads global or shared memory. Through uint4, because copies of a Vector compile to four of a word each.
__device__ __forceinline__ Vector read_vector(const void *from) {
    uint4 four = *(const uint4 *)from;
    return Vector{{four.x, four.y, four.z, four.w}};
}

__device__ __forceinline__ void store_vector(void *to, const Vector &value) {
    *(uint4 *)to = make_uint4(value.words[0], value.words[1], value.words[2], value.words[3]);
}

// The PER_VECTOR<T> numbers of a vector.
template <typename T>
__device__ __forceinline__ void widen_vector(const Vector &vector, float *out) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) {
            out[i] = __uint_as_float(vector.words[i]);
        } else {
            widen_pair<T>(vector.words[i], out + 2 * i);
        }
    }
}

template <typename T>
__device__ __forceinline__ Vector narrow_vector(const float *numbers) {
    Vector out;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) {
            out.words[i] = __float_as_uint(numbers[i]);
        } else {
            out.words[i] = narrow_pair<T>(numbers[2 * i], numbers[2 * i + 1]);
        }
    }
    return out;
}

// ---- Shared memory -------------------------------------------------------------------------------------------------

// Dynamic shared memory, which each kernel divides.
extern __shared__ Vector dynamic_shared[];

// Exports numbers of a kernel's own layout as the constant NAME_layout, which nothing reads at run time: a test of the
// host compares them with the host's (src/cuda/contracts/shared.rs).
#define LAYOUT(NAME, ...) extern "C" __constant__ const u32 NAME##_layout[] = {__VA_ARGS__}

// The 32-bit address that cp.async and ldmatrix take.
__device__ __forceinline__ u32 shared_address(const void *pointer) {
    u64 out;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(out) : "l"(pointer));
    return (u32)out;
}

// Asynchronously copies 16 bytes from global to shared memory, bypassing L1. Only the first `bytes` (0 to 16) are read,
// the rest is filled with zeros; with 0 the source need not be valid. Both addresses are aligned to 16 bytes.
__device__ __forceinline__ void copy_async(u32 to, const void *from, u32 bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Commits this thread's copies so far as a group.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most LEFT of this thread's latest groups are unfinished. Other threads see the data after a barrier.
template <int LEFT>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// ---- Matrix units --------------------------------------------------------------------------------------------------
//
// Fragments of D[16,8] = A[16,16]·B[16,8] + C, for lane l (i = l / 4, j = l % 4), two 16-bit numbers per register:
//   a[0] A[i][2j..]   a[1] A[i+8][2j..]   a[2] A[i][2j+8..]   a[3] A[i+8][2j+8..]
//   b[0] B[2j..][i]   b[1] B[2j+8..][i]
//   c[0] C[i][2j]     c[1] C[i][2j+1]     c[2] C[i+8][2j]     c[3] C[i+8][2j+1]

// Loads 8 x 8 matrices of 16-bit numbers, a row of 16 bytes from each lane's address: lanes 0..7 address the rows of
// the first matrix, and so on. Of each, lane l gets numbers 2(l % 4) and 2(l % 4) + 1 of row l / 4: fragments of A, and
// of B stored by column.
__device__ __forceinline__ void load_matrices_2(u32 *out, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_4(u32 *out, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// As above with each matrix transposed: fragments of B stored by row.
__device__ __forceinline__ void load_transposed_2(u32 *out, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_transposed_4(u32 *out, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// c += A·B. Products are exact; the device chooses the order of the sixteen sums, in about the precision of f32 or
// better.
template <typename T>
__device__ __forceinline__ void multiply_add(float *c, const u32 *a, const u32 *b);
template <>
__device__ __forceinline__ void multiply_add<f16>(float *c, const u32 *a, const u32 *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void multiply_add<bf16>(float *c, const u32 *a, const u32 *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- Arithmetic ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

__device__ __forceinline__ float largest() { return __int_as_float(0x7f7fffff); }

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) < infinity(); }

// Twice the sum of halves of a convex combination. It lies between the combined numbers: where rounding would leave the
// range of f32, which the halves do not, it is the largest number.
__device__ __forceinline__ float doubled(float half) {
    float sum = half + half;
    return is_finite(half) && !is_finite(sum) ? copysignf(largest(), half) : sum;
}

// 2^x with an error of about 2 ulp: one instruction of the special function unit. 2^-inf is 0.
__device__ __forceinline__ float exp2_approx(float x) {
    float out;
    asm("ex2.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

// e^x. The product adds an error of |x| ulp: near 0, where weights matter, the error is that of exp2_approx.
__device__ __forceinline__ float exp_approx(float x) { return exp2_approx(x * 1.442695040888963407f); }

// 1/x with an error of at most 1 ulp. The correctly rounded quotient is a subroutine, around which registers are
// spilled.
__device__ __forceinline__ float reciprocal_approx(float x) {
    float out;
    asm("rcp.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

// a·b + c, rounded once. Sources are compiled without contraction, so every fused multiply-add is written like this.
__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// a·b + c in one instruction.
__device__ __forceinline__ u64 multiply_add_wide(u32 a, u32 b, u64 c) {
    u64 out;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(out) : "r"(a), "r"(b), "l"(c));
    return out;
}

// Whether any of the numbers is NaN or infinite: its product with 0 is NaN.
template <u32 COUNT>
__device__ __forceinline__ bool any_not_finite(const void *numbers) {
    float zero = 0.0f;
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
        zero = fma(((const float *)numbers)[i], 0.0f, zero);
    }
    return zero != 0.0f;
}

// Whether any of the numbers is NaN, or so large that a sum of a few might overflow: from 2^64 on, its square does.
template <u32 COUNT>
__device__ __forceinline__ bool any_large(const void *numbers) {
    float squares = 0.0f;
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
        squares = fma(((const float *)numbers)[i], ((const float *)numbers)[i], squares);
    }
    return !is_finite(squares);
}

// Whether any of the numbers is less than this, but not 0.
template <u32 COUNT>
__device__ __forceinline__ bool any_less(const void *numbers, float least) {
    bool any = false;
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
        float number = fabsf(((const float *)numbers)[i]);
        any |= number != 0.0f && number < least;
    }
    return any;
}

// ---- Warps ---------------------------------------------------------------------------------------------------------

// All lanes of the warp call these together.
__device__ __forceinline__ float shuffle_xor(float value, u32 lanes) {
    return __shfl_xor_sync(WHOLE_WARP, value, (int)lanes);
}
__device__ __forceinline__ u32 shuffle_xor(u32 value, u32 lanes) { return __shfl_xor_sync(WHOLE_WARP, value, (int)lanes); }

// Over each LANES adjacent lanes (a power of two), for all of them, always in the same order.
template <u32 LANES = WARP>
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (u32 lanes = LANES / 2; lanes > 0; lanes /= 2) {
        value += shuffle_xor(value, lanes);
    }
    return value;
}
template <u32 LANES = WARP>
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (u32 lanes = LANES / 2; lanes > 0; lanes /= 2) {
        value = fmaxf(value, shuffle_xor(value, lanes));
    }
    return value;
}

// ---- Ids out of range ----------------------------------------------------------------------------------------------

// A record is 16 words, one for each 2^32 positions, initially all ones. Each keeps the lowest position of an id out of
// range, and the id: the host reads both from the first word that is not all ones. See src/cuda/records.rs.
__device__ __forceinline__ void report_bad_id(u64 *record, u64 at, u32 id) {
    atomicMin(record + (at >> 32), at << 32 | id);
}
