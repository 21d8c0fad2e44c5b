// The pairs of DIN's backward pass. A warp computes 16 behaviours, or one candidate against them, a tile.
//
// din_backward_behaviours: of a block, the numbers in the order of fragments, the same turned, and (W_k − W_d)·s for all candidates.
// din_backward_pairs:
//   SCORES: each pair's score and the gradient of its weight, ⟨grad_out, s⟩, for the softmax states.
//   GRADIENTS: the network forwards, weights and gradients of scores, and backwards down to the first layer that has a gradient. It
//     leaves in `work` the gradients dy before every activation and the inputs of layers after the first, turned, and the dy of the first
//     layer as inputs too, weights in `pair_numbers`, and the sums over the 16 pairs of the gradients of vectors in `tile_sums`.
//     For a pair that a score of -∞ removes, and one past the end of the history, every dy is 0, whatever the behaviour holds.
//   STATISTICS: mean and sum of squared distances of each unit before the activation of layer `layer`, and the number of behaviours.
//
// Products run on matrix units, in the precision of float: see din.cu. The 16 pairs are the rows of their tiles, so a lane has the pairs
// lane / 4 and lane / 4 + 8, and two units of a tile of 8. The outputs of a layer, split into parts, are the inputs of the next, lane by
// lane. They are kept in shared memory, or in device memory where rows are too wide.
#include "din/activation.cuh"

enum : u32 {
    SCORES = 0,
    GRADIENTS = 1,
    STATISTICS = 2
};

// ---- Behaviours ----------------------------------------------------------------------------------------------------

// Widens this lane's numbers of step `step`, in the order of a fragment's registers.
template <typename T>
__device__ __forceinline__ void load_numbers(const T *history, u32 width, u32 rows, u32 step, float (&x)[8]) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        const u32 row = threadIdx.x / 4 + i / 2 % 2 * 8, column = step * 16 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        x[i] = row < rows && column < width ? widen(history[u64(row) * width + column]) : 0.0f;
    }
}

template <typename T>
__device__ __forceinline__ void behaviours(const DinBackwardParams &p) {
    constexpr u32 WEIGHT = BackwardParts<T>::WEIGHT;
    __shared__ Vector buffer[WEIGHT * WARP];
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_block>(p, blockIdx.x)];
    if (piece.targets == 0) return;
    const u32 first = 16 * (blockIdx.x - piece.first_block), rows = min(16u, piece.rows - first), steps = p.width4 / 4;
    const T *history = (const T *)p.history + u64(piece.first_row + first) * p.width;
    float4 *block = p.blocks + u64(blockIdx.x) * p.block;
    Vector *inputs = (Vector *)(block + p.block_parts), *turned = (Vector *)(block + p.block_turned);
    float zeros[2] = {};
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        float x[8];
        load_numbers(history, p.width, rows, step, x);
        float4 *numbers = block + step * 2 * WARP + threadIdx.x;
        numbers[0] = make_float4(x[0], x[1], x[2], x[3]);
        numbers[WARP] = make_float4(x[4], x[5], x[6], x[7]);
#pragma unroll
        for (u32 i = 0; i < 8; i++) zeros[i / 2 % 2] = fma(x[i], 0.0f, zeros[i / 2 % 2]);
        u32 parts[WEIGHT][4];
        split<WEIGHT>(x, parts);
        store_parts(inputs + step * WEIGHT * WARP, parts);
        store_turned<WEIGHT>(buffer, turned + step * WEIGHT * WARP, parts);
    }
    bool odd[2];
    find_odd(zeros, odd);
    const u32 pairs = p.layers[0].units4 / 4;
#pragma unroll 1
    for (u32 pair = 0; pair < pairs; pair += PAIRS) {
        Sums sums = {};
        multiply_any<BackwardParts<T>::DIFFERENCE, WEIGHT>(sums, odd, inputs, steps, p.network + p.difference, pairs, pair);
#pragma unroll
        for (u32 n = 0; n < 2 * PAIRS; n++) {
            if (pair + n / 2 < pairs) store_four(block + p.block_terms + (2 * pair + n) * WARP + threadIdx.x, sums[n]);
        }
    }
}

// ---- A tile --------------------------------------------------------------------------------------------------------

struct TileMemory {
    // Numbers before activations, and inputs of layers.
    float4 *before;
    Vector *inputs, *others;
    // For turning a fragment.
    Vector *buffer;
    // In `work`, and of its block.
    float4 *tile;
    const float4 *block;
    const float *candidate;
};

