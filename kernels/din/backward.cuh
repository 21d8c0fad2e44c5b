// What the kernels of DIN's backward pass share: parameters, and how the pairs of a part are arranged (src/gpu/din.rs).
//
// A piece is some candidates of a user against up to 256 of their behaviours. A tile is one candidate against 16 behaviours of a
// piece, a run one candidate against all behaviours of a piece, a block 16 behaviours of a piece. Numbers of a tile have a row for
// each unit, of 16 behaviours: four float4s.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    // float4s of the behaviours of a tile.
    QUADS = 4,
    // Threads per block, of kernels in which a block computes a tile, and of the others.
    TILE_THREADS = 64,
    THREADS = 128,
    // Rows that a thread adds up.
    ROWS_PER_SUM = 64,
    RELU = 0,
    SIGMOID = 1,
    PRELU = 2,
    DICE = 3,
};

// Rows are counted from the first of the part.
struct DinPiece {
    u32 first_row, rows, first_target, targets;
    u32 first_run, first_tile, first_block;
    // Whether the span is the first of the user's history.
    u32 starts;
};

// The pieces of a user in a part, which have the same candidates.
struct DinUser {
    u32 first_piece, pieces, first_target, targets;
};

// Places in the network, in a tile and in its sums are in float4s; of layers that the network does not have 0.
struct DinBackwardLayer {
    u32 units, units4, activation, alpha_shared;
    // The weights: of the first layer W_k − W_d, W_p and W_q + W_d with a row for each input, then with a row for each unit; of the
    // others the weight in both ways. Then bias, gain, shift, alpha, output weight.
    u32 weights, vectors;
    // Numbers before the activation, whose place their gradients take, and after it. The gradients of bias, alpha, gain and shift.
    u32 before, after, sums;
    u32 unused;
};

// Of all kernels; what a launch does not read is 0.
struct DinBackwardParams {
    // Of the call: the network, and where it is laid out.
    u64 weights[3];
    u64 biases[3];
    u64 gains[3];
    u64 shifts[3];
    u64 alphas[3];
    const void *output_weight;
    const float *output_bias;
    float4 *network;
    // Of the candidates of the batch: softmax states, and gradients.
    float4 *states;
    float *target_totals;
    // Of the part.
    const DinPiece *pieces;
    const DinUser *users;
    const void *history;
    const void *targets;
    const void *grad_out;
    float4 *candidates;
    float4 *work;
    float4 *pair_numbers;
    float4 *tile_sums;
    float4 *run_states;
    float *target_parts;
    float *weight_parts;
    // Gradients of behaviours whose candidates are in several parts.
    float *carried;
    // Of a launch: what is read, and what is written.
    const void *from;
    void *to;
    u64 threads;
    DinBackwardLayer layers[3];
    u32 layer_count, deepest, width, width4;
    u32 tile, tile_sums_stride, output_sums, output_bias_place;
    u32 candidate, softmax, mode, layer;
    u32 piece_count, user_count, items, per_split;
    u32 unit_groups, input_groups, rows, stride;
    u32 adds, keeps, narrow, wants_targets;
    float before;
    u32 unused;
};

struct alignas(16) Quad {
    float x[4];
};

__device__ __forceinline__ Quad load_quad(const float4 *from) {
    float4 four = *from;
    return {{four.x, four.y, four.z, four.w}};
}
__device__ __forceinline__ void store_quad(float4 *to, const Quad &q) { *to = make_float4(q.x[0], q.x[1], q.x[2], q.x[3]); }

__device__ __forceinline__ float dot(const Quad &a, const Quad &b) {
    return fma(a.x[3], b.x[3], fma(a.x[2], b.x[2], fma(a.x[1], b.x[1], a.x[0] * b.x[0])));
}

__device__ __forceinline__ float sum_of(const Quad &a) { return (a.x[0] + a.x[1]) + (a.x[2] + a.x[3]); }

// sums[i] += a.x[i] · b
__device__ __forceinline__ void add_outer(Quad (&sums)[4], const Quad &a, const Quad &b) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            sums[i].x[c] = fma(a.x[i], b.x[c], sums[i].x[c]);
        }
    }
}

// The number to subtract from scores with this maximum: 0 for -inf.
__device__ __forceinline__ float base_of(float most) { return most == -infinity() ? 0.0f : most; }

// The last piece whose first run, tile or block is not after `index`: the one that has it, as those without any are before it.
template <u32 DinPiece::*FIRST>
__device__ __forceinline__ u32 piece_of(const DinBackwardParams &p, u32 index) {
    u32 low = 0, high = p.piece_count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (p.pieces[middle].*FIRST <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

__device__ __forceinline__ DinUser user_of(const DinBackwardParams &p, u32 m) {
    u32 low = 0, high = p.user_count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (p.users[middle].first_target <= m) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return p.users[low];
}

__device__ __forceinline__ u32 tiles_per_run(const DinPiece &piece) { return (piece.rows + 15) / 16; }

__device__ __forceinline__ u64 thread_of_grid() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
