// DIN's network in the form that the matrix units read: numbers split into bfloat16 parts, weights in the order of mma's
// fragments, and each candidate's term of the first layer. See din.cu.
#pragma once
#include "shared/common.cuh"

enum Activation : u32 {
    RELU,
    SIGMOID,
    PRELU,
    DICE
};

// Parts that numbers are split into: weights as stored, inputs of a layer, and differences of weights.
template <typename T>
struct Parts {
    enum : u32 {
        WEIGHT = sizeof(T) == 4 ? 3 : 2,
        INPUT = sizeof(T) == 4 ? 3 : 2,
        DIFFERENCE = sizeof(T) == 4 ? 3 : 2
    };
};
template <>
struct Parts<bf16> {
    enum : u32 {
        WEIGHT = 1,
        INPUT = 2,
        DIFFERENCE = 2
    };
};

// A hidden layer; sizes are padded to 16 with zeros.
struct DinLayer {
    u32 units;
    u32 padded;
    u32 activation;
    // Where its fragments and its vectors (bias, gain, shift, alpha; `padded` numbers each) begin.
    u32 first_fragment;
    u32 first_vector;
};

// A number with zeros for its lower 16 bits.
__device__ __forceinline__ float upper_half(float x) { return __uint_as_float(__float_as_uint(x) & 0xffff0000u); }

// What is left of a number without its upper 16 bits. Exact; 0 for infinities, which would give NaN.
__device__ __forceinline__ float rest(float x) {
    const float upper = upper_half(x);
    return upper == x ? 0.0f : x - upper;
}

// The parts of an input fragment: numbers in the order of its four registers, two each.
template <u32 PARTS>
__device__ __forceinline__ void split(float (&x)[8], u32 (&parts)[PARTS][4]) {
#pragma unroll
    for (u32 pair = 0; pair < 4; pair++) {
        float &low = x[2 * pair], &high = x[2 * pair + 1];
#pragma unroll
        for (u32 part = 0; part + 1 < PARTS; part++) {
            // The upper halves of both: truncated, because rounding could overflow.
            parts[part][pair] = __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
            // A rest is not infinite.
            low = part == 0 ? rest(low) : low - upper_half(low);
            high = part == 0 ? rest(high) : high - upper_half(high);
        }
        parts[PARTS - 1][pair] = narrow_pair<bf16>(low, high);
    }
}

// As above, for two adjacent tiles of 8 units.
template <u32 PARTS>
__device__ __forceinline__ void split_tiles(const float (&low)[4], const float (&high)[4], u32 (&parts)[PARTS][4]) {
    float x[8] = {low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
    split<PARTS>(x, parts);
}

// ---- prepare -------------------------------------------------------------------------------------------------------

struct DinPrepareParams {
    const void *targets;
    const void *weights[3];
    const float *biases[3];
    const float *gains[3];
    const float *shifts[3];
    const float *alphas[3];
    const void *output_weight;
    u32 *fragments;
    float *vectors;
    // Per candidate: its `inputs_padded` numbers, and its term of the first layer.
    float *rows;
    u64 candidates;
    DinLayer layers[3];
    u32 layer_count;
    u32 width, inputs_padded;
    // Where the fragments of Wk - Wd begin, and the output weights among the vectors.
    u32 first_difference, first_output;
    u32 fragment_words, vector_words;
    u32 alpha_shared[3];
    // Blocks that lay out the network; the others process candidates.
    u32 network_blocks;
};

// Word `word` of a layer's fragments: two weights of one unit. [k][tile][part][lane][2], see shared/common.cuh.
template <u32 PARTS, typename Weight>
__device__ u32 fragment_word(u32 word, u32 tiles, Weight weight) {
    const u32 half = word % 2, lane = word / 2 % WARP, part = word / 64 % PARTS;
    const u32 tile = word / (64 * PARTS) % tiles, step = word / (64 * PARTS * tiles);
    const u32 unit = tile * 8 + lane / 4, input = step * 16 + half * 8 + lane % 4 * 2;
    float x[2] = {weight(unit, input), weight(unit, input + 1)};
    for (u32 i = 0; i < part; i++) {
        x[0] = rest(x[0]);
        x[1] = rest(x[1]);
    }
    if (part + 1 == PARTS) return narrow_pair<bf16>(x[0], x[1]);
    return __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x7632);
}

