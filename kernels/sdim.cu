// SDIM: signatures, and bucket tables T[b,g,c,:] = Σ_{l of user b, sig[g](s_l) = c} s_l.
//
// sdim_signatures: a block hashes 64 rows in 16 groups; see sdim_hash.cuh.
// sdim_encode (`one_hot_mma`): the table is a matrix product of a one-hot matrix [buckets, rows] with the rows. A block
//   takes a piece of one user's history, 64 rows at a time: it copies them to shared memory while the tile before is
//   worked on, hashes them there (16-bit rows by sdim_hash_matrix.cuh) or reads given signatures, and multiplies. A warp owns 64 buckets (of all groups,
//   counted through) by 16 columns of the table, in 32 registers a lane; one-hot fragments are made by comparing
//   signatures. So a behaviour is read once, there are no atomics, and the sums' order is fixed. Tables of more than 16
//   warps are cut among blocks, and are hashed by sdim_signatures first.
//   Products with 1 and 0 are exact; f32 rows are cut into three bf16 parts that add up to them. Sums in f32, in the
//   matrix unit's order. 0·NaN is NaN, so 16 rows with a number that is not finite are added one by one instead.
// sdim_merge adds partial tables of one user, in their order; sdim_add one table to another.
// sdim_check looks for given signatures out of range where no other kernel sees them all.
// Large tables (τ > 6) and the table-free form: sdim_scan.cu.
#include "sdim_hash_matrix.cuh"

enum : u32 {
    WARP_BUCKETS = 64,
    WARP_COLUMNS = 16,
    MOST_THREADS = 512,
    // Signatures are kept as the f16 numbers 1024 + code, so that one instruction compares two of them.
    CODE_BASE = 0x6400,
};

// Codes of one group in a tile. What is behind them puts the next group's into other banks: of the 16 groups that
// half a warp writes where rows are f32, of the 8 where they are hashed on the matrix units.
template <typename T>
constexpr u32 CODE_PITCH = TILE_ROWS + 16 / sizeof(T);

struct SignatureParams {
    const void *rows;
    const float *rotations;
    void *out;
    u64 count;
    u32 width, groups, bits, vectors;
    // 1 or 2 a signature.
    u32 code_bytes;
    u32 unused;
};

