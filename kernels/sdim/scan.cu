// SDIM without one-hot products: for large tables, and without a table. A warp owns some sums, scans the signatures of one
// group, 32 behaviours at a time, and adds the rows that belong to its sums, in order.
//
// sdim_scatter: bucket tables for τ > 6. A warp owns 32 buckets of one group by 64 columns, in shared memory; a block four
//   times as many buckets. Every warp reads the signatures, and each row once per group, mostly from the cache.
// sdim_sums: for the form without a table. A warp owns the bucket of one candidate in one group, in registers, 256 columns at
//   a time; a block four groups. query.cu computes the output from these sums.
// Both read signatures that another kernel computed, or given ones. Sums are in f32.
#include "shared/common.cuh"

enum : u32 {
    WARPS = 4,
    WARP_BUCKETS = 32,
    // Two per lane.
    WARP_COLUMNS = 64,
    // A lane's columns at a time, without a table: every 32nd.
    LANE_COLUMNS = 8,
    // Rows after which the sums of a bucket are added to those before: shorter chains of additions round less.
    BLOCK_ROWS = 2048,
};

// The BLOCK_ROWS behaviours of a piece from `begin` on.
__device__ __forceinline__ Piece block_of(Piece piece, u32 begin) {
    piece.history_start += begin;
    piece.length = min(piece.length - begin, (u32)BLOCK_ROWS);
    return piece;
}

__device__ __forceinline__ u32 code_at(const void *codes, u32 bytes, u64 at) {
    return bytes == 1 ? ((const u8 *)codes)[at] : ((const u16 *)codes)[at];
}

// Calls `add(row, code)` for each row of a piece whose signature in group `g` is one of the `count` from `first` on, in
// the order of the rows. The whole warp calls it together.
template <typename Add>
__device__ __forceinline__ void scan(const Piece &piece, const void *codes, u32 bytes, u32 groups, u32 g, u32 first,
                                     u32 count, Add add) {
    u32 lane = threadIdx.x % WARP;
    for (u32 start = 0; start < piece.length; start += WARP) {
        u32 row = start + lane, code = NONE;
        if (row < piece.length) {
            code = code_at(codes, bytes, (piece.history_start + row) * groups + g);
        }
        u32 mine = __ballot_sync(WHOLE_WARP, code - first < count);
        for (; mine != 0; mine &= mine - 1) {
            u32 from = __ffs(mine) - 1;
            add(piece.history_start + start + from, __shfl_sync(WHOLE_WARP, code, from));
        }
    }
}

struct SdimScatterParams {
    const Piece *pieces;
    const void *rows;
    const void *codes;
    float *table;
    float *partial;
    u32 width, groups, bits, code_bytes;
    u32 append;
    // Of the sums: -1 where they are subtracted from the table, otherwise 1.
    float sign;
};

