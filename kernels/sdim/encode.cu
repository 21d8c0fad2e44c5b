// SDIM bucket tables T[b,g,c,:] = Σ_{l of user b, sig[g](s_l) = c} s_l of up to 6 bits (`one_hot_mma`): the product of a
// one-hot matrix [buckets, rows] with the rows.
//
// A block takes a piece of one user's history, 64 rows at a time: it copies them to shared memory while the previous tile is
//   processed, hashes them there (hash_matrix.cuh) or reads given signatures, and multiplies. A warp owns 64 buckets
//   (numbered over all groups) by 16 columns of the table, in 32 registers per lane; one-hot fragments are made by
//   comparing signatures. There are no atomics, so the order of the sums is fixed.
// A table of more than 16 warps is divided among blocks. If they hash, each has all columns of some groups: it computes the
//   signatures of these groups only, and no projection is computed twice. Blocks of one piece are adjacent and run
//   together, so that only the first to read a row reads it from memory. If signatures are given, blocks divide the columns
//   first, and read each row once. Rows of more than 256 numbers, and those that leave too little shared memory for the
//   rotations, are hashed by sdim_signatures before.
// Products with 1 and 0 are exact; f32 rows are split into three bf16 parts whose sum is exact. Sums are in f32, in the
//   order of the matrix unit. Rows with weights are f32 rows: sdim_weigh has multiplied them. 0·NaN is NaN, so 16 rows that include a number that is not finite are added one by one.
#include "sdim/hash_matrix.cuh"

enum : u32 {
    WARP_BUCKETS = 64,
    WARP_COLUMNS = 16,
    STEP_ROWS = 16,
    MOST_THREADS = 512,
    // Signatures are kept as the f16 numbers 1024 + code, so that one instruction compares two of them.
    CODE_BASE = 0x6400,
};

struct SdimEncodeParams {
    const Piece *pieces;
    const void *rows;
    // [width, groups, bits]; null if signatures are given, [rows, groups].
    const float *rotations;
    const void *codes;
    float *table;
    float *partial;
    // For given signatures of 2^bits or more; null if signatures are computed, or have been checked.
    u64 *record;
    u32 width, groups, bits, code_bytes;
    // How the table is divided among the blocks of a piece: warps per block, and blocks.
    u32 bucket_warps, column_warps, bucket_blocks, column_blocks;
    // Whether to add to the table or overwrite it; whether rows are aligned to 16 bytes; tiles in flight.
    u32 append, vectors, stages;
    // Of the sums: -1 where they are subtracted from the table, otherwise 1.
    float sign;
};

// A table as the lanes of a warp hold it: c[i][n] is mma's fragment of buckets 16i.. and columns 8n...
struct Sums {
    float c[WARP_BUCKETS / 16][WARP_COLUMNS / 8][4];
};

// The parts of B: one for 16-bit rows, three of bf16 for f32 rows. One-hot fragments hold 1 in f16, which bf16 reads as
// 2^-7: multiplying the sums by ONE corrects that, exactly.
template <typename T>
struct Storage {
    typedef T Part;
    enum : u32 {
        PARTS = 1,
        ONE = 128
    };
};
template <>
struct Storage<f16> {
    typedef f16 Part;
    enum : u32 {
        PARTS = 1,
        ONE = 1
    };
};
template <>
struct Storage<float> {
    typedef bf16 Part;
    enum : u32 {
        PARTS = 3,
        ONE = 128
    };
};

// 1 in each half whose codes are equal, else 0.
__device__ __forceinline__ u32 one_hot(u32 codes, u32 bucket) {
    u32 out;
    asm("set.eq.f16x2.f16x2 %0, %1, %2;" : "=r"(out) : "r"(codes), "r"(bucket));
    return out;
}

// `before` plus 0 times the pair: not zero if any number is not finite.
__device__ __forceinline__ u32 not_finite(u32 pair, u32 before, f16) {
    u32 out;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(pair), "r"(0), "r"(before));
    return out;
}
__device__ __forceinline__ u32 not_finite(u32 pair, u32 before, bf16) {
    u32 out;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(pair), "r"(0), "r"(before));
    return out;
}

// The upper halves of two numbers, which keep the rest. Truncated, not rounded, so nothing overflows.
__device__ __forceinline__ u32 cut_pair(float &low, float &high) {
    u32 pair = __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
    low -= __uint_as_float(pair << 16);
    high -= __uint_as_float(pair & 0xffff0000u);
    return pair;
}

