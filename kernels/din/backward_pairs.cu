// The pairs of DIN's backward pass: a block of 64 threads computes one candidate against 16 behaviours, a tile.
//
// SCORES: each pair's score and the gradient of its weight, ⟨grad_out, s⟩, for the softmax states.
// GRADIENTS: the network forwards, weights and gradients of scores, and backwards down to the first layer that has a gradient. It
//   leaves the inputs of every layer and the gradients dy before every activation in `work`, weights in `pair_numbers`, and the sums
//   over the 16 pairs of the gradients of vectors in `tile_sums`. A pair that a score of -∞ removes, and one past the end of the
//   history, has zeros everywhere, whatever the behaviour holds.
// STATISTICS: mean and sum of squared distances of each unit before the activation of layer `layer`, and the number of behaviours.
//
// A thread has four units and four pairs: 16 sums, for which it reads four weights and four numbers at a time. Numbers of a tile are
// in global memory, where other threads of the block wrote them, before a barrier: they stay in L1. Precision: f32.
#include "din/backward.cuh"

enum : u32 {
    SCORES = 0,
    STATISTICS = 2
};

struct TileMemory {
    // Sums of every thread.
    Quad sums[4][TILE_THREADS];
    // Of the 16 pairs: the gradients of their scores, and 1 for those that are not removed.
    Quad grad_scores[QUADS], kept[QUADS];
};

__device__ __forceinline__ float sigmoid(float x) {
    // 1/inf is 0, so large negative numbers need no special case.
    return reciprocal_approx(1.0f + exp_approx(-x));
}

// One of the five vectors of a layer, for a unit: bias, gain, shift, alpha, output weight.
__device__ __forceinline__ float vector_of(const DinBackwardParams &p, const DinBackwardLayer &layer, u32 vector, u32 unit) {
    return ((const float *)p.network)[4 * (layer.vectors + vector * layer.units4) + unit];
}

__device__ __forceinline__ void activate(const DinBackwardParams &p, const DinBackwardLayer &layer, u32 unit, Quad &x) {
    float alpha = 0.0f, gain = 0.0f, shift = 0.0f;
    if (layer.activation >= PRELU) {
        alpha = vector_of(p, layer, 3, unit);
    }
    if (layer.activation == DICE) {
        gain = vector_of(p, layer, 1, unit);
        shift = vector_of(p, layer, 2, unit);
    }
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        float y = x.x[e];
        if (layer.activation == SIGMOID) {
            x.x[e] = sigmoid(y);
        } else if (layer.activation == DICE) {
            float s = sigmoid(fma(gain, y, shift));
            x.x[e] = y * fma(alpha, 1.0f - s, s);
        } else {
            // ReLU has an alpha of 0. Comparisons instead of fmaxf keep NaN.
            x.x[e] = y < 0.0f ? (layer.activation == PRELU ? alpha * y : 0.0f) : y;
        }
    }
}

// The gradients of one unit from that of its output, `dx`, which dy replaces, and the sums over the four pairs of those of bias,
// alpha, gain and shift.
__device__ __forceinline__ Quad activate_backward(
    const DinBackwardParams &p, const DinBackwardLayer &layer, u32 unit, const Quad &before, Quad &dx) {
    float alpha = 0.0f, gain = 0.0f, shift = 0.0f;
    if (layer.activation >= PRELU) {
        alpha = vector_of(p, layer, 3, unit);
    }
    if (layer.activation == DICE) {
        gain = vector_of(p, layer, 1, unit);
        shift = vector_of(p, layer, 2, unit);
    }
    Quad sums = {};
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        float y = before.x[e], own = dx.x[e], slope;
        if (layer.activation == SIGMOID) {
            slope = sigmoid(y) * sigmoid(-y);
        } else if (layer.activation == DICE) {
            float z = fma(gain, y, shift), s = sigmoid(z), rest = sigmoid(-z);
            float r = s * rest * (1.0f - alpha);
            slope = fma(y * r, gain, fma(alpha, rest, s));
            sums.x[1] = fma(own, y * rest, sums.x[1]);
            // In this order, because y² may be infinite where r is 0.
            sums.x[2] = fma(own, y * (y * r), sums.x[2]);
            sums.x[3] = fma(own, y * r, sums.x[3]);
        } else {
            slope = y > 0.0f ? 1.0f : y != y ? y
                                             : alpha;
            sums.x[1] = fma(own, y > 0.0f ? 0.0f : y, sums.x[1]);
        }
        dx.x[e] = own * slope;
        sums.x[0] += dx.x[e];
    }
    return sums;
}

