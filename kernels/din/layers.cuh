// DIN's layers on matrix units: scores of a warp's behaviours for one candidate.
#pragma once
#include "din/network.cuh"

enum : u32 {
    // Candidates per piece.
    TILE = 8,
    // Behaviours that a warp takes at a time: the rows of a tile of mma.
    ROWS = 16,
    // Tiles of 8 units that are computed together.
    GROUP = 4,
};

struct DinAttendParams {
    const Piece *pieces;
    const void *history;
    const u32 *fragments;
    const float *vectors;
    const float *rows;
    const float *output_bias;
    void *out;
    // Per slot: TILE × width weighted sums, and max and sum of TILE candidates.
    float *partial;
    float *stats;
    DinLayer layers[3];
    u32 layer_count;
    u32 width, inputs_padded;
    u32 first_difference, first_output;
    u32 softmax;
    // Whether rows of the history are aligned to 16 bytes.
    u32 by_vectors;
    // Numbers from one widened behaviour to the next: 8 more than a multiple of the 32 banks, so that the four rows of
    // which half a warp reads two numbers each are in different banks.
    u32 stride;
    // Bytes of shared memory per warp.
    u32 warp_bytes;
};

// The shared memory of a warp.
struct WarpMemory {
    // Input fragments of the first and third layer and of the second, [step][part][lane].
    Vector *inputs;
    Vector *others;
    // (Wk - Wd)·s, [tile][lane].
    Vector *terms;
    // Behaviours [ROWS][stride], weighted sums [TILE][stride].
    float *behaviours;
    float *acc;
    // Scores, then weights [ROWS][TILE]; factors that rescale older sums, max and sum [TILE].
    float *weights;
    float *rescales;
    float *maxima;
    float *row_sums;
};

// Where the arrays begin in a warp's shared memory, in floats, and its size in bytes. `first` and `second` are the
// padded units of the first two layers, `input_columns` the padded inputs of the first.
template <typename T>
struct WarpLayout {
    u32 behaviours, acc, weights, rescales, others, inputs, bytes;
    constexpr __device__ __forceinline__ WarpLayout(u32 first, u32 second, u32 layers, u32 input_columns, u32 stride)
        : behaviours(first / 8 * WARP * 4),
          acc(behaviours + ROWS * stride),
          weights(acc + TILE * stride),
          rescales(weights + ROWS * TILE),
          others(rescales + 4 * TILE),
          inputs(others + (layers > 1 ? fragments(first) : 0)),
          bytes((inputs + fragments(layers > 2 && second > input_columns ? second : input_columns)) * 4) {}
    // Floats that the input fragments of so many units take.
    static constexpr __device__ __forceinline__ u32 fragments(u32 units) {
        return units / 16 * Parts<T>::INPUT * WARP * 4;
    }
};

template <typename T>
__device__ __forceinline__ WarpMemory warp_memory(const DinAttendParams &p, u32 warp) {
    const WarpLayout<T> layout(p.layers[0].padded, p.layers[1].padded, p.layer_count, p.inputs_padded, p.stride);
    float *const begin = (float *)((u8 *)dynamic_shared + warp * p.warp_bytes);
    WarpMemory memory;
    memory.terms = (Vector *)begin;
    memory.behaviours = begin + layout.behaviours;
    memory.acc = begin + layout.acc;
    memory.weights = begin + layout.weights;
    memory.rescales = begin + layout.rescales;
    memory.maxima = memory.rescales + TILE;
    memory.row_sums = memory.rescales + 2 * TILE;
    memory.others = (Vector *)(begin + layout.others);
    memory.inputs = (Vector *)(begin + layout.inputs);
    return memory;
}

__device__ __forceinline__ float2 load_two(const float *from) { return __ldg((const float2 *)from); }

__device__ __forceinline__ float sigmoid(float x) {
    // 1/inf is 0, so large negative numbers need no special case.
    return reciprocal_approx(1.0f + exp_approx(-x));
}

// Activates a tile of 8 units; the bias of layers after the first is added here. Comparisons instead of fmaxf keep NaN.
__device__ __forceinline__ void activate_tile(
    float (&c)[4], const DinLayer &layer, const float *vectors, u32 tile, bool add_bias) {
    const float *vector = vectors + layer.first_vector + tile * 8 + threadIdx.x % 4 * 2;
    if (add_bias) {
        const float2 bias = load_two(vector);
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] += r % 2 == 0 ? bias.x : bias.y;
    }
    if (layer.activation == RELU) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = c[r] < 0.0f ? 0.0f : c[r];
    } else if (layer.activation == SIGMOID) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = sigmoid(c[r]);
    } else {
        const float2 alphas = load_two(vector + 3 * layer.padded);
        if (layer.activation == PRELU) {
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const float alpha = r % 2 == 0 ? alphas.x : alphas.y;
                c[r] = c[r] < 0.0f ? alpha * c[r] : c[r];
            }
        } else {
            const float2 gains = load_two(vector + layer.padded), shifts = load_two(vector + 2 * layer.padded);
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const bool even = r % 2 == 0;
                const float gate = sigmoid(fma(even ? gains.x : gains.y, c[r], even ? shifts.x : shifts.y));
                c[r] *= fma(even ? alphas.x : alphas.y, 1.0f - gate, gate);
            }
        }
    }
}