// Loads B, 16 rows by 16 columns, from a tile in shared memory; returns whether any number of this lane is not finite.
template <typename T>
__device__ __forceinline__ bool load_rows(u32 (*b)[2][2], const T *tile, u32 pitch) {
    u32 lane = threadIdx.x % WARP;
    load_transposed_4(&b[0][0][0], shared_address(tile + lane % 16 * pitch + lane / 16 * 8));
    u32 wrong = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        wrong = not_finite(b[0][i / 2][i % 2], wrong, T{});
    }
    return (wrong & 0x7fff7fffu) != 0;
}
template <>
__device__ __forceinline__ bool load_rows<float>(u32 (*b)[2][2], const float *tile, u32 pitch) {
    u32 lane = threadIdx.x % WARP;
    float wrong = 0.0f;
#pragma unroll
    for (u32 n = 0; n < 2; n++) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const float *at = tile + (lane % 4 * 2 + half * 8) * pitch + n * 8 + lane / 4;
            float low = at[0], high = at[pitch];
            wrong = fma(low, 0.0f, fma(high, 0.0f, wrong));
            // Three times 8 bits are the 24 bits of f32.
#pragma unroll
            for (u32 part = 0; part < 3; part++) {
                b[part][n][half] = cut_pair(low, high);
            }
        }
    }
    return wrong != 0.0f;
}

// The rows of the one-hot fragments that a lane holds: where its group's codes of four rows are in shared memory, and
// its own code. Rows past the last bucket repeat others, and their sums are not stored.
struct Buckets {
    u32 place[WARP_BUCKETS / 16][2], code[WARP_BUCKETS / 16][2];
};

// The same with two halves per register, and places in units of 8 bytes: registers are scarce while rows are hashed.
struct PackedBuckets {
    u32 place[WARP_BUCKETS / 16], code[WARP_BUCKETS / 16];
    __device__ __forceinline__ PackedBuckets(const SdimEncodeParams &p, u32 first_bucket, u32 first_group) {
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
            place[i] = code[i] = 0;
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 flat = first_bucket + i * 16 + half * 8 + threadIdx.x % WARP / 4;
                u32 group = min(flat >> p.bits, p.groups - 1) - first_group;
                place[i] |= (group_place(group) / 4 + threadIdx.x % 4) << 16 * half;
                code[i] |= (CODE_BASE + (flat & ((1u << p.bits) - 1))) << 16 * half;
            }
        }
    }
    __device__ __forceinline__ Buckets unpack(u32 codes) {
        Buckets out;
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
            // Keeps the compiler from unpacking once, ahead of the loop.
            asm volatile("" : "+r"(place[i]), "+r"(code[i]));
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                out.place[i][half] = codes + (place[i] >> 16 * half & 0xffff) * 8;
                // The code in both halves of a register.
                out.code[i][half] = __byte_perm(code[i], 0, half == 0 ? 0x1010 : 0x3232);
            }
        }
        return out;
    }
};

// Four codes of a group, from their address in shared memory.
template <u32 OFFSET>
__device__ __forceinline__ uint2 codes_at(u32 address) {
    uint2 out;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2+%3];" : "=r"(out.x), "=r"(out.y) : "r"(address), "n"(OFFSET) : "memory");
    return out;
}

__device__ __forceinline__ u16 code_at(u32 address) {
    u16 out;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(out) : "r"(address) : "memory");
    return out;
}

// Adds the STEP-th 16 rows of a tile as a product; returns false, without adding, if any number of them is not finite.
template <u32 STEP, typename T>
__device__ __forceinline__ bool add_product(Sums &sums, const Buckets &buckets, const T *tile, u32 pitch) {
    u32 b[Storage<T>::PARTS][2][2];
    if (__any_sync(WHOLE_WARP, load_rows(b, tile + STEP * STEP_ROWS * pitch, pitch))) {
        return false;
    }
#pragma unroll
    for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
        u32 a[4];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            uint2 four = codes_at<STEP * STEP_ROWS * 2>(buckets.place[i][half]);
            a[half] = one_hot(four.x, buckets.code[i][half]);
            a[half + 2] = one_hot(four.y, buckets.code[i][half]);
        }
#pragma unroll
        for (u32 part = 0; part < Storage<T>::PARTS; part++) {
#pragma unroll
            for (u32 n = 0; n < 2; n++) {
                multiply_add<typename Storage<T>::Part>(sums.c[i][n], a, b[part][n]);
            }
        }
    }
    return true;
}

