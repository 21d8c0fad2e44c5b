// SDIM: signatures, and operations on whole bucket tables.
//
// sdim_signatures: a block hashes 64 rows in 16 groups; see hash.cuh.
// sdim_weigh multiplies rows by their weights, for the kernels that add up f32 rows.
// sdim_combine adds the partial tables of a user, in order; sdim_add adds one table to another; sdim_decay multiplies tables.
// sdim_check looks for given signatures out of range that no other kernel reads.
// Tables are filled by encode.cu; large ones (τ > 6) and the form without a table by scan.cu.
#include "sdim/hash.cuh"

struct SdimSignatureParams {
    const void *rows;
    const float *rotations;
    void *out;
    u64 count;
    u32 width, groups, bits, vectors;
    // Bytes per signature, 1 or 2.
    u32 code_bytes;
    u32 unused;
};

// Block: 64 rows by 16 groups; a thread: 4 rows by one group.
template <typename T>
__device__ __forceinline__ void signatures(const SdimSignatureParams &p) {
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
    TileCopy<T> copy(p.width, COLUMNS, p.vectors);
    u32 code[4] = {};
    for (u32 first_bit = 0; first_bit < p.bits; first_bit += BITS_AT_ONCE) {
        u32 bits = min((u32)BITS_AT_ONCE, p.bits - first_bit);
        float sum[4][BITS_AT_ONCE] = {};
        for (u32 column = 0; column < p.width; column += COLUMNS) {
            __syncthreads();
            copy.load(tile, from, rows, column);
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

struct SdimWeighParams {
    // [count, width]
    const void *rows;
    // [count]
    const float *weights;
    // As rows, in f32.
    float *out;
    u64 count;
    u32 width;
    u32 unused;
};

// A warp per row: w·s, rounded once.
template <typename T>
__device__ __forceinline__ void weigh(const SdimWeighParams &p) {
    u64 row = (u64)blockIdx.x * (256 / WARP) + threadIdx.x / WARP;
    if (row >= p.count) {
        return;
    }
    float weight = p.weights[row];
    const T *from = (const T *)p.rows + row * p.width;
    float *to = p.out + row * p.width;
    for (u32 column = threadIdx.x % WARP; column < p.width; column += WARP) {
        to[column] = widen(from[column]) * weight;
    }
}

struct SdimCombineParams {
    const Tile *tiles;
    const float *partial;
    float *table;
    // Numbers of one user's table.
    u64 size;
    u64 blocks_per_table;
    u32 append;
    u32 unused;
};

// One thread per number of a user's table: the partial results, in order.
extern "C" __global__ void __launch_bounds__(256) sdim_combine(const SdimCombineParams p) {
    const Tile &tile = p.tiles[blockIdx.x / p.blocks_per_table];
    u64 i = blockIdx.x % p.blocks_per_table * 256 + threadIdx.x;
    if (i >= p.size) {
        return;
    }
    // The first target is the user's row of results (`Jagged::with_slots`).
    float *to = p.table + tile.first_target * p.size + i;
    float sum = p.append ? *to : 0.0f;
    const float *from = p.partial + tile.first_slot * p.size + i;
    for (u32 slot = 0; slot < tile.slots; slot++) {
        sum += from[slot * p.size];
    }
    *to = sum;
}

struct SdimAddParams {
    float *table;
    const float *other;
    u64 length;
};

// One thread per number.
extern "C" __global__ void __launch_bounds__(256) sdim_add(const SdimAddParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.length) {
        p.table[i] += p.other[i];
    }
}

struct SdimDecayParams {
    float *table;
    // One, or one per user.
    const float *factors;
    // Numbers of one user's table.
    u64 size;
    u64 blocks_per_table;
    // Whether each user has a factor.
    u32 each;
    u32 unused;
};

// One thread per number of a user's table.
extern "C" __global__ void __launch_bounds__(256) sdim_decay(const SdimDecayParams p) {
    u64 user = blockIdx.x / p.blocks_per_table;
    u64 i = blockIdx.x % p.blocks_per_table * 256 + threadIdx.x;
    if (i < p.size) {
        p.table[user * p.size + i] *= p.factors[p.each ? user : 0];
    }
}

struct SdimCheckParams {
    const void *codes;
    u64 *record;
    u64 length;
    u32 bits, code_bytes;
};

// One thread per signature.
extern "C" __global__ void __launch_bounds__(256) sdim_check(const SdimCheckParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.length) {
        u32 code = p.code_bytes == 1 ? ((const u8 *)p.codes)[i] : ((const u16 *)p.codes)[i];
        if (code >> p.bits != 0) {
            report_bad_id(p.record, i, code);
        }
    }
}

// Four blocks per multiprocessor: without the bound, ptxas aims at more on some devices, and spills.
#define VARIANTS(T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 4) sdim_signatures_##T(const SdimSignatureParams p) { \
        signatures<T>(p);                                                                                   \
    }                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) sdim_weigh_##T(const SdimWeighParams p) { weigh<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