// Stores four units of a layer before and after the activation; those past the end are 0.
__device__ __forceinline__ void finish_units(
    const DinBackwardParams &p, const DinBackwardLayer &layer, float4 *tile, u32 unit4, u32 quad, Quad (&sums)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 unit = 4 * unit4 + i;
        Quad y = {}, x = {};
        if (unit < layer.units) {
            x = y = sums[i];
            activate(p, layer, unit, x);
        }
        store_quad(tile + layer.before + QUADS * unit + quad, y);
        store_quad(tile + layer.after + QUADS * unit + quad, x);
    }
}

__device__ __forceinline__ void start_units(const float4 *from, Quad (&sums)[4]) {
    Quad own = load_quad(from);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        sums[i] = Quad{{own.x[i], own.x[i], own.x[i], own.x[i]}};
    }
}

__device__ __forceinline__ void first_layer(const DinBackwardParams &p, float4 *tile, const float4 *candidate) {
    const DinBackwardLayer &layer = p.layers[0];
    const float *q = (const float *)candidate;
    u32 quad = threadIdx.x % QUADS, size = 4 * p.width4 * layer.units4;
    for (u32 unit4 = threadIdx.x / QUADS; unit4 < layer.units4; unit4 += TILE_THREADS / QUADS) {
        Quad sums[4];
        start_units(candidate + 2 * p.width4 + unit4, sums);
        const float4 *weights = p.network + layer.weights + unit4;
        for (u32 k = 0; k < p.width; k++) {
            Quad w = load_quad(weights + k * layer.units4), product = load_quad(weights + k * layer.units4 + size);
            float factor = q[k];
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                w.x[e] = fma(factor, product.x[e], w.x[e]);
            }
            add_outer(sums, w, load_quad(tile + QUADS * k + quad));
        }
        finish_units(p, layer, tile, unit4, quad, sums);
    }
}

__device__ __forceinline__ void later_layer(const DinBackwardParams &p, float4 *tile, u32 i) {
    const DinBackwardLayer &layer = p.layers[i], &before = p.layers[i - 1];
    u32 quad = threadIdx.x % QUADS;
    for (u32 unit4 = threadIdx.x / QUADS; unit4 < layer.units4; unit4 += TILE_THREADS / QUADS) {
        Quad sums[4];
        start_units(p.network + layer.vectors + unit4, sums);
        for (u32 k = 0; k < before.units; k++) {
            add_outer(sums, load_quad(p.network + layer.weights + k * layer.units4 + unit4),
                      load_quad(tile + before.after + QUADS * k + quad));
        }
        finish_units(p, layer, tile, unit4, quad, sums);
    }
}

template <typename T>
__device__ __forceinline__ void load_history(const DinBackwardParams &p, float4 *tile, u32 first, u32 rows) {
    const T *history = (const T *)p.history + (u64)first * p.width;
    u32 quad = threadIdx.x % QUADS;
    for (u32 k = threadIdx.x / QUADS; k < 4 * p.width4; k += TILE_THREADS / QUADS) {
        Quad value = {};
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            u32 row = 4 * quad + e;
            if (row < rows && k < p.width) {
                value.x[e] = widen(history[(u64)row * p.width + k]);
            }
        }
        store_quad(tile + QUADS * k + quad, value);
    }
}

// Each thread's share of the scores, and of the gradients of the weights, of four pairs.
__device__ __forceinline__ void share_scores(
    const DinBackwardParams &p, TileMemory &memory, const float4 *tile, const float4 *candidate) {
    const DinBackwardLayer &layer = p.layers[p.layer_count - 1];
    const float *grad_out = (const float *)(candidate + p.width4);
    u32 quad = threadIdx.x % QUADS;
    Quad score = {}, grad = {};
    for (u32 unit = threadIdx.x / QUADS; unit < layer.units; unit += TILE_THREADS / QUADS) {
        Quad x = load_quad(tile + layer.after + QUADS * unit + quad);
        float w = vector_of(p, layer, 4, unit);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            score.x[e] = fma(w, x.x[e], score.x[e]);
        }
    }
    for (u32 k = threadIdx.x / QUADS; k < p.width; k += TILE_THREADS / QUADS) {
        Quad s = load_quad(tile + QUADS * k + quad);
        float g = grad_out[k];
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            grad.x[e] = fma(g, s.x[e], grad.x[e]);
        }
    }
    memory.sums[0][threadIdx.x] = score;
    memory.sums[1][threadIdx.x] = grad;
}