// Block: 64 rows by 16 groups; a thread: 4 rows by one group.
template <typename T>
__device__ __forceinline__ void signatures(const SignatureParams &p) {
    constexpr u32 COLUMNS = 64, GROUPS = 16;
    __shared__ alignas(16) T tile[TILE_ROWS * (COLUMNS + PER_VECTOR<T>)];
    __shared__ alignas(16) float rotations[BITS_AT_ONCE * (GROUPS * (COLUMNS + 4) + 32)];
    u32 group_blocks = (p.groups + GROUPS - 1) / GROUPS;
    u64 first_row = (u64)(blockIdx.x / group_blocks) * TILE_ROWS;
    u32 first_group = blockIdx.x % group_blocks * GROUPS;
    u32 group_count = min((u32)GROUPS, p.groups - first_group);
    u32 rows = (u32)min((u64)TILE_ROWS, p.count - first_row);
    u32 g = threadIdx.x % GROUPS, quad = threadIdx.x / GROUPS;
    const T *from = (const T *)p.rows + first_row * p.width;
    u32 code[4] = {};
    for (u32 first_bit = 0; first_bit < p.bits; first_bit += BITS_AT_ONCE) {
        u32 bits = min((u32)BITS_AT_ONCE, p.bits - first_bit);
        float sum[4][BITS_AT_ONCE] = {};
        for (u32 column = 0; column < p.width; column += COLUMNS) {
            __syncthreads();
            load_tile(tile, from, rows, p.width, column, COLUMNS, p.vectors);
            load_rotations(rotations, p.rotations, p.width, column, COLUMNS, p.groups, p.bits, first_group, group_count,
                           first_bit, bits);
            copy_commit();
            copy_wait<0>();
            __syncthreads();
            if (g < group_count) {
                project(sum, tile + quad_row(quad, 0) * tile_pitch<T>(COLUMNS), tile_pitch<T>(COLUMNS),
                        rotations + g * rotation_pitch(COLUMNS), bit_pitch(COLUMNS, group_count, bits), bits, COLUMNS);
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            code[i] |= positive_bits(sum[i], bits) << first_bit;
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 row = quad_row(quad, i);
        if (g < group_count && row < rows) {
            u64 at = (first_row + row) * p.groups + first_group + g;
            if (p.code_bytes == 1) {
                ((u8 *)p.out)[at] = (u8)code[i];
            } else {
                ((u16 *)p.out)[at] = (u16)code[i];
            }
        }
    }
}

struct EncodeParams {
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
// reads as 2^-7; sums are scaled back at the end, exactly.
template <typename T>
struct Storage {
    typedef T Part;
    enum : u32 { PARTS = 1 };
};
template <>
struct Storage<float> {
    typedef bf16 Part;
    enum : u32 { PARTS = 3 };
};
template <typename T>
__device__ __forceinline__ float one() {
    return sizeof(T) == 2 && narrow<T>(1.0f).bits == 0x3c00 ? 1.0f : 0.0078125f;
}
template <>
__device__ __forceinline__ float one<float>() {
    return 0.0078125f;
}

// 1 in each half where the codes are equal, else 0.
__device__ __forceinline__ u32 one_hot(u32 codes, u32 bucket) {
    u32 out;
    asm("set.eq.f16x2.f16x2 %0, %1, %2;" : "=r"(out) : "r"(codes), "r"(bucket));
    return out;
}

__device__ __forceinline__ u32 not_finite(u32 pair, f16) {
    u32 out;
    asm("fma.rn.f16x2 %0, %1, %2, %2;" : "=r"(out) : "r"(pair), "r"(0));
    return out & 0x7fff7fffu;
}
__device__ __forceinline__ u32 not_finite(u32 pair, bf16) {
    u32 out;
    asm("fma.rn.bf16x2 %0, %1, %2, %2;" : "=r"(out) : "r"(pair), "r"(0));
    return out & 0x7fff7fffu;
}

// B of 16 rows by 16 columns from a tile in shared memory; whether a number of this lane's is not finite.
template <typename T>
__device__ __forceinline__ bool load_rows(u32 (*b)[2][2], const T *tile, u32 pitch) {
    u32 lane = threadIdx.x % WARP;
    load_transposed_4(&b[0][0][0], shared_address(tile + lane % 16 * pitch + lane / 16 * 8));
    u32 wrong = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        wrong |= not_finite(b[0][i / 2][i % 2], T{});
    }
    return wrong != 0;
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
// memory, and its own, two in a register. Rows past the last bucket repeat others; their sums are not stored.
struct Buckets {
    u32 place[WARP_BUCKETS / 16][2], code[WARP_BUCKETS / 16];
    __device__ __forceinline__ Buckets(const EncodeParams &p, u32 codes, u32 code_pitch, u32 first_bucket,
                                       u32 first_group) {
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 flat = first_bucket + i * 16 + half * 8 + threadIdx.x % WARP / 4;
                u32 group = min(flat >> p.bits, p.groups - 1) - first_group;
                place[i][half] = codes + (group * code_pitch + threadIdx.x % 4 * 4) * 2;
                u32 own = CODE_BASE + (flat & ((1u << p.bits) - 1));
                code[i] = half == 0 ? own : code[i] | own << 16;
            }
        }
    }
    // Twice in a register.
    __device__ __forceinline__ u32 pair(u32 i, u32 half) const {
        return __byte_perm(code[i], 0, half == 0 ? 0x1010 : 0x3232);
    }
};

// Four codes of a group, by their address in shared memory.
__device__ __forceinline__ uint2 codes_at(u32 address) {
    uint2 out;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(out.x), "=r"(out.y) : "r"(address) : "memory");
    return out;
}

__device__ __forceinline__ u16 code_at(u32 address) {
    u16 out;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(out) : "r"(address) : "memory");
    return out;
}