// c += inputs · weights for one step of 16 inputs and one tile of 8 units. `fragment` is this lane's.
template <u32 WEIGHT, u32 INPUT>
__device__ __forceinline__ void multiply_parts(float (&c)[4], const u32 (&inputs)[INPUT][4], const u32 *fragment) {
    constexpr u32 KEPT = WEIGHT > INPUT ? WEIGHT : INPUT;
#pragma unroll
    for (u32 w = 0; w < WEIGHT; w++) {
        const uint2 pair = __ldg((const uint2 *)(fragment + w * 2 * WARP));
        const u32 b[2] = {pair.x, pair.y};
#pragma unroll
        for (u32 x = 0; x < INPUT; x++) {
            // Products of two small parts are below the last place.
            if (w + x < KEPT) multiply_add<bf16>(c, inputs[x], b);
        }
    }
}

// GROUP of a layer's `tiles` tiles from `first` on; the inputs are `steps` fragments in the warp's memory.
template <u32 WEIGHT, u32 INPUT>
__device__ __forceinline__ void multiply(
    float (&c)[GROUP][4], const Vector *inputs, u32 steps, const u32 *fragments, u32 tiles, u32 first) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        u32 a[INPUT][4];
#pragma unroll
        for (u32 x = 0; x < INPUT; x++) {
            const Vector part = inputs[(step * INPUT + x) * WARP + lane];
#pragma unroll
            for (u32 r = 0; r < 4; r++) a[x][r] = part.words[r];
        }
#pragma unroll
        for (u32 n = 0; n < GROUP; n++) {
            if (first + n < tiles) {
                const u32 tile = step * tiles + first + n;
                multiply_parts<WEIGHT, INPUT>(c[n], a, fragments + (tile * WEIGHT * WARP + lane) * 2);
            }
        }
    }
}

// Stores the parts of an input fragment in the warp's memory.
template <u32 INPUT>
__device__ __forceinline__ void store_inputs(Vector *inputs, u32 step, const u32 (&parts)[INPUT][4]) {
#pragma unroll
    for (u32 i = 0; i < INPUT; i++) {
        Vector part;
#pragma unroll
        for (u32 r = 0; r < 4; r++) part.words[r] = parts[i][r];
        inputs[(step * INPUT + i) * WARP + threadIdx.x % WARP] = part;
    }
}

// Makes input fragments of the behaviours, or of their products with a candidate.
template <u32 INPUT>
__device__ __forceinline__ void make_inputs(const DinAttendParams &p, const WarpMemory &memory, const float *candidate) {
    const u32 lane = threadIdx.x % WARP;
    const float *mine = memory.behaviours + lane / 4 * p.stride + lane % 4 * 2;
#pragma unroll 1
    for (u32 step = 0; step < p.inputs_padded / 16; step++) {
        float x[8];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 column = step * 16 + half * 8;
            float2 q = {1.0f, 1.0f};
            if (candidate != nullptr) q = load_two(candidate + column + lane % 4 * 2);
#pragma unroll
            for (u32 lower = 0; lower < 2; lower++) {
                const float2 s = *(const float2 *)(mine + lower * 8 * p.stride + column);
                x[(half * 2 + lower) * 2] = s.x * q.x;
                x[(half * 2 + lower) * 2 + 1] = s.y * q.y;
            }
        }
        u32 parts[INPUT][4];
        split<INPUT>(x, parts);
        store_inputs<INPUT>(memory.inputs, step, parts);
    }
}

// Widens up to ROWS behaviours from `first` on into the warp's memory, padded with zeros.
template <typename T>
__device__ void load_behaviours(const DinAttendParams &p, const WarpMemory &memory, u64 first, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    const T *from = (const T *)p.history + first * p.width;
    if (p.by_vectors) {
        const u32 vectors = p.width / PER_VECTOR<T>;
#pragma unroll 4
        for (u32 i = lane; i < ROWS * vectors; i += WARP) {
            const u32 row = i / vectors, column = i % vectors * PER_VECTOR<T>;
            float numbers[PER_VECTOR<T>] = {};
            if (row < count) widen_vector<T>(load_vector(from + u64(row) * p.width + column), numbers);
            float4 *to = (float4 *)(memory.behaviours + row * p.stride + column);
            if constexpr (PER_VECTOR<T> == 4) {
                *to = {numbers[0], numbers[1], numbers[2], numbers[3]};
            } else {
                // Of the eight lanes that store together, four begin with the upper half, so that each bank is accessed
                // once.
                const bool upper = lane / 4 % 2;
                const float4 low = {numbers[0], numbers[1], numbers[2], numbers[3]};
                const float4 high = {numbers[4], numbers[5], numbers[6], numbers[7]};
                to[upper] = upper ? high : low;
                to[!upper] = upper ? low : high;
            }
        }
    }
    const u32 done = p.by_vectors ? p.width : 0;
    for (u32 row = 0; row < ROWS; row++) {
        for (u32 column = done + lane; column < p.stride; column += WARP) {
            const bool inside = row < count && column < p.width;
            memory.behaviours[row * p.stride + column] = inside ? widen(from[u64(row) * p.width + column]) : 0.0f;
        }
    }
}