// The weights of the pairs of this thread, and the gradients of their scores.
__device__ __forceinline__ void weigh(const DinBackwardParams &p, TileMemory &memory, u32 rows, u32 m) {
    u32 quad = threadIdx.x;
    Quad score = {}, grad = {}, kept = {}, grad_score = {}, weight = {};
    for (u32 part = quad; part < TILE_THREADS; part += QUADS) {
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            score.x[e] += memory.sums[0][part].x[e];
            grad.x[e] += memory.sums[1][part].x[e];
        }
    }
    float bias = p.network[p.output_bias_place].x;
    Quad state = {};
    if (p.softmax && p.mode != SCORES) {
        state = load_quad(p.states + m);
    }
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        bool present = 4 * quad + e < rows;
        float a = score.x[e] + bias;
        score.x[e] = present ? a : -infinity();
        float w = a, g = grad.x[e];
        if (p.softmax) {
            present = present && a != -infinity();
            w = exp_approx(a - base_of(state.x[0])) / state.x[1];
            g = w * (g - state.x[2] / state.x[1]);
        }
        weight.x[e] = present ? w : 0.0f;
        grad_score.x[e] = present ? g : 0.0f;
        kept.x[e] = present ? 1.0f : 0.0f;
    }
    float4 *numbers = p.pair_numbers + 8 * (u64)blockIdx.x + quad;
    store_quad(numbers, p.mode == SCORES ? score : weight);
    store_quad(numbers + QUADS, p.mode == SCORES ? grad : kept);
    memory.grad_scores[quad] = grad_score;
    memory.kept[quad] = kept;
}

// Sets rows to zero where pairs are removed.
__device__ __forceinline__ void clear_removed(const TileMemory &memory, float4 *rows, u32 count) {
    u32 quad = threadIdx.x % QUADS;
    const Quad kept = memory.kept[quad];
    for (u32 row = threadIdx.x / QUADS; row < count; row += TILE_THREADS / QUADS) {
        Quad value = load_quad(rows + QUADS * row + quad);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            value.x[e] = kept.x[e] > 0.0f ? value.x[e] : 0.0f;
        }
        store_quad(rows + QUADS * row + quad, value);
    }
}

// The gradients of the output layer; zeros for those of layers that have none.
__device__ __forceinline__ void output_layer(
    const DinBackwardParams &p, const TileMemory &memory, const float4 *tile, float4 *sums) {
    const DinBackwardLayer &layer = p.layers[p.layer_count - 1];
    for (u32 unit4 = threadIdx.x; unit4 < layer.units4; unit4 += TILE_THREADS) {
        Quad sum = {};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float4 *x = tile + layer.after + QUADS * (4 * unit4 + i);
#pragma unroll
            for (u32 quad = 0; quad < QUADS; quad++) {
                sum.x[i] += dot(memory.grad_scores[quad], load_quad(x + quad));
            }
        }
        store_quad(sums + p.output_sums + unit4, sum);
    }
    if (threadIdx.x == 0) {
        float all = 0.0f;
        for (u32 quad = 0; quad < QUADS; quad++) {
            all += sum_of(memory.grad_scores[quad]);
        }
        store_quad(sums + p.output_sums + layer.units4, Quad{{all, 0.0f, 0.0f, 0.0f}});
    }
    for (u32 i = 0; i < p.deepest; i++) {
        for (u32 at = threadIdx.x; at < 4 * p.layers[i].units4; at += TILE_THREADS) {
            store_quad(sums + p.layers[i].sums + at, Quad{});
        }
    }
}

// The gradients of four units of layer `i` after its activation.
__device__ __forceinline__ void gradients_after(const DinBackwardParams &p, const TileMemory &memory, const float4 *tile, u32 i,
                                                u32 unit4, Quad (&dx)[4]) {
    const DinBackwardLayer &layer = p.layers[i];
    u32 quad = threadIdx.x % QUADS;
    if (i + 1 == p.layer_count) {
        add_outer(dx, load_quad(p.network + layer.vectors + 4 * layer.units4 + unit4), memory.grad_scores[quad]);
        return;
    }
    const DinBackwardLayer &next = p.layers[i + 1];
    const float4 *weights = p.network + next.weights + 4 * layer.units4 * next.units4 + unit4;
    for (u32 v = 0; v < next.units; v++) {
        add_outer(dx, load_quad(weights + v * layer.units4), load_quad(tile + next.before + QUADS * v + quad));
    }
}