// Adds 16 rows from `first_row` of a tile, as a product; `tile` begins at that row.
template <typename T>
__device__ __forceinline__ void add_rows(Sums &sums, const Buckets &buckets, u32 first_row, const T *tile, u32 pitch) {
    u32 lane = threadIdx.x % WARP;
    u32 b[Storage<T>::PARTS][2][2];
    if (!__any_sync(WHOLE_WARP, load_rows(b, tile, pitch))) {
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
            u32 a[4];
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                uint2 four = codes_at(buckets.place[i][half] + first_row * 2);
                a[half] = one_hot(four.x, buckets.pair(i, half));
                a[half + 2] = one_hot(four.y, buckets.pair(i, half));
            }
#pragma unroll
            for (u32 part = 0; part < Storage<T>::PARTS; part++) {
#pragma unroll
                for (u32 n = 0; n < 2; n++) {
                    multiply_add<typename Storage<T>::Part>(sums.c[i][n], a, b[part][n]);
                }
            }
        }
        return;
    }
#pragma unroll 1
    for (u32 place = 0; place < 16; place++) {
        const T *row = tile + quad_row(place / 4, place % 4) * pitch + lane % 4 * 2;
        u32 at = (first_row + place) * 2 - lane % 4 * 8;
#pragma unroll
        for (u32 i = 0; i < WARP_BUCKETS / 16; i++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                // From the lane's own four to this row's.
                if (code_at(buckets.place[i][half] + at) == (u16)buckets.pair(i, half)) {
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        sums.c[i][e / 2][half * 2 + e % 2] += widen(row[e / 2 * 8 + e % 2]) * one<T>();
                    }
                }
            }
        }
    }
}

// The codes of a tile's rows in all groups, at the places where a lane finds its four side by side.
template <typename T>
__device__ __forceinline__ void hash_tile(const EncodeParams &p, u16 *codes, const T *tile, const void *rotations,
                                          u32 rows, u32 columns) {
    u32 pitch = tile_pitch<T>(columns);
    if constexpr (sizeof(T) == 2) {
        u32 group_blocks = (p.groups + MATRIX_GROUPS - 1) / MATRIX_GROUPS;
        u32 units = (rows + MATRIX_ROWS - 1) / MATRIX_ROWS * group_blocks;
        for (u32 unit = threadIdx.x / WARP; unit < units; unit += blockDim.x / WARP) {
            u32 row = unit / group_blocks * MATRIX_ROWS;
            hash_matrix(codes + row, CODE_PITCH<T>, CODE_BASE, tile + row * pitch, (const u16 *)rotations, p.rotations,
                        p.width, columns, p.groups, p.bits, unit % group_blocks * MATRIX_GROUPS);
        }
    } else {
        u32 rotated = rotation_pitch(columns), apart = bit_pitch(columns, p.groups, p.bits);
        for (u32 item = threadIdx.x; item < TILE_QUADS * p.groups; item += blockDim.x) {
            u32 quad = item / p.groups, g = item % p.groups;
            u32 code[4] = {CODE_BASE, CODE_BASE, CODE_BASE, CODE_BASE};
#pragma unroll 1
            for (u32 t = 0; t < p.bits; t += BITS_AT_ONCE) {
                float sum[4][BITS_AT_ONCE] = {};
                project(sum, tile + quad_row(quad, 0) * pitch, pitch, (const float *)rotations + t * apart + g * rotated,
                        apart, p.bits - t, columns);
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    code[i] |= positive_bits(sum[i], p.bits - t) << t;
                }
            }
            uint2 four = make_uint2(code[0] | code[1] << 16, code[2] | code[3] << 16);
            *(uint2 *)(codes + g * CODE_PITCH<T> + quad * 4) = four;
        }
    }
}

template <typename T>
__device__ __forceinline__ void read_codes(const EncodeParams &p, u16 *codes, u64 first_row, u32 rows, u32 first_group,
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
        codes[g * CODE_PITCH<T> + row / 16 * 16 + row % 8 / 2 * 4 + row % 16 / 8 * 2 + row % 2] = (u16)(CODE_BASE + code);
    }
}

