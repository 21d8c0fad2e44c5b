// The activations in DIN's backward pass, of a pair of tiles of 8 units. A lane has 8 numbers of a pair: two units of both tiles, for its
// two rows.
#pragma once
#include "din/products.cuh"

// Of number `r` of a lane: which of its four units, and which of its rows.
__device__ __forceinline__ constexpr u32 unit_of(u32 r) { return r / 4 * 2 + r % 2; }
__device__ __forceinline__ constexpr u32 row_of(u32 r) { return r / 2 % 2; }

__device__ __forceinline__ float (&pair_of(Sums &sums, u32 pair))[8] { return *(float (*)[8])sums[2 * pair]; }

// This lane's of a layer's vectors (bias, gain, shift, alpha, output weight, of 4·units4 numbers each), for the units of pair `pair`.
__device__ __forceinline__ const float *vectors_of(const DinBackwardParams &p, const DinBackwardLayer &layer, u32 pair) {
    return (const float *)(p.network + layer.vectors) + pair * 16 + threadIdx.x % 4 * 2;
}

__device__ __forceinline__ void load_units(const float *vector, float (&x)[4]) {
    const float2 low = load_two(vector), high = load_two(vector + 8);
    x[0] = low.x;
    x[1] = low.y;
    x[2] = high.x;
    x[3] = high.y;
}

__device__ __forceinline__ float sigmoid(float x) {
    // 1/inf is 0, so large negative numbers need no special case.
    return reciprocal_approx(1.0f + exp_approx(-x));
}

// Sets numbers of units past the last to 0.
__device__ __forceinline__ void clear_padding(const DinBackwardLayer &layer, u32 pair, float (&c)[8]) {
    if (16 * pair + 16 <= layer.units) return;
    const u32 unit = 16 * pair + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 r = 0; r < 8; r++) c[r] = unit + r / 4 * 8 + r % 2 < layer.units ? c[r] : 0.0f;
}

// Activates a pair. Comparisons instead of fmaxf keep NaN.
__device__ __forceinline__ void activate(const DinBackwardLayer &layer, u32 pair, const float *vectors, float (&c)[8]) {
    const u32 padded = 4 * layer.units4;
    if (layer.activation == RELU) {
#pragma unroll
        for (u32 r = 0; r < 8; r++) c[r] = c[r] < 0.0f ? 0.0f : c[r];
    } else if (layer.activation == SIGMOID) {
#pragma unroll
        for (u32 r = 0; r < 8; r++) c[r] = sigmoid(c[r]);
    } else {
        float alphas[4];
        load_units(vectors + 3 * padded, alphas);
        if (layer.activation == PRELU) {
#pragma unroll
            for (u32 r = 0; r < 8; r++) c[r] = c[r] < 0.0f ? alphas[unit_of(r)] * c[r] : c[r];
        } else {
            float gains[4], shifts[4];
            load_units(vectors + padded, gains);
            load_units(vectors + 2 * padded, shifts);
#pragma unroll
            for (u32 r = 0; r < 8; r++) {
                const u32 u = unit_of(r);
                const float gate = sigmoid(fma(gains[u], c[r], shifts[u]));
                c[r] *= fma(alphas[u], 1.0f - gate, gate);
            }
        }
    }
    clear_padding(layer, pair, c);
}

// Of this lane's units in PAIRS pairs, in sum over its two rows: the gradients of bias, alpha, gain and shift, and of the output weight.
struct UnitSums {
    float bias[4 * PAIRS], alpha[4 * PAIRS], gain[4 * PAIRS], shift[4 * PAIRS], output[4 * PAIRS];
};

// The gradients of pair `n` of `own` from those of its outputs, `dx`, which dy replaces, and those of the scores.
__device__ __forceinline__ void activate_backward(u32 activation, const float *vectors, u32 padded, const float (&grad_score)[2],
                                                  const float (&before)[8], float (&dx)[8], UnitSums &own, u32 n) {
    if (activation == SIGMOID) {
#pragma unroll
        for (u32 r = 0; r < 8; r++) {
            const u32 at = 4 * n + unit_of(r);
            const float s = sigmoid(before[r]);
            own.output[at] = fma(grad_score[row_of(r)], s, own.output[at]);
            dx[r] *= s * sigmoid(-before[r]);
        }
    } else if (activation == DICE) {
        float alphas[4], gains[4], shifts[4];
        load_units(vectors + 3 * padded, alphas);
        load_units(vectors + padded, gains);
        load_units(vectors + 2 * padded, shifts);
#pragma unroll
        for (u32 r = 0; r < 8; r++) {
            const u32 u = unit_of(r), at = 4 * n + u;
            const float alpha = alphas[u], gain = gains[u], y = before[r], grad = dx[r], z = fma(gain, y, shifts[u]);
            const float s = sigmoid(z), other = sigmoid(-z), product = s * other * (1.0f - alpha), mixed = fma(alpha, other, s);
            own.alpha[at] = fma(grad, y * other, own.alpha[at]);
            // In this order, because y² may be infinite where the product is 0.
            own.gain[at] = fma(grad, y * (y * product), own.gain[at]);
            own.shift[at] = fma(grad, y * product, own.shift[at]);
            own.output[at] = fma(grad_score[row_of(r)], y * mixed, own.output[at]);
            dx[r] = grad * fma(y * product, gain, mixed);
        }
    } else {
        float alphas[4] = {};
        if (activation == PRELU) load_units(vectors + 3 * padded, alphas);
#pragma unroll
        for (u32 r = 0; r < 8; r++) {
            const u32 u = unit_of(r), at = 4 * n + u;
            const float y = before[r], grad = dx[r], below = activation == RELU ? 0.0f : alphas[u] * y;
            const bool positive = y > 0.0f;
            float slope = positive ? 1.0f : alphas[u];
            slope = y != y ? y : slope;
            own.alpha[at] = fma(grad, positive ? 0.0f : y, own.alpha[at]);
            own.output[at] = fma(grad_score[row_of(r)], y < 0.0f ? below : y, own.output[at]);
            dx[r] = grad * slope;
        }
    }
#pragma unroll
    for (u32 u = 0; u < 4; u++) own.bias[4 * n + u] = dx[u / 2 * 4 + u % 2] + dx[u / 2 * 4 + u % 2 + 2];
}
