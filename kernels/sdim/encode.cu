// SDIM bucket tables T[b,g,c,:] = Σ_{l of user b, sig[g](s_l) = c} s_l of up to 6 bits (`one_hot_mma`): a matrix product of
// a one-hot matrix [buckets, rows] with the rows.
//
// A block takes a piece of one user's history, 64 rows at a time: it copies them to shared memory while the tile before is
//   worked on, hashes them there (sdim_hash_matrix.cuh) or reads given signatures, and multiplies. A warp owns 64
//   buckets (of all groups, counted through) by 16 columns of the table, in 32 registers a lane; one-hot fragments are
//   made by comparing signatures. So there are no atomics, and the sums' order is fixed.
// A table of more than 16 warps is cut among blocks. Where they hash, each has all columns of some groups: it finds the
//   signatures of these groups alone, and no projection is computed twice. Blocks of one piece are neighbours, which run
//   together, so the rows that each of them reads come from memory for the first. Where signatures are given, blocks share
//   the columns first, and read each row once. Rows of more than 256 numbers, and those whose rotations do not fit
//   beside them, are hashed by sdim_signatures first.
// Products with 1 and 0 are exact; f32 rows are cut into three bf16 parts that add up to them. Sums in f32, in the
//   matrix unit's order. 0·NaN is NaN, so 16 rows with a number that is not finite are added one by one instead.
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
    // [width, groups, bits]; null where signatures are given, [rows, groups].
    const float *rotations;
    const void *codes;
    float *table;
    float *partial;
    // For given signatures of 2^bits or more; null where they are our own.
    u64 *record;
    u32 width, groups, bits, code_bytes;
    // How the table is cut among the blocks of a piece: warps' shares a block, and blocks.
    u32 bucket_warps, column_warps, bucket_blocks, column_blocks;
    // Add to the table, or overwrite it; rows can be copied 16 bytes at a time; tiles in flight.
    u32 append, vectors, stages;
    u32 unused;
};

// A table, as the lanes of one warp hold it: c[i][n] is mma's fragment of buckets 16i.. and columns 8n...
struct Sums {
    float c[WARP_BUCKETS / 16][WARP_COLUMNS / 8][4];
};

// The parts of B that multiply: one of 16-bit rows, three bf16 of f32 ones. One-hot fragments hold f16's 1, which bf16
// reads as 2^-7: ONE brings sums back to scale, exactly.
template <typename T>
struct Storage {
    typedef T Part;
    enum : u32 { PARTS = 1, ONE = 128 };
};
template <>
struct Storage<f16> {
    typedef f16 Part;
    enum : u32 { PARTS = 1, ONE = 1 };
};
template <>
struct Storage<float> {
    typedef bf16 Part;
    enum : u32 { PARTS = 3, ONE = 128 };
};

// 1 in each half where the codes are equal, else 0.
__device__ __forceinline__ u32 one_hot(u32 codes, u32 bucket) {
    u32 out;
    asm("set.eq.f16x2.f16x2 %0, %1, %2;" : "=r"(out) : "r"(codes), "r"(bucket));
    return out;
}

// `before` plus 0 times the pair: not zeros if a number of either is not finite.
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

// The upper halves of two numbers, and what is left of them. Cut, not rounded: nothing overflows.
__device__ __forceinline__ u32 cut_pair(float &low, float &high) {
    u32 pair = __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
    low -= __uint_as_float(pair << 16);
    high -= __uint_as_float(pair & 0xffff0000u);
    return pair;
}

// B of 16 rows by 16 columns from a tile in shared memory; whether a number of this lane's is not finite.
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
            // Three times 8 bits are the 24 there are.
#pragma unroll
            for (u32 part = 0; part < 3; part++) {
                b[part][n][half] = cut_pair(low, high);
            }
        }
    }
    return wrong != 0.0f;
}

// Which signatures a lane's rows of the one-hot fragments stand for: where its group's codes of four rows are in shared
// memory, and its own code. Rows past the last bucket repeat others; their sums are not stored.
struct Buckets {
    u32 place[WARP_BUCKETS / 16][2], code[WARP_BUCKETS / 16][2];
};