// Computes the behaviours' term of the first layer.
template <typename T>
__device__ void make_terms(const DinAttendParams &p, const WarpMemory &memory) {
    const u32 lane = threadIdx.x % WARP, tiles = p.layers[0].padded / 8;
    make_inputs<Parts<T>::INPUT>(p, memory, nullptr);
#pragma unroll 1
    for (u32 first = 0; first < tiles; first += GROUP) {
        float c[GROUP][4] = {};
        multiply<Parts<T>::DIFFERENCE, Parts<T>::INPUT>(
            c, memory.inputs, p.inputs_padded / 16, p.fragments + p.first_difference, tiles, first);
#pragma unroll
        for (u32 n = 0; n < GROUP; n++) {
            if (first + n < tiles) *(float4 *)&memory.terms[(first + n) * WARP + lane] = {c[n][0], c[n][1], c[n][2], c[n][3]};
        }
    }
}

// Adds a tile's share of the scores of rows lane / 4 and lane / 4 + 8.
__device__ __forceinline__ void add_to_scores(float (&scores)[2], const float (&c)[4], const float *weights, u32 tile) {
    const float2 weight = load_two(weights + tile * 8 + threadIdx.x % 4 * 2);
    scores[0] = fma(c[0], weight.x, fma(c[1], weight.y, scores[0]));
    scores[1] = fma(c[2], weight.x, fma(c[3], weight.y, scores[1]));
}

// One layer for one candidate: reads input fragments `from`, and stores the activated units as the fragments `to` of
// the next layer or, after the last layer, adds their share of the scores of rows lane / 4 and lane / 4 + 8, of which
// the four lanes of a row hold a part each. `candidate` is null except for the first layer.
template <typename T>
__device__ __forceinline__ void run_layer(
    const DinAttendParams &p, const WarpMemory &memory, const DinLayer &layer, u32 steps, const float *candidate,
    const Vector *from, Vector *to, float (&scores)[2]) {
    constexpr u32 WEIGHT = Parts<T>::WEIGHT, INPUT = Parts<T>::INPUT;
    const u32 lane = threadIdx.x % WARP, tiles = layer.padded / 8;
#pragma unroll 1
    for (u32 first = 0; first < tiles; first += GROUP) {
        float c[GROUP][4] = {};
        if (candidate != nullptr) {
#pragma unroll
            for (u32 n = 0; n < GROUP; n++) {
                if (first + n < tiles) {
                    const float4 term = *(const float4 *)&memory.terms[(first + n) * WARP + lane];
                    const float2 own = load_two(candidate + p.inputs_padded + (first + n) * 8 + lane % 4 * 2);
                    c[n][0] = term.x + own.x;
                    c[n][1] = term.y + own.y;
                    c[n][2] = term.z + own.x;
                    c[n][3] = term.w + own.y;
                }
            }
        }
        multiply<WEIGHT, INPUT>(c, from, steps, p.fragments + layer.first_fragment, tiles, first);
#pragma unroll
        for (u32 n = 0; n < GROUP; n += 2) {
            // Sizes are padded to 16, so tiles come in pairs.
            if (first + n < tiles) {
                activate_tile(c[n], layer, p.vectors, first + n, candidate == nullptr);
                activate_tile(c[n + 1], layer, p.vectors, first + n + 1, candidate == nullptr);
                if (to == nullptr) {
                    add_to_scores(scores, c[n], p.vectors + p.first_output, first + n);
                    add_to_scores(scores, c[n + 1], p.vectors + p.first_output, first + n + 1);
                } else {
                    // Two adjacent tiles of outputs have the register layout of a fragment of inputs.
                    u32 parts[INPUT][4];
                    split_tiles<INPUT>(c[n], c[n + 1], parts);
                    store_inputs<INPUT>(to, (first + n) / 2, parts);
                }
            }
        }
    }
}

// Scores of the warp's behaviours for one candidate.
template <typename T>
__device__ void score(const DinAttendParams &p, const WarpMemory &memory, const float *candidate, float (&scores)[2]) {
    Vector *const inputs = memory.inputs, *const others = memory.others;
    make_inputs<Parts<T>::INPUT>(p, memory, candidate);
    const u32 layers = p.layer_count;
    run_layer<T>(p, memory, p.layers[0], p.inputs_padded / 16, candidate, inputs, layers > 1 ? others : nullptr, scores);
    if (layers == 1) return;
    const u32 steps = p.layers[0].padded / 16;
    run_layer<T>(p, memory, p.layers[1], steps, nullptr, others, layers > 2 ? inputs : nullptr, scores);
    if (layers == 2) return;
    run_layer<T>(p, memory, p.layers[2], p.layers[1].padded / 16, nullptr, inputs, nullptr, scores);
}
