// What the kernels of DIN's backward pass share: parameters, and how the pairs of a part are arranged (src/gpu/din.rs).
//
// A piece is some candidates of a user against up to 256 of their behaviours. A tile is one candidate against 16 behaviours of a
// piece, a run one candidate against all behaviours of a piece, a block 16 behaviours of a piece.
//
// Units, and the numbers of rows, are padded to 16 with zeros. Numbers that the matrix units read are split into parts and are kept in
// fragments, [16 units][part][lane], a Vector for each lane: either as inputs, with a row for each behaviour, or turned, with a row for
// each unit.
#pragma once
#include "din/network.cuh"

enum : u32 {
    // Threads per block, of kernels that a thread for each element runs.
    THREADS = 128,
    // Rows that a thread adds up.
    ROWS_PER_SUM = 64,
    // float4s of the pairs of a tile: weights or scores, then which of them are kept or gradients of weights.
    PAIR_NUMBERS = 8,
};

// Parts as in the forward pass, but three of what is computed from 16-bit storage too: gradients may be stored as float. What is stored,
// weights and behaviours, is exact in WEIGHT parts, and so is the product of two numbers of 16 bits in twice as many.
template <typename T>
struct BackwardParts {
    enum : u32 {
        WEIGHT = Parts<T>::WEIGHT,
        PRODUCT = WEIGHT == 1 ? 2 : 3,
        INPUT = 3,
        DIFFERENCE = 3
    };
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

// Places are in float4s; of layers that the network does not have 0.
struct DinBackwardLayer {
    u32 units, units4, activation, alpha_shared;
    // In the network: bias, gain, shift, alpha, output weight.
    u32 vectors;
    // In the sums of a tile: the gradients of bias, alpha, gain and shift.
    u32 sums;
    // In the network: fragments of the weight, by inputs and by units. Of the first layer W_p.
    u32 forward, back;
    // In the scratch memory of a tile: numbers before the activation.
    u32 before;
    // In a tile, turned: the gradients of these, and the layer's inputs, which the first layer has in the blocks.
    u32 grads, inputs;
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
    float4 *blocks;
    float4 *work;
    // Scratch memory of the tiles, where it does not fit shared memory.
    float4 *scratch;
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
    // In the network: W_q + W_d by inputs, then W_p and W_q + W_d by units, in f32; fragments of W_k − W_d.
    u32 first_weights, difference, difference_back;
    // Sizes of a tile, of its scratch memory and of a block, and places in these.
    u32 tile, scratch_size, inputs_place, others_place;
    u32 block, block_parts, block_turned, block_terms;
    u32 layer_count, deepest, width, width4;
    u32 tile_sums_stride, output_sums, output_bias_place;
    u32 candidate, softmax, mode, layer;
    u32 piece_count, user_count, items, per_split;
    u32 unit_groups, input_groups, rows, stride;
    u32 adds, keeps, narrow, wants_targets;
    float before;
};

__device__ __forceinline__ float2 load_two(const float *from) { return __ldg((const float2 *)from); }
__device__ __forceinline__ float4 load_float4(const float4 *from) { return __ldg(from); }

struct alignas(16) Quad {
    float x[4];
};

__device__ __forceinline__ Quad load_quad(const float4 *from) {
    float4 four = *from;
    return {{four.x, four.y, four.z, four.w}};
}
__device__ __forceinline__ void store_quad(float4 *to, const Quad &q) { *to = make_float4(q.x[0], q.x[1], q.x[2], q.x[3]); }

__device__ __forceinline__ float sum_of(const Quad &a) { return (a.x[0] + a.x[1]) + (a.x[2] + a.x[3]); }

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
