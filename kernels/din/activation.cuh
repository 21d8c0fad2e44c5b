// The activations in DIN's backward pass, of a tile of 8 units.
#pragma once
#include "din/products.cuh"

// This lane's of a layer's vector: bias, gain, shift, alpha, output weight.
__device__ __forceinline__ const float *vector_of(
    const DinBackwardParams &p, const DinBackwardLayer &layer, u32 vector, u32 tile) {
    return (const float *)(p.network + layer.vectors + vector * layer.units4) + tile * 8 + threadIdx.x % 4 * 2;
}

__device__ __forceinline__ float sigmoid(float x) {
    // 1/inf is 0, so large negative numbers need no special case.
    return reciprocal_approx(1.0f + exp_approx(-x));
}

// Activates a tile of 8 units. `vector` is this lane's of the layer's vectors: bias, gain, shift, alpha, of `padded` numbers each.
// Comparisons instead of fmaxf keep NaN.
__device__ __forceinline__ void activate_units(float (&c)[4], u32 activation, const float *vector, u32 padded) {
    if (activation == RELU) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = c[r] < 0.0f ? 0.0f : c[r];
    } else if (activation == SIGMOID) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = sigmoid(c[r]);
    } else {
        const float2 alphas = load_two(vector + 3 * padded);
        if (activation == PRELU) {
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const float alpha = r % 2 == 0 ? alphas.x : alphas.y;
                c[r] = c[r] < 0.0f ? alpha * c[r] : c[r];
            }
        } else {
            const float2 gains = load_two(vector + padded), shifts = load_two(vector + 2 * padded);
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const bool even = r % 2 == 0;
                const float gate = sigmoid(fma(even ? gains.x : gains.y, c[r], even ? shifts.x : shifts.y));
                c[r] *= fma(even ? alphas.x : alphas.y, 1.0f - gate, gate);
            }
        }
    }
}

// Sets numbers of units past the last to 0.
__device__ __forceinline__ void clear_padding(const DinBackwardLayer &layer, u32 tile, float (&c)[4]) {
    if (8 * tile + 8 <= layer.units) return;
    const u32 unit = 8 * tile + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 r = 0; r < 4; r++) c[r] = unit + r % 2 < layer.units ? c[r] : 0.0f;
}

__device__ __forceinline__ void activate(const DinBackwardParams &p, const DinBackwardLayer &layer, u32 tile, float (&c)[4]) {
    activate_units(c, layer.activation, vector_of(p, layer, 0, tile), 4 * layer.units4);
    clear_padding(layer, tile, c);
}

// Of the two units of this lane, in sum over its two pairs: the gradients of bias, alpha, gain and shift.
struct UnitSums {
    float2 bias, alpha, gain, shift;
};

// The gradients of a tile of 8 units from those of its outputs, `dx`, which dy replaces.
__device__ __forceinline__ UnitSums activate_backward(
    const DinBackwardParams &p, const DinBackwardLayer &layer, u32 tile, const float (&before)[4], float (&dx)[4]) {
    float2 alphas = {}, gains = {}, shifts = {};
    if (layer.activation >= PRELU) alphas = load_two(vector_of(p, layer, 3, tile));
    if (layer.activation == DICE) {
        gains = load_two(vector_of(p, layer, 1, tile));
        shifts = load_two(vector_of(p, layer, 2, tile));
    }
    float sums[4][2] = {};
#pragma unroll
    for (u32 r = 0; r < 4; r++) {
        const u32 u = r % 2;
        const float alpha = u == 0 ? alphas.x : alphas.y, gain = u == 0 ? gains.x : gains.y;
        const float y = before[r], own = dx[r];
        float slope;
        if (layer.activation == SIGMOID) {
            slope = sigmoid(y) * sigmoid(-y);
        } else if (layer.activation == DICE) {
            const float z = fma(gain, y, u == 0 ? shifts.x : shifts.y), s = sigmoid(z), other = sigmoid(-z);
            const float product = s * other * (1.0f - alpha);
            slope = fma(y * product, gain, fma(alpha, other, s));
            sums[1][u] = fma(own, y * other, sums[1][u]);
            // In this order, because y² may be infinite where the product is 0.
            sums[2][u] = fma(own, y * (y * product), sums[2][u]);
            sums[3][u] = fma(own, y * product, sums[3][u]);
        } else {
            slope = y > 0.0f ? 1.0f : y != y ? y
                                             : alpha;
            sums[1][u] = fma(own, y > 0.0f ? 0.0f : y, sums[1][u]);
        }
        dx[r] = own * slope;
        sums[0][u] += dx[r];
    }
    return {{sums[0][0], sums[0][1]}, {sums[1][0], sums[1][1]}, {sums[2][0], sums[2][1]}, {sums[3][0], sums[3][1]}};
}