// The gradients of a layer before its activation, in the place of its numbers, and the sums of those of its vectors.
__device__ __forceinline__ void layer_backward(
    const DinBackwardParams &p, TileMemory &memory, float4 *tile, float4 *sums, u32 i) {
    const DinBackwardLayer &layer = p.layers[i];
    u32 quad = threadIdx.x % QUADS;
    const Quad kept = memory.kept[quad];
    for (u32 first = 0; first < layer.units4; first += TILE_THREADS / QUADS) {
        u32 unit4 = first + threadIdx.x / QUADS;
        if (unit4 < layer.units4) {
            Quad dx[4] = {};
            gradients_after(p, memory, tile, i, unit4, dx);
#pragma unroll
            for (u32 u = 0; u < 4; u++) {
                float4 *at = tile + layer.before + QUADS * (4 * unit4 + u) + quad;
                Quad y = load_quad(at);
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    y.x[e] = kept.x[e] > 0.0f ? y.x[e] : 0.0f;
                    dx[u].x[e] = kept.x[e] > 0.0f ? dx[u].x[e] : 0.0f;
                }
                memory.sums[u][threadIdx.x] = activate_backward(p, layer, 4 * unit4 + u, y, dx[u]);
                store_quad(at, dx[u]);
            }
        }
        __syncthreads();
        // Four threads have the same units: each adds up one of the four vectors.
        if (unit4 < layer.units4) {
            Quad sum = {};
#pragma unroll
            for (u32 u = 0; u < 4; u++) {
#pragma unroll
                for (u32 other = 0; other < QUADS; other++) {
                    sum.x[u] += ((const float *)&memory.sums[u][threadIdx.x - quad + other])[quad];
                }
            }
            store_quad(sums + layer.sums + quad * layer.units4 + unit4, sum);
        }
        __syncthreads();
    }
}

__device__ __forceinline__ void measure(const DinBackwardParams &p, const float4 *tile, float4 *sums, u32 rows) {
    const DinBackwardLayer &layer = p.layers[p.layer];
    for (u32 unit = threadIdx.x; unit < 4 * layer.units4; unit += TILE_THREADS) {
        const float *y = (const float *)(tile + layer.before + QUADS * unit);
        float mean = 0.0f, squares = 0.0f;
        for (u32 row = 0; row < rows; row++) {
            mean += y[row];
        }
        mean /= (float)rows;
        for (u32 row = 0; row < rows; row++) {
            squares = fma(y[row] - mean, y[row] - mean, squares);
        }
        ((float *)sums)[unit] = mean;
        ((float *)sums)[4 * layer.units4 + unit] = squares;
    }
    if (threadIdx.x == 0) {
        store_quad(sums + 2 * layer.units4, Quad{{(float)rows, 0.0f, 0.0f, 0.0f}});
    }
}

template <typename T>
__device__ __forceinline__ void pairs(const DinBackwardParams &p) {
    __shared__ TileMemory memory;
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_tile>(p, blockIdx.x)];
    u32 own = blockIdx.x - piece.first_tile, m = piece.first_target + own / tiles_per_run(piece);
    u32 first = own % tiles_per_run(piece) * 16, rows = min(16u, piece.rows - first);
    float4 *tile = p.work + (u64)blockIdx.x * p.tile, *sums = p.tile_sums + (u64)blockIdx.x * p.tile_sums_stride;
    const float4 *candidate = p.candidates + (u64)m * p.candidate;
    load_history<T>(p, tile, piece.first_row + first, rows);
    __syncthreads();
    first_layer(p, tile, candidate);
    __syncthreads();
    u32 layers = p.mode == STATISTICS ? p.layer + 1 : p.layer_count;
    for (u32 i = 1; i < layers; i++) {
        later_layer(p, tile, i);
        __syncthreads();
    }
    if (p.mode == STATISTICS) {
        measure(p, tile, sums, rows);
        return;
    }
    share_scores(p, memory, tile, candidate);
    __syncthreads();
    if (threadIdx.x < QUADS) {
        weigh(p, memory, rows, m);
    }
    if (p.mode == SCORES) {
        return;
    }
    __syncthreads();
    float all = 0.0f;
    for (u32 quad = 0; quad < QUADS; quad++) {
        all += sum_of(memory.kept[quad]);
    }
    if (all < 16.0f) {
        clear_removed(memory, tile, 4 * p.width4);
        for (u32 i = 0; i < p.layer_count; i++) {
            clear_removed(memory, tile + p.layers[i].after, 4 * p.layers[i].units4);
        }
    }
    __syncthreads();
    output_layer(p, memory, tile, sums);
    for (u32 i = p.layer_count; i > p.deepest; i--) {
        layer_backward(p, memory, tile, sums, i - 1);
        __syncthreads();
    }
}

#define VARIANTS(T) \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS) din_backward_pairs_##T(const DinBackwardParams p) { pairs<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