// Of the two pairs of this lane: whether they are not removed, and the gradients of their scores. Whether no lane has a removed one.
struct TilePairs {
    bool kept[2];
    bool all;
    float grad_score[2];
};

// The inputs of the first layer's products with W_p, and ⟨grad_out, s⟩.
template <typename T>
__device__ __forceinline__ void make_inputs(
    const DinBackwardParams &p, const TileMemory &memory, float (&grads)[2], bool (&odd)[2]) {
    constexpr u32 PRODUCT = BackwardParts<T>::PRODUCT;
    const float *q = memory.candidate + threadIdx.x % 4 * 2, *grad_out = q + 4 * p.width4;
    const float4 *behaviours = memory.block + threadIdx.x;
    Vector *to = memory.inputs;
    float zeros[2] = {}, sums[2] = {};
#pragma unroll 1
    for (u32 step = p.width4 / 4; step > 0; step--) {
        float x[8];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const float4 s = load_float4(behaviours + half * WARP);
            const float2 own = load_two(q + 8 * half), grad = load_two(grad_out + 8 * half);
            float *const out = x + 4 * half;
            sums[0] = fma(grad.y, s.y, fma(grad.x, s.x, sums[0]));
            sums[1] = fma(grad.y, s.w, fma(grad.x, s.z, sums[1]));
            out[0] = own.x * s.x;
            out[1] = own.y * s.y;
            out[2] = own.x * s.z;
            out[3] = own.y * s.w;
            // See multiply_any.
            if (BackwardParts<T>::WEIGHT > 1) {
                zeros[0] = fma(out[1], 0.0f, fma(out[0], 0.0f, zeros[0]));
                zeros[1] = fma(out[3], 0.0f, fma(out[2], 0.0f, zeros[1]));
            }
        }
        u32 parts[PRODUCT][4];
        split<PRODUCT>(x, parts);
        store_parts(to, parts);
        behaviours += 2 * WARP;
        q += 16;
        grad_out += 16;
        to += PRODUCT * WARP;
    }
    if (BackwardParts<T>::WEIGHT > 1) find_odd(zeros, odd);
    grads[0] = warp_sum<4>(sums[0]);
    grads[1] = warp_sum<4>(sums[1]);
}