template <typename T>
__device__ u32 network_fragment(const DinPrepareParams &p, u32 word) {
    const u32 d = p.width;
    const DinLayer &first = p.layers[0];
    const T *w1 = (const T *)p.weights[0];
    const auto block = [&](u32 unit, u32 input, u32 index) {
        return widen(w1[(u64(unit) * 4 + index) * d + input]);
    };
    const auto inside = [&](u32 unit, u32 input) { return unit < first.units && input < d; };
    if (word < p.first_difference) {
        return fragment_word<Parts<T>::WEIGHT>(word, first.padded / 8, [&](u32 unit, u32 input) {
            return inside(unit, input) ? block(unit, input, 3) : 0.0f;
        });
    }
    const u32 second = p.layer_count > 1 ? p.layers[1].first_fragment : p.fragment_words;
    if (word < second) {
        return fragment_word<Parts<T>::DIFFERENCE>(
            word - p.first_difference, first.padded / 8, [&](u32 unit, u32 input) {
                return inside(unit, input) ? block(unit, input, 1) - block(unit, input, 2) : 0.0f;
            });
    }
    const u32 index = p.layer_count > 2 && word >= p.layers[2].first_fragment ? 2 : 1;
    const DinLayer &layer = p.layers[index];
    const u32 inputs = p.layers[index - 1].units;
    const T *w = (const T *)p.weights[index];
    return fragment_word<Parts<T>::WEIGHT>(word - layer.first_fragment, layer.padded / 8, [&](u32 unit, u32 input) {
        return unit < layer.units && input < inputs ? widen(w[u64(unit) * inputs + input]) : 0.0f;
    });
}

template <typename T>
__device__ float network_vector(const DinPrepareParams &p, u32 word) {
    if (word >= p.first_output) {
        const u32 unit = word - p.first_output;
        return unit < p.layers[p.layer_count - 1].units ? widen(((const T *)p.output_weight)[unit]) : 0.0f;
    }
    u32 index = 0;
    while (index + 1 < p.layer_count && word >= p.layers[index + 1].first_vector) index++;
    const DinLayer &layer = p.layers[index];
    const u32 kind = (word - layer.first_vector) / layer.padded, unit = (word - layer.first_vector) % layer.padded;
    if (unit >= layer.units) return 0.0f;
    if (kind == 0) return p.biases[index][unit];
    const bool dice = layer.activation == DICE;
    if (kind == 1) return dice ? p.gains[index][unit] : 0.0f;
    if (kind == 2) return dice ? p.shifts[index][unit] : 0.0f;
    return dice || layer.activation == PRELU ? p.alphas[index][p.alpha_shared[index] ? 0 : unit] : 0.0f;
}

// A warp computes 8 units of a candidate's term of the first layer; the first warp of a candidate also widens it.
template <typename T>
__device__ void prepare_candidate(const DinPrepareParams &p, u64 warp) {
    const u32 lane = threadIdx.x % WARP, d = p.width;
    const u32 groups = p.layers[0].padded / 8;
    const u64 candidate = warp / groups;
    const u32 group = (u32)(warp % groups);
    if (candidate >= p.candidates) return;
    const T *q = (const T *)p.targets + candidate * d;
    float *row = p.rows + candidate * (p.inputs_padded + p.layers[0].padded);
    if (group == 0) {
        for (u32 i = lane; i < p.inputs_padded; i += WARP) row[i] = i < d ? widen(q[i]) : 0.0f;
    }
    for (u32 unit = group * 8; unit < group * 8 + 8; unit++) {
        float sum = 0.0f;
        if (unit < p.layers[0].units) {
            const T *w = (const T *)p.weights[0] + u64(unit) * 4 * d;
            for (u32 i = lane; i < d; i += WARP) {
                const float x = widen(q[i]);
                sum = fma(widen(w[i]), x, sum);
                sum = fma(widen(w[2 * d + i]), x, sum);
            }
            sum = warp_sum(sum) + p.biases[0][unit];
        }
        if (lane == 0) row[p.inputs_padded + unit] = sum;
    }
}

template <typename T>
__device__ void prepare(const DinPrepareParams &p) {
    if (blockIdx.x >= p.network_blocks) {
        const u64 block = blockIdx.x - p.network_blocks;
        prepare_candidate<T>(p, block * (blockDim.x / WARP) + threadIdx.x / WARP);
        return;
    }
    const u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    if (word < p.fragment_words) {
        p.fragments[word] = network_fragment<T>(p, word);
    } else if (word - p.fragment_words < p.vector_words) {
        p.vectors[word - p.fragment_words] = network_vector<T>(p, word - p.fragment_words);
    }
}