// The same, of two halves in a register, places in units of 8 bytes: registers are short while rows are hashed.
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
            // The compiler may not do this once and for all.
            asm volatile("" : "+r"(place[i]), "+r"(code[i]));
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                out.place[i][half] = codes + (place[i] >> 16 * half & 0xffff) * 8;
                // Twice in a register.
                out.code[i][half] = __byte_perm(code[i], 0, half == 0 ? 0x1010 : 0x3232);
            }
        }
        return out;
    }
};

// Four codes of a group, by their address in shared memory.
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

// Adds 16 rows of a tile from the STEP-th sixteen, as a product; or, where a number of them is not finite, says so.
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

// Adds 16 rows from `first_row` of a tile one by one.
template <typename T>
__device__ __forceinline__ void add_rows(Sums &sums, const Buckets &buckets, const T *tile, u32 pitch, u32 first_row) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    for (u32 place = 0; place < STEP_ROWS; place++) {
        const T *row = tile + (first_row + quad_row(place / 4, place % 4)) * pitch + lane % 4 * 2;
        // From the lane's own four to this row's.
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

// Adds the first `count` rows of a tile, which holds zeros behind them; `tile` begins at the warp's columns.
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

// The codes of a tile's rows in the block's groups, at the places where a lane finds its four side by side.
template <typename T>
__device__ __forceinline__ void hash_tile(const Functions &functions, u16 *codes, const T *tile, u32 rows) {
    constexpr u32 ROW_BLOCKS = TILE_ROWS / MATRIX_ROWS;
    u32 units = (functions.groups + MATRIX_GROUPS - 1) / MATRIX_GROUPS * ROW_BLOCKS;
    for (u32 unit = threadIdx.x / WARP; unit < units; unit += blockDim.x / WARP) {
        u32 row = unit % ROW_BLOCKS * MATRIX_ROWS;
        if (row < rows) {
            hash_matrix(codes + row, CODE_BASE, tile + row * tile_pitch<T>(functions.columns), functions,
                        unit / ROW_BLOCKS * MATRIX_GROUPS);
        }
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
                report_bad_id(p.record, at, code);
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
    float *table = (whole ? p.table : p.partial) + (u64)(whole ? piece.user : piece.slot) * buckets * p.width;
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
                float low = sums.c[i][n][half * 2] * Storage<T>::ONE, high = sums.c[i][n][half * 2 + 1] * Storage<T>::ONE;
                bool pair = column + 1 < p.width;
                if (whole && p.append) {
                    low += at[0];
                    high += pair ? at[1] : 0.0f;
                }
                // Two at once where they are aligned: four lanes' are a sector.
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

template <typename T>
__device__ __forceinline__ void encode(const SdimEncodeParams &p) {
    u32 blocks = p.bucket_blocks * p.column_blocks;
    // Where the sums go is read when they are there: registers are short until then.
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
    u16 *codes = (u16 *)(tiles + p.stages * TILE_ROWS * pitch);
    u16 *parts = codes + (group_place(groups) + 7) / 8 * 8;
    Functions functions = {p.rotations, p.width, p.groups * p.bits, first_group * p.bits, groups, p.bits,
                           shared_address(parts), columns};
    if (p.rotations) {
        load_rotation_parts<T>(parts, functions);
    }

    const T *next = (const T *)p.rows + piece.history_start * p.width;
    TileCopy<T> copy(p.width, columns, p.vectors);
    // The tile that begins where so many rows are left. Two take turns, where there is room.
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
            hash_tile(functions, codes, tile, count);
        } else {
            read_codes(p, codes, piece.history_start + piece.length - left, count, first_group, groups);
        }
        __syncthreads();
        add_tile(sums, buckets.unpack(shared_address(codes)), tile + warp_column, pitch, count);
        // The next codes, and the next tile but one, take this one's place.
        __syncthreads();
        if (p.stages == 1) {
            start(left - TILE_ROWS);
        }
    }
    copy_wait<0>();
    store<T>(p, piece, sums, first_bucket, first_column + warp_column);
}

#define VARIANTS(T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) sdim_encode_##T(const SdimEncodeParams p) { \
        encode<T>(p);                                                                                  \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