// Adds 16 rows of a tile one by one, from `first_row` on.
template <typename T>
__device__ __forceinline__ void add_rows(Sums &sums, const Buckets &buckets, const T *tile, u32 pitch, u32 first_row) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    for (u32 place = 0; place < STEP_ROWS; place++) {
        const T *row = tile + (first_row + quad_row(place / 4, place % 4)) * pitch + lane % 4 * 2;
        // From the lane's own four codes to that of this row.
        u32 at = (first_row + place) * 2 - lane % 4 * 8;
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                if (code_at(buckets.place[i][half] + at) == (u16)buckets.code[i][half]) {
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        sums.c[i][e / 2][half * 2 + e % 2] += widen(row[e / 2 * 8 + e % 2]) / Storage<T>::ONE;
                    }
                }
            }
        }
    }
}

// Adds the first `count` rows of a tile, which is padded with zeros; `tile` begins at the warp's columns.
template <typename T>
__device__ __forceinline__ void add_tile(Sums &sums, const Buckets &buckets, const T *tile, u32 pitch, u32 count) {
    u32 left = add_product<0>(sums, buckets, tile, pitch) ? 0 : 1;
    if (count > STEP_ROWS) {
        left |= add_product<1>(sums, buckets, tile, pitch) ? 0 : 2;
    }
    if (count > 2 * STEP_ROWS) {
        left |= add_product<2>(sums, buckets, tile, pitch) ? 0 : 4;
    }
    if (count > 3 * STEP_ROWS) {
        left |= add_product<3>(sums, buckets, tile, pitch) ? 0 : 8;
    }
#pragma unroll 1
    for (; left != 0; left &= left - 1) {
        add_rows(sums, buckets, tile, pitch, (__ffs(left) - 1) * STEP_ROWS);
    }
}

__device__ __forceinline__ void read_codes(const SdimEncodeParams &p, u16 *codes, u64 first_row, u32 rows, u32 first_group,
                                           u32 groups) {
    for (u32 item = threadIdx.x; item < TILE_ROWS * groups; item += blockDim.x) {
        u32 row = item / groups, g = item % groups, code = 0;
        if (row < rows) {
            u64 at = (first_row + row) * p.groups + first_group + g;
            code = p.code_bytes == 1 ? ((const u8 *)p.codes)[at] : ((const u16 *)p.codes)[at];
            if (code >> p.bits != 0) {
                if (p.record) {
                    report_bad_id(p.record, at, code);
                }
                code = 0;
            }
        }
        codes[group_place(g) + row / 16 * 16 + row % 8 / 2 * 4 + row % 16 / 8 * 2 + row % 2] = (u16)(CODE_BASE + code);
    }
}

template <typename T>
__device__ __forceinline__ void store(const SdimEncodeParams &p, const Piece &piece, const Sums &sums, u32 first_bucket,
                                      u32 first_column) {
    u32 lane = threadIdx.x % WARP, buckets = p.groups << p.bits;
    bool whole = piece.slot == NONE;
    // The first target is the user's row of results (`Jagged::with_slots`).
    float *table = (whole ? p.table : p.partial) + (whole ? piece.first_target : piece.slot) * buckets * p.width;
    const float one = Storage<T>::ONE * p.sign;
#pragma unroll
    for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 bucket = first_bucket + i * 16 + half * 8 + lane / 4;
#pragma unroll
            for (u32 n = 0; n < 2; n++) {
                u32 column = first_column + n * 8 + lane % 4 * 2;
                if (bucket >= buckets || column >= p.width) {
                    continue;
                }
                float *at = table + (u64)bucket * p.width + column;
                float low = sums.c[i][n][half * 2] * one, high = sums.c[i][n][half * 2 + 1] * one;
                bool pair = column + 1 < p.width;
                if (whole && p.append) {
                    low += at[0];
                    high += pair ? at[1] : 0.0f;
                }
                // Two at once if aligned: those of four lanes are a sector.
                if (pair && (u64)at % 8 == 0) {
                    *(float2 *)at = make_float2(low, high);
                } else {
                    at[0] = low;
                    if (pair) {
                        at[1] = high;
                    }
                }
            }
        }
    }
}