// What the sums of a layer begin with: its bias, or the terms of the behaviour and the candidate. Of up to PAIRS pairs of tiles.
__device__ __forceinline__ void start_sums(const DinBackwardParams &p, const TileMemory &memory, u32 i, u32 pair, u32 pairs, Sums &sums) {
    const float *from = vectors_of(p, p.layers[i], pair);
    if (i == 0) from = memory.candidate + 8 * p.width4 + 16 * pair + threadIdx.x % 4 * 2;
    const float4 *terms = memory.block + p.block_terms + 2 * pair * WARP + threadIdx.x;
#pragma unroll
    for (u32 n = 0; n < PAIRS; n++) {
        if (n == 0 || pair + n < pairs) {
            float (&c)[8] = pair_of(sums, n);
            float own[4];
            load_units(from + 16 * n, own);
#pragma unroll
            for (u32 r = 0; r < 8; r++) c[r] = own[unit_of(r)];
            if (i == 0) {
                const float4 low = load_float4(terms + 2 * n * WARP), high = load_float4(terms + (2 * n + 1) * WARP);
                const float term[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
                for (u32 r = 0; r < 8; r++) c[r] += term[r];
            }
        }
    }
}

// Stores a pair of tiles before the activation, activates it, and adds the last layer's to the scores.
__device__ __forceinline__ void finish_pair(const DinBackwardParams &p, const DinBackwardLayer &layer, bool last, u32 pair, float4 *before,
                                            const float *vectors, float (&c)[8], float (&scores)[2]) {
    // The scores alone need no gradient.
    if (p.mode != SCORES) {
        before[0] = make_float4(c[0], c[1], c[2], c[3]);
        before[WARP] = make_float4(c[4], c[5], c[6], c[7]);
    }
    activate(layer, pair, vectors, c);
    if (!last) return;
    float weights[4];
    load_units(vectors + 16 * layer.units4, weights);
#pragma unroll
    for (u32 r = 0; r < 8; r++) scores[row_of(r)] = fma(c[r], weights[unit_of(r)], scores[row_of(r)]);
}

template <typename T>
__device__ __forceinline__ void run_layer(
    const DinBackwardParams &p, const TileMemory &memory, u32 i, const bool (&odd)[2], float (&scores)[2]) {
    constexpr u32 WEIGHT = BackwardParts<T>::WEIGHT, INPUT = BackwardParts<T>::INPUT;
    const DinBackwardLayer &layer = p.layers[i];
    const u32 pairs = layer.units4 / 4;
    const bool last = i + 1 == p.layer_count, turns = p.mode == GRADIENTS && i + 1 >= p.deepest;
    const Vector *from = i % 2 == 0 ? memory.inputs : memory.others;
    Vector *to = i % 2 == 0 ? memory.others : memory.inputs;
    const float4 *weights = p.network + layer.forward;
#pragma unroll 1
    for (u32 pair = 0; pair < pairs; pair += PAIRS) {
        Sums sums = {};
        start_sums(p, memory, i, pair, pairs, sums);
        if (i == 0) {
            multiply_any<WEIGHT, BackwardParts<T>::PRODUCT>(sums, odd, from, p.width4 / 4, weights, pairs, pair);
        } else {
            multiply<WEIGHT, INPUT>(sums, from, p.layers[i - 1].units4 / 4, weights, pairs, pair);
        }
        const float *vectors = vectors_of(p, layer, pair);
        float4 *before = memory.before + layer.before + 2 * pair * WARP + threadIdx.x;
#pragma unroll
        for (u32 n = 0; n < PAIRS; n++) {
            if (n == 0 || pair + n < pairs) {
                finish_pair(p, layer, last, pair + n, before + 2 * n * WARP, vectors + 16 * n, pair_of(sums, n), scores);
                if (!last) {
                    u32 parts[INPUT][4];
                    split_tiles<INPUT>(sums[2 * n], sums[2 * n + 1], parts);
                    const u32 at = (pair + n) * INPUT * WARP;
                    store_parts(to + at, parts);
                    if (turns) store_turned<INPUT>(memory.buffer, (Vector *)(memory.tile + p.layers[i + 1].inputs) + at, parts);
                }
            }
        }
    }
}

// The weights of the pairs of this lane, and the gradients of their scores, from scores and gradients of weights.
__device__ __forceinline__ TilePairs weigh(
    const DinBackwardParams &p, u32 rows, u32 m, const float (&scores)[2], const float (&grads)[2]) {
    const float bias = p.network[p.output_bias_place].x;
    float *numbers = (float *)(p.pair_numbers + PAIR_NUMBERS * u64(blockIdx.x)) + threadIdx.x / 4;
    Quad state = {};
    if (p.softmax && p.mode == GRADIENTS) state = load_quad(p.states + m);
    TilePairs pairs = {};
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
        bool present = threadIdx.x / 4 + 8 * e < rows;
        float a = warp_sum<4>(scores[e]) + bias, g = grads[e], w = a;
        if (p.mode == SCORES) {
            if (threadIdx.x % 4 == 0) {
                numbers[8 * e] = present ? a : -infinity();
                numbers[16 + 8 * e] = g;
            }
            continue;
        }
        if (p.softmax) {
            present = present && a != -infinity();
            w = exp_approx(a - base_of(state.x[0])) / state.x[1];
            g = w * (g - state.x[2] / state.x[1]);
        }
        if (threadIdx.x % 4 == 0) numbers[8 * e] = present ? w : 0.0f;
        pairs.kept[e] = present;
        pairs.grad_score[e] = present ? g : 0.0f;
    }
    if (p.mode == GRADIENTS) {
        const u32 upper = __ballot_sync(WHOLE_WARP, pairs.kept[0]), lower = __ballot_sync(WHOLE_WARP, pairs.kept[1]);
        pairs.all = (upper & lower) == WHOLE_WARP;
        if (threadIdx.x == 0) *(uint2 *)(numbers + 16) = make_uint2(upper, lower);
    }
    return pairs;
}

// ---- Backwards -----------------------------------------------------------------------------------------------------

// Stores sums over the pairs of the tile for the two units of this lane in a tile of 8.
__device__ __forceinline__ void store_unit_sums(float4 *sums, u32 tile, float2 sum) {
    sum = sum_rows(sum);
    if (threadIdx.x < 4) ((float2 *)sums)[4 * tile + threadIdx.x] = sum;
}