template <typename T>
__device__ __forceinline__ void store(const EncodeParams &p, const Piece &piece, const Sums &sums, u32 first_bucket,
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
                float low = sums.c[i][n][half * 2] / one<T>(), high = sums.c[i][n][half * 2 + 1] / one<T>();
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
__device__ __forceinline__ void encode(const EncodeParams &p) {
    u32 blocks = p.bucket_blocks * p.column_blocks;
    // Where the sums go is read when they are there: registers are short until then.
    const Piece &piece = p.pieces[blockIdx.x / blocks];
    const u64 start_row = piece.history_start;
    const u32 length = piece.length;
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
    // Codes of an odd number of groups end at a multiple of 8 bytes.
    void *rotations = codes + (groups + groups % 2) * CODE_PITCH<T>;
    if (p.rotations) {
        if constexpr (sizeof(T) == 2) {
            load_rotation_parts((u16 *)rotations, p.rotations, p.width, columns, p.groups, p.bits);
        } else {
            load_rotations((float *)rotations, p.rotations, p.width, 0, columns, p.groups, p.bits, 0, p.groups, 0, p.bits);
        }
    }

    const T *rows = (const T *)p.rows + start_row * p.width;
    auto start = [&](u32 first) {
        if (first < length) {
            T *to = tiles + (p.stages == 2 ? first / TILE_ROWS % 2 : 0) * TILE_ROWS * pitch;
            load_tile(to, rows + (u64)first * p.width, min((u32)TILE_ROWS, length - first), p.width, first_column,
                      columns, p.vectors);
        }
        copy_commit();
    };
    Sums sums = {};
    Buckets buckets(p, shared_address(codes), CODE_PITCH<T>, first_bucket, first_group);
    start(0);
    for (u32 first = 0; first < length; first += TILE_ROWS) {
        u32 count = min((u32)TILE_ROWS, length - first);
        const T *tile = tiles + (p.stages == 2 ? first / TILE_ROWS % 2 : 0) * TILE_ROWS * pitch;
        if (p.stages == 2) {
            start(first + TILE_ROWS);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        if (p.rotations) {
            hash_tile(p, codes, tile, rotations, count, columns);
        } else {
            read_codes<T>(p, codes, start_row + first, count, first_group, groups);
        }
        __syncthreads();
#pragma unroll 1
        for (u32 row = 0; row < count; row += 16) {
            add_rows(sums, buckets, row, tile + row * pitch + warp_column, pitch);
        }
        // The next codes, and the next tile but one, take this one's place.
        __syncthreads();
        if (p.stages == 1) {
            start(first + TILE_ROWS);
        }
    }
    copy_wait<0>();
    store<T>(p, piece, sums, first_bucket, first_column + warp_column);
}

struct MergeParams {
    const Tile *merges;
    const float *partial;
    float *table;
    // Numbers of one user's table.
    u64 size;
    u64 blocks_a_table;
    u32 append;
    u32 unused;
};

// One number of one user's table a thread: its parts, in their order.
extern "C" __global__ void __launch_bounds__(256) sdim_merge(const MergeParams p) {
    const Tile &tile = p.merges[blockIdx.x / p.blocks_a_table];
    u64 i = blockIdx.x % p.blocks_a_table * 256 + threadIdx.x;
    if (i >= p.size) {
        return;
    }
    float *to = p.table + tile.user * p.size + i;
    float sum = p.append ? *to : 0.0f;
    const float *from = p.partial + tile.first_slot * p.size + i;
    for (u32 slot = 0; slot < tile.slots; slot++) {
        sum += from[slot * p.size];
    }
    *to = sum;
}

struct AddParams {
    float *table;
    const float *other;
    u64 length;
};

// One number a thread.
extern "C" __global__ void __launch_bounds__(256) sdim_add(const AddParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.length) {
        p.table[i] += p.other[i];
    }
}

struct CheckParams {
    const void *codes;
    u64 *record;
    u64 length;
    u32 bits, code_bytes;
};

// One signature a thread.
extern "C" __global__ void __launch_bounds__(256) sdim_check(const CheckParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.length) {
        u32 code = p.code_bytes == 1 ? ((const u8 *)p.codes)[i] : ((const u16 *)p.codes)[i];
        if (code >> p.bits != 0) {
            report_bad_id(p.record, i, code);
        }
    }
}

#define VARIANTS(T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) sdim_signatures_##T(const SignatureParams p) {   \
        signatures<T>(p);                                                                              \
    }                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS) sdim_encode_##T(const EncodeParams p) { \
        encode<T>(p);                                                                                  \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
