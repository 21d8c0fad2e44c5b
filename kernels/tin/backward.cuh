// What the kernels of TIN's gradients share: parameters, and behaviours as sums with their positions.
#pragma once
#include "target_attention/backward_rows.cuh"
#include "tin/rows.cuh"

struct TinBackwardParams {
    // Of softmax, without a bias, with one head. Queries (ṽ), their gradients and grad_out (the gradient of the mean) are f32; the values
    // are the keys.
    AttentionBackwardParams attention;
    // `of_history` is there.
    TinPositions positions;
    // [N, d]: a copy of the gradients of behaviours, in f32; may be null.
    float *sums;
};

// The first number of a behaviour's position.
__device__ __forceinline__ u64 added_at(const TinPositions &p, u64 behaviour, u32 width) {
    return (u64)min(__ldg(p.of_history + behaviour), p.last) * width;
}

// For kernels that stage rows.
struct SummedRows {
    struct Added {
        const TinPositions &p;
        u32 width;

        template <typename T, typename Index>
        __device__ __forceinline__ void one(float &number, const Index &index, u32 row, u32 column) const {
            number += load_as<T>(p.rows, added_at(p, index(row), width) + column);
        }
        template <typename T, typename Index>
        __device__ __forceinline__ void four(float4 &numbers, const Index &index, u32 row, u32 column) const {
            float4 added = load_four<T>(p.rows, added_at(p, index(row), width) + column);
            numbers.x += added.x, numbers.y += added.y, numbers.z += added.z, numbers.w += added.w;
        }
    };

    const TinBackwardParams &tin;

    __device__ __forceinline__ Added added() const { return {tin.positions, tin.attention.width}; }
    __device__ __forceinline__ u32 row_storage(const AttentionBackwardParams &) const { return STORED_F32; }
    __device__ __forceinline__ u32 grad_row_storage(const AttentionBackwardParams &) const { return STORED_F32; }
    __device__ __forceinline__ float *sums() const { return tin.sums; }
};

// For kernels that keep rows in registers.
struct StreamedSummedRows : SummedRows {
    struct Raw {
        uint4 row, added;
    };

    __device__ __forceinline__ Raw load(const AttentionBackwardParams &p, const void *rows, u64 row, u32 width, u32 column) const {
        return {load_raw(p.storage, rows, row * width + column),
                load_raw(p.storage, tin.positions.rows, added_at(tin.positions, row, width) + column)};
    }
    __device__ __forceinline__ void widen(const AttentionBackwardParams &p, const Raw &raw, float (&out)[4]) const {
        float4 sum = sum_of_raw(p.storage, raw.row, raw.added);
        out[0] = sum.x, out[1] = sum.y, out[2] = sum.z, out[3] = sum.w;
    }
};