// Shared memory: `stages` tiles of rows, the codes of a tile and, if rows are hashed, the parts of the rotations. Where
// codes and parts begin, and the size, in bytes.
template <typename T>
__device__ __forceinline__ constexpr u32 codes_at(u32 columns, u32 stages) {
    return stages * TILE_ROWS * tile_pitch<T>(columns) * sizeof(T);
}
__device__ __forceinline__ constexpr u32 code_bytes(u32 groups) { return (group_place(groups) + 7) / 8 * 16; }
template <typename T>
constexpr __device__ u32 shared_bytes(u32 columns, u32 groups, u32 bits, u32 stages) {
    Functions functions = {nullptr, columns, 0, 0, groups, bits, 0, columns};
    return codes_at<T>(columns, stages) + code_bytes(groups) + ROTATION_PARTS * bits * functions.apart() * 2;
}

template <typename T>
__device__ __forceinline__ void encode(const SdimEncodeParams &p) {
    u32 blocks = p.bucket_blocks * p.column_blocks;
    // The piece is read again when the sums are stored, because registers are scarce until then.
    const Piece &piece = p.pieces[blockIdx.x / blocks];
    u32 share = blockIdx.x % blocks, warp = threadIdx.x / WARP;
    u32 columns = p.column_warps * WARP_COLUMNS;
    u32 first_column = share / p.bucket_blocks * columns;
    u32 block_bucket = share % p.bucket_blocks * p.bucket_warps * WARP_BUCKETS;
    u32 first_group = block_bucket >> p.bits;
    u32 last_group = min((block_bucket + p.bucket_warps * WARP_BUCKETS - 1) >> p.bits, p.groups - 1);
    u32 groups = last_group - first_group + 1;
    u32 warp_column = warp % p.column_warps * WARP_COLUMNS;
    u32 first_bucket = block_bucket + warp / p.column_warps * WARP_BUCKETS;

    u32 pitch = tile_pitch<T>(columns);
    T *tiles = (T *)dynamic_shared;
    u16 *codes = (u16 *)((u8 *)tiles + codes_at<T>(columns, p.stages));
    u16 *parts = (u16 *)((u8 *)codes + code_bytes(groups));
    Functions functions = {p.rotations, p.width, p.groups * p.bits, first_group * p.bits, groups, p.bits,
                           shared_address(parts), columns};
    if (p.rotations) {
        load_rotation_parts<T>(parts, functions);
    }

    const T *next = (const T *)p.rows + piece.history_start * p.width;
    TileCopy<T> copy(p.width, columns, p.vectors);
    // The tile of the next rows, when `left` rows are left. Two alternate if shared memory holds two.
    auto tile_at = [&](u32 left) {
        return tiles + (p.stages == 2 ? (left + TILE_ROWS - 1) / TILE_ROWS % 2 : 0) * TILE_ROWS * pitch;
    };
    auto start = [&](u32 left) {
        if ((i32)left > 0) {
            copy.load(tile_at(left), next, min((u32)TILE_ROWS, left), first_column);
            next += (u64)TILE_ROWS * p.width;
        }
        copy_commit();
    };
    Sums sums = {};
    PackedBuckets buckets(p, first_bucket, first_group);
    // Histories are shorter than 2^31.
    i32 left = (i32)piece.length;
    start(left);
    for (; left > 0; left -= TILE_ROWS) {
        u32 count = min((u32)TILE_ROWS, (u32)left);
        const T *tile = tile_at(left);
        if (p.stages == 2) {
            start(left - TILE_ROWS);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        if (p.rotations) {
            hash_tile(functions, codes, CODE_BASE, tile, count);
        } else {
            read_codes(p, codes, piece.history_start + piece.length - left, count, first_group, groups);
        }
        __syncthreads();
        add_tile(sums, buckets.unpack(shared_address(codes)), tile + warp_column, pitch, count);
        // The next codes, and the tile after the next, overwrite these.
        __syncthreads();
        if (p.stages == 1) {
            start(left - TILE_ROWS);
        }
    }
    copy_wait<0>();
    store<T>(p, piece, sums, first_bucket, first_column + warp_column);
}

// Columns, groups, bits, stages, bytes.
#define SHARED(T, COLUMNS, GROUPS, BITS, STAGES) \
    COLUMNS, GROUPS, BITS, STAGES, shared_bytes<T>(COLUMNS, GROUPS, BITS, STAGES)
#define VARIANTS(T)                                                                                        \
    LAYOUT(sdim_encode_##T, SHARED(T, 64, 16, 3, 2), SHARED(T, 128, 8, 3, 1), SHARED(T, 16, 5, 1, 2),      \
           SHARED(T, 256, 1, 6, 1), SHARED(T, 80, 4, 4, 2), SHARED(T, 32, 100, 2, 1));                     \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) sdim_encode_##T(const SdimEncodeParams p) { \
        encode<T>(p);                                                                                      \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
