// Rows of TIN: those of behaviours with those of their positions added, in f32, as they are read. Candidates come as sums (tin.cu).
#pragma once
#include "target_attention/attend.cuh"
#include "target_attention/stored.cuh"

struct TinPositions {
    // [P, d], stored as the history is.
    const void *rows;
    // [N]; null: positions are counted from the end of the user's history, which is in `offsets`, [users + 1].
    const u32 *of_history;
    const u64 *offsets;
    // P - 1.
    u32 last;
    u32 storage;
};

struct TinOutputPointers {
    // [M, d]; `pooled`, the mean before the product with the candidate, may be null.
    void *out;
    void *pooled;
    // The candidates with their positions, [M, d].
    const float *sums;
    u32 multiply_target;
    u32 storage;
};

struct TinParams {
    // Of softmax, without a bias, with one head: the queries are `outputs.sums`, the values are the keys.
    TargetAttentionParams attention;
    TinPositions positions;
    TinOutputPointers outputs;
};

// Writes a number of the mean.
__device__ __forceinline__ void put_mean(const TinOutputPointers &p, u64 at, float mean) {
    if (p.pooled != nullptr) store_stored(p.storage, p.pooled, at, mean);
    store_stored(p.storage, p.out, at, p.multiply_target ? mean * p.sums[at] : mean);
}

// The position of a behaviour of a history that ends there. Those out of range are reported elsewhere.
__device__ __forceinline__ u32 position_of(const TinPositions &p, u64 behaviour, u64 end) {
    if (p.of_history != nullptr) return min(__ldg(p.of_history + behaviour), p.last);
    return (u32)min(end - behaviour, (u64)p.last);
}

struct PositionedRows {
    // A row whose numbers are read one by one.
    struct Row {
        u32 storage;
        const void *row, *added;
        u64 at, added_at;
        __device__ __forceinline__ float operator[](u32 i) const {
            return load_stored(storage, row, at + i) + load_stored(storage, added, added_at + i);
        }
    };
    struct Query {
        const float *from;
        __device__ __forceinline__ float operator[](u32 i) const { return from[i]; }
    };

    const TargetAttentionParams &p;
    const TinParams &tin;
    // Of the user's history.
    const u64 end;

    __device__ __forceinline__ u32 storage() const { return tin.positions.storage; }
    __device__ __forceinline__ u64 position_at(const Work &work, u32 behaviour) const {
        return (u64)position_of(tin.positions, work.piece.history_start + behaviour, end) * p.width;
    }
    __device__ __forceinline__ u64 row_at(const Work &work, u32 behaviour) const {
        return (work.piece.history_start + behaviour) * p.width;
    }
    __device__ __forceinline__ Query query(const Work &work, u32 row, u32 column) const {
        return {tin.outputs.sums + output_row(p, work, row) * p.width + column};
    }
    __device__ __forceinline__ Row row_from(const Work &work, u32 behaviour, u32 column) const {
        return {storage(), p.keys, tin.positions.rows, row_at(work, behaviour) + column, position_at(work, behaviour) + column};
    }
    __device__ __forceinline__ Row key(const Work &work, u32 behaviour) const { return row_from(work, behaviour, 0); }
    __device__ __forceinline__ Row value(const Work &work, u32 behaviour) const { return row_from(work, behaviour, p.first_column); }
    __device__ __forceinline__ void put(u64 row, u32 column, float number) const { put_mean(tin.outputs, row + column, number); }
};

// The rows of this block's piece.
__device__ __forceinline__ PositionedRows rows_of_block(const TinParams &p) {
    const u64 *offsets = p.positions.offsets;
    const u64 end = p.positions.of_history == nullptr ? offsets[p.attention.pieces[blockIdx.x].user + 1] : 0;
    return {p.attention, p, end};
}

// Four numbers of a row and of what is added to it.
__device__ __forceinline__ float4 sum_of_raw(u32 storage, const uint4 &row, const uint4 &added) {
    float a[4], b[4];
    widen_raw(storage, row, a);
    widen_raw(storage, added, b);
    return make_float4(a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]);
}