// The gradient of the output bias, and zeros for those of the vectors of layers before `lowest`.
__device__ __forceinline__ void output_bias(const DinBackwardParams &p, const TilePairs &pairs, u32 lowest, float4 *sums) {
    float all = pairs.grad_score[0] + pairs.grad_score[1];
#pragma unroll
    for (u32 lanes = 4; lanes < WARP; lanes *= 2) all += shuffle_xor(all, lanes);
    if (threadIdx.x == 0) sums[p.output_sums + p.layers[p.layer_count - 1].units4] = make_float4(all, 0.0f, 0.0f, 0.0f);
    for (u32 i = 0; i < lowest; i++) {
        for (u32 at = threadIdx.x; at < 4 * p.layers[i].units4; at += WARP) store_quad(sums + p.layers[i].sums + at, Quad{});
    }
}

// A pair of tiles of units, number `n` of `own`: its dy, in the place of its dx, and this lane's sums of the gradients of its vectors.
__device__ __forceinline__ void pair_backward(const DinBackwardLayer &layer, const TilePairs &pairs, bool last, u32 pair, const float4 *before,
                                              const float *vectors, float (&dx)[8], UnitSums &own, u32 n) {
    const u32 padded = 4 * layer.units4;
    if (last) {
        float weights[4];
        load_units(vectors + 4 * padded, weights);
#pragma unroll
        for (u32 r = 0; r < 8; r++) dx[r] = pairs.grad_score[row_of(r)] * weights[unit_of(r)];
    }
    const float4 low = before[0], high = before[WARP];
    float y[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    if (!pairs.all) {
#pragma unroll
        for (u32 r = 0; r < 8; r++) {
            y[r] = pairs.kept[row_of(r)] ? y[r] : 0.0f;
            dx[r] = pairs.kept[row_of(r)] ? dx[r] : 0.0f;
        }
    }
    clear_padding(layer, pair, y);
    clear_padding(layer, pair, dx);
    activate_backward(layer.activation, vectors, padded, pairs.grad_score, y, dx, own, n);
}

// Stores the sums over the pairs of the tile for PAIRS pairs of tiles, of which each lane gets a unit.
__device__ __forceinline__ void store_sums(const DinBackwardParams &p, const DinBackwardLayer &layer, bool last, u32 pair, float4 *sums,
                                           const UnitSums &own) {
    const u32 lane = threadIdx.x, padded = 4 * layer.units4;
    const u32 unit = 16 * pair + lane / 8 * 8 + lane % 4 * 2 + lane / 4 % 2;
    const bool dice = layer.activation == DICE;
    const float bias = sum_one_of(own.bias);
    float alpha = 0.0f, gain = 0.0f, shift = 0.0f, output = 0.0f;
    if (layer.activation >= PRELU) alpha = sum_one_of(own.alpha);
    if (dice) {
        gain = sum_one_of(own.gain);
        shift = sum_one_of(own.shift);
    }
    if (last) output = sum_one_of(own.output);
    if (unit >= padded) return;
    float *to = (float *)(sums + layer.sums) + unit;
    to[0] = bias;
    to[padded] = alpha;
    to[2 * padded] = gain;
    to[3 * padded] = shift;
    if (last) ((float *)(sums + p.output_sums))[unit] = output;
}

// The gradients of a layer before its activation, and the sums of those of its vectors.
template <typename T>
__device__ __forceinline__ void layer_backward(
    const DinBackwardParams &p, const TileMemory &memory, const TilePairs &pairs, float4 *sums, u32 i) {
    constexpr u32 INPUT = BackwardParts<T>::INPUT;
    const DinBackwardLayer &layer = p.layers[i];
    const u32 count = layer.units4 / 4;
    const bool last = i + 1 == p.layer_count;
    const Vector *from = i % 2 == 0 ? memory.inputs : memory.others;
    Vector *to = i == 0 ? (Vector *)memory.tile : i % 2 == 0 ? memory.others
                                                             : memory.inputs;
#pragma unroll 1
    for (u32 pair = 0; pair < count; pair += PAIRS) {
        Sums dx = {};
        if (!last) {
            const DinBackwardLayer &next = p.layers[i + 1];
            multiply<BackwardParts<T>::WEIGHT, INPUT>(dx, from, next.units4 / 4, p.network + next.back, count, pair);
        }
        const float *vectors = vectors_of(p, layer, pair);
        const float4 *before = memory.before + layer.before + 2 * pair * WARP + threadIdx.x;
        UnitSums own = {};
#pragma unroll
        for (u32 n = 0; n < PAIRS; n++) {
            if (n == 0 || pair + n < count) {
                const u32 at = (pair + n) * INPUT * WARP;
                pair_backward(layer, pairs, last, pair + n, before + 2 * n * WARP, vectors + 16 * n, pair_of(dx, n), own, n);
                u32 parts[INPUT][4];
                split_tiles<INPUT>(dx[2 * n], dx[2 * n + 1], parts);
                store_parts(to + at, parts);
                store_turned<INPUT>(memory.buffer, (Vector *)(memory.tile + layer.grads) + at, parts);
            }
        }
        store_sums(p, layer, last, pair, sums, own);
    }
}

__device__ __forceinline__ void measure(const DinBackwardParams &p, const TileMemory &memory, float4 *sums, u32 rows) {
    const DinBackwardLayer &layer = p.layers[p.layer];
    const float count = (float)rows;
    const bool upper = threadIdx.x / 4 < rows, lower = threadIdx.x / 4 + 8 < rows;
#pragma unroll 1
    for (u32 tile = 0; tile < layer.units4 / 2; tile++) {
        const float4 y = memory.before[layer.before + tile * WARP + threadIdx.x];
        float2 mean = sum_rows({(upper ? y.x : 0.0f) + (lower ? y.z : 0.0f), (upper ? y.y : 0.0f) + (lower ? y.w : 0.0f)});
        mean.x /= count;
        mean.y /= count;
        const float d[4] = {upper ? y.x - mean.x : 0.0f, upper ? y.y - mean.y : 0.0f, lower ? y.z - mean.x : 0.0f,
                            lower ? y.w - mean.y : 0.0f};
        store_unit_sums(sums + layer.units4, tile, {fma(d[0], d[0], d[2] * d[2]), fma(d[1], d[1], d[3] * d[3])});
        if (threadIdx.x < 4) ((float2 *)sums)[4 * tile + threadIdx.x] = mean;
    }
    if (threadIdx.x == 0) sums[2 * layer.units4] = make_float4(count, 0.0f, 0.0f, 0.0f);
}

template <typename T>
__device__ __forceinline__ void pairs(const DinBackwardParams &p) {
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_tile>(p, blockIdx.x)];
    const u32 own = blockIdx.x - piece.first_tile, per_run = tiles_per_run(piece), m = piece.first_target + own / per_run;
    const u32 block = own % per_run, rows = min(16u, piece.rows - 16 * block);
    float4 *sums = p.tile_sums + u64(blockIdx.x) * p.tile_sums_stride;
    Vector *const buffer = dynamic_shared;
    float4 *scratch = (float4 *)(buffer + BackwardParts<T>::INPUT * WARP);
    if (p.scratch != nullptr) scratch = p.scratch + u64(blockIdx.x) * p.scratch_size;
    const TileMemory memory = {scratch,
                               (Vector *)(scratch + p.inputs_place),
                               (Vector *)(scratch + p.others_place),
                               buffer,
                               p.work + u64(blockIdx.x) * p.tile,
                               p.blocks + u64(piece.first_block + block) * p.block,
                               (const float *)(p.candidates + u64(m) * p.candidate)};
    float grads[2], scores[2] = {};
    bool odd[2] = {};
    make_inputs<T>(p, memory, grads, odd);
    const u32 layers = p.mode == STATISTICS ? p.layer + 1 : p.layer_count;
#pragma unroll 1
    for (u32 i = 0; i < layers; i++) run_layer<T>(p, memory, i, odd, scores);
    if (p.mode == STATISTICS) {
        measure(p, memory, sums, rows);
        return;
    }
    const TilePairs kept = weigh(p, rows, m, scores, grads);
    if (p.mode == SCORES) return;
    // Of the last layer also where only the output layer's gradients are wanted.
    const u32 lowest = min(p.deepest, p.layer_count - 1);
    output_bias(p, kept, lowest, sums);
#pragma unroll 1
    for (u32 i = p.layer_count; i > lowest; i--) layer_backward<T>(p, memory, kept, sums, i - 1);
}

// Eight blocks per multiprocessor: shared memory allows few more, and for more of them ptxas would spill registers.
#define VARIANTS(T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(WARP, 8) din_backward_behaviours_##T(const DinBackwardParams p) { \
        behaviours<T>(p);                                                                                          \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(WARP, 8) din_backward_pairs_##T(const DinBackwardParams p) { pairs<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