// Blocks: pieces, then groups, then four times 32 buckets, then 64 columns.
template <typename T>
__device__ __forceinline__ void scatter(const SdimScatterParams &p) {
    // Each warp and each lane access only their own, so there are no barriers.
    __shared__ float sums[WARPS][WARP_BUCKETS][WARP_COLUMNS];
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 column_blocks = (p.width + WARP_COLUMNS - 1) / WARP_COLUMNS;
    u32 bucket_blocks = (1u << p.bits) / (WARPS * WARP_BUCKETS);
    u32 first_column = blockIdx.x % column_blocks * WARP_COLUMNS;
    u32 rest = blockIdx.x / column_blocks;
    u32 first_bucket = (rest % bucket_blocks * WARPS + warp) * WARP_BUCKETS;
    rest /= bucket_blocks;
    u32 g = rest % p.groups;
    Piece piece = p.pieces[rest / p.groups];

    float (*own)[WARP_COLUMNS] = sums[warp];
    u32 low = first_column + lane, high = low + WARP;
    bool whole = piece.slot == NONE, add = whole && p.append;
    u64 size = (u64)(p.groups << p.bits) * p.width;
    // The first target is the user's row of results (`Jagged::with_slots`).
    float *table = whole ? p.table + piece.first_target * size : p.partial + piece.slot * size;
    u32 begin = 0;
    do {
        for (u32 bucket = 0; bucket < WARP_BUCKETS; bucket++) {
            own[bucket][lane] = 0.0f;
            own[bucket][lane + WARP] = 0.0f;
        }
        const Piece block = block_of(piece, begin);
        scan(block, p.codes, p.code_bytes, p.groups, g, first_bucket, WARP_BUCKETS, [&](u64 row, u32 code) {
            const T *from = (const T *)p.rows + row * p.width;
            float *to = own[code - first_bucket];
            if (low < p.width) {
                to[lane] += widen(from[low]);
            }
            if (high < p.width) {
                to[lane + WARP] += widen(from[high]);
            }
        });
        for (u32 bucket = 0; bucket < WARP_BUCKETS; bucket++) {
            float *to = table + ((u64)(g << p.bits) + first_bucket + bucket) * p.width;
            for (u32 column = low; column < p.width && column <= high; column += WARP) {
                to[column] = own[bucket][column - first_column] * p.sign + (add ? to[column] : 0.0f);
            }
        }
        add = true;
        begin += BLOCK_ROWS;
    } while (begin < piece.length);
}

struct SdimSumsParams {
    const Piece *pieces;
    const void *rows;
    const void *codes;
    const void *target_codes;
    // [slots + tiles, groups, width]: pieces without a slot use the second range, by tile.
    float *sums;
    u32 width, groups, code_bytes, target_code_bytes;
    u32 first_whole;
    u32 unused;
};

// Blocks: pieces (one candidate each), then four groups.
template <typename T>
__device__ __forceinline__ void sums(const SdimSumsParams &p) {
    u32 lane = threadIdx.x % WARP, group_blocks = (p.groups + WARPS - 1) / WARPS;
    u32 g = blockIdx.x % group_blocks * WARPS + threadIdx.x / WARP;
    Piece piece = p.pieces[blockIdx.x / group_blocks];
    if (g >= p.groups) {
        return;
    }
    u64 target = piece.first_target + piece.first_row;
    u32 wanted = code_at(p.target_codes, p.target_code_bytes, target * p.groups + g);
    u64 place = piece.slot == NONE ? p.first_whole + piece.tile : piece.slot;
    float *to = p.sums + (place * p.groups + g) * p.width;
    for (u32 first_column = lane; first_column < p.width + lane; first_column += WARP * LANE_COLUMNS) {
        float sum[LANE_COLUMNS] = {};
        for (u32 begin = 0; begin < piece.length; begin += BLOCK_ROWS) {
            float of_block[LANE_COLUMNS] = {};
            scan(block_of(piece, begin), p.codes, p.code_bytes, p.groups, g, wanted, 1, [&](u64 row, u32) {
                const T *from = (const T *)p.rows + row * p.width;
#pragma unroll
                for (u32 i = 0; i < LANE_COLUMNS; i++) {
                    u32 column = first_column + i * WARP;
                    if (column < p.width) {
                        of_block[i] += widen(from[column]);
                    }
                }
            });
#pragma unroll
            for (u32 i = 0; i < LANE_COLUMNS; i++) {
                sum[i] += of_block[i];
            }
        }
#pragma unroll
        for (u32 i = 0; i < LANE_COLUMNS; i++) {
            u32 column = first_column + i * WARP;
            if (column < p.width) {
                to[column] = sum[i];
            }
        }
    }
}

#define VARIANTS(T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP) sdim_scatter_##T(const SdimScatterParams p) { \
        scatter<T>(p);                                                                                      \
    }                                                                                                       \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP) sdim_sums_##T(const SdimSumsParams p) { sums<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
