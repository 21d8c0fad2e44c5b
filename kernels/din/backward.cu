// DIN's backward pass: lays out the network, prepares candidates, adds up softmax states and statistics, writes gradients.
//
// The pass computes the pairs of candidate and behaviour in parts of bounded memory, one after the other. backward_pairs.cu computes
// the network forwards and backwards for 16 behaviours and a candidate at a time, and leaves the inputs of the layers and the gradients
// before their activations in memory; backward_sums.cu adds these up. Parts add to what earlier ones left, in their order.
#include "din/backward.cuh"

// Stores the parts of the weight in row `row` and column `column` of a matrix of `columns` columns, in fragments of two tiles of 8 columns,
// [row / 16][column / 16][part][lane][tile][half].
template <u32 PARTS>
__device__ __forceinline__ void store_weight(float4 *fragments, u32 row, u32 column, u32 columns, float weight) {
    u32 lane = column % 8 * 4 + row % 8 / 2, fragment = row / 16 * (columns / 16) + column / 16;
    u16 *to = (u16 *)(fragments + fragment * PARTS * WARP + lane) + column % 16 / 8 * 4 + row % 16 / 8 * 2 + row % 2;
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
        // Truncated but for the last, because rounding could overflow.
        to[part * WARP * 8] = part + 1 < PARTS ? (u16)(__float_as_uint(weight) >> 16) : narrow<bf16>(weight).bits;
        weight = rest(weight);
    }
}

// Every weight of a layer has a thread; the first also store what units have besides, and the last layer the output bias.
template <typename T>
__device__ __forceinline__ void fold(const DinBackwardParams &p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    const u32 i = p.layer;
    const DinBackwardLayer &layer = p.layers[i];
    u32 inputs = i == 0 ? p.width : p.layers[i - 1].units;
    u32 inputs_padded = (inputs + 15) / 16 * 16, units_padded = layer.units4 * 4;
    float *network = (float *)p.network;
    if (index < units_padded) {
        u32 unit = (u32)index;
        float values[5] = {};
        if (unit < layer.units) {
            values[0] = ((const float *)p.biases[i])[unit];
            if (layer.activation == DICE) {
                values[1] = ((const float *)p.gains[i])[unit];
                values[2] = ((const float *)p.shifts[i])[unit];
            }
            if (layer.activation >= PRELU) {
                values[3] = ((const float *)p.alphas[i])[layer.alpha_shared ? 0 : unit];
            }
            if (i + 1 == p.layer_count) {
                values[4] = widen(((const T *)p.output_weight)[unit]);
            }
        }
#pragma unroll
        for (u32 v = 0; v < 5; v++) {
            network[4 * layer.vectors + v * units_padded + unit] = values[v];
        }
    }
    if (index == 0 && i + 1 == p.layer_count) {
        store_quad(p.network + p.output_bias_place, Quad{{*p.output_bias, 0.0f, 0.0f, 0.0f}});
    }
    u32 unit = (u32)(index / inputs_padded), k = (u32)(index % inputs_padded);
    bool live = unit < layer.units && k < inputs;
    const T *weight = (const T *)p.weights[i];
    float4 *forward = p.network + layer.forward, *back = p.network + layer.back;
    if (i > 0) {
        float value = live ? widen(weight[(u64)unit * inputs + k]) : 0.0f;
        store_weight<BackwardParts<T>::WEIGHT>(forward, k, unit, units_padded, value);
        store_weight<BackwardParts<T>::WEIGHT>(back, unit, k, inputs_padded, value);
        return;
    }
    float query = 0.0f, key = 0.0f, product = 0.0f;
    if (live) {
        const T *row = weight + (u64)unit * 4 * inputs + k;
        float difference = widen(row[2 * inputs]);
        query = widen(row[0]) + difference;
        key = widen(row[inputs]) - difference;
        product = widen(row[3 * inputs]);
    }
    float *first = network + 4 * p.first_weights;
    u32 size = inputs_padded * units_padded, by_unit = unit * inputs_padded + k;
    first[k * units_padded + unit] = query;
    first[size + by_unit] = product;
    first[2 * size + by_unit] = query;
    store_weight<BackwardParts<T>::WEIGHT>(forward, k, unit, units_padded, product);
    store_weight<BackwardParts<T>::WEIGHT>(back, unit, k, inputs_padded, product);
    store_weight<BackwardParts<T>::DIFFERENCE>(p.network + p.difference, k, unit, units_padded, key);
    store_weight<BackwardParts<T>::DIFFERENCE>(p.network + p.difference_back, unit, k, inputs_padded, key);
}

template <typename T>
__device__ __forceinline__ Quad load_row(const T *row, u32 first, u32 width) {
    Quad out = {};
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        if (first + e < width) {
            out.x[e] = widen(row[first + e]);
        }
    }
    return out;
}

// candidates[m,:] = [q ; gradient of the output ; (W_q + W_d)·q + b₁]: a thread for each float4.
template <typename T>
__device__ __forceinline__ void candidates(const DinBackwardParams &p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    u32 m = (u32)(index / p.candidate), column4 = (u32)(index % p.candidate);
    const T *q = (const T *)p.targets + (u64)m * p.width;
    Quad out = {};
    if (column4 < p.width4) {
        out = load_row(q, 4 * column4, p.width);
    } else if (column4 < 2 * p.width4) {
        if (p.grad_out) {
            out = load_row((const T *)p.grad_out + (u64)m * p.width, 4 * (column4 - p.width4), p.width);
        }
    } else {
        const DinBackwardLayer &layer = p.layers[0];
        u32 unit4 = column4 - 2 * p.width4;
        const float4 *queries = p.network + p.first_weights + unit4;
        out = load_quad(p.network + layer.vectors + unit4);
        for (u32 k = 0; k < p.width; k++) {
            float x = widen(q[k]);
            Quad w = load_quad(queries + k * layer.units4);
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                out.x[e] = fma(x, w.x[e], out.x[e]);
            }
        }
    }
    store_quad(p.candidates + index, out);
}

// Softmax states: the largest score a, Σ exp(a − largest), Σ exp(a − largest)·dw with dw = ⟨grad_out, s⟩. A score of -∞ removes
// a pair. Of a run, from what backward_pairs.cu left; a thread for each.
extern "C" __global__ void __launch_bounds__(THREADS) din_backward_run_states(const DinBackwardParams p) {
    u64 run = thread_of_grid();
    if (run >= p.threads) {
        return;
    }
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_run>(p, (u32)run)];
    u32 tiles = tiles_per_run(piece);
    const float4 *scores = p.pair_numbers + 8 * (u64)(piece.first_tile + ((u32)run - piece.first_run) * tiles);
    float most = -infinity();
    for (u32 i = 0; i < 4 * tiles; i++) {
        Quad score = load_quad(scores + 8 * (i / 4) + i % 4);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            most = fmaxf(most, score.x[e]);
        }
    }
    float base = base_of(most);
    Quad sums = {}, weighted = {};
    for (u32 i = 0; i < 4 * tiles; i++) {
        const float4 *at = scores + 8 * (i / 4) + i % 4;
        Quad score = load_quad(at), grad = load_quad(at + 4);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            if (score.x[e] != -infinity()) {
                float exponential = exp_approx(score.x[e] - base);
                sums.x[e] += exponential;
                weighted.x[e] = fma(exponential, grad.x[e], weighted.x[e]);
            }
        }
    }
    store_quad(p.run_states + run, Quad{{most, sum_of(sums), sum_of(weighted), 0.0f}});
}

// Of a candidate: those of its runs in the order of the history, after the state that earlier parts left. A thread for each.
extern "C" __global__ void __launch_bounds__(THREADS) din_backward_states(const DinBackwardParams p) {
    u64 m = thread_of_grid();
    if (m >= p.threads) {
        return;
    }
    const DinUser user = user_of(p, (u32)m);
    u32 own = (u32)m - user.first_target;
    if (own >= user.targets) {
        return;
    }
    Quad all = {{-infinity(), 0.0f, 0.0f, 0.0f}};
    if (!p.pieces[user.first_piece].starts) {
        all = load_quad(p.states + m);
    }
    for (u32 i = 0; i < user.pieces; i++) {
        Quad run = load_quad(p.run_states + p.pieces[user.first_piece + i].first_run + own);
        float most = fmaxf(all.x[0], run.x[0]), base = base_of(most);
        float before = exp_approx(all.x[0] - base), now = exp_approx(run.x[0] - base);
        all = Quad{{most, fma(all.x[1], before, run.x[1] * now), fma(all.x[2], before, run.x[2] * now), 0.0f}};
    }
    store_quad(p.states + m, all);
}

// Merges statistics: means, sums of squared distances and counts of up to 64 entries, in order, after those of `before` numbers.
// An entry has 2·units4 + 1 float4s. A thread for four units of 64 entries.
// Formula: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1982.
extern "C" __global__ void __launch_bounds__(THREADS) din_backward_moments(const DinBackwardParams p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    u32 units4 = p.layers[p.layer].units4;
    u32 group = (u32)(index / units4), unit4 = (u32)(index % units4), stride = 2 * units4 + 1;
    float4 *to = (float4 *)p.to + (u64)group * stride;
    Quad mean = {}, squares = {};
    float count = p.before;
    if (count > 0.0f) {
        mean = load_quad(to + unit4);
        squares = load_quad(to + units4 + unit4);
    }
    for (u32 row = ROWS_PER_SUM * group; row < min(ROWS_PER_SUM * (group + 1), p.rows); row++) {
        const float4 *from = (const float4 *)p.from + (u64)row * stride;
        Quad more = load_quad(from + unit4), more_squares = load_quad(from + units4 + unit4);
        float own = from[2 * units4].x, all = count + own;
        if (count == 0.0f) {
            mean = more;
            squares = more_squares;
        } else {
            float share = own / all;
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                float distance = more.x[e] - mean.x[e];
                mean.x[e] = fma(distance, share, mean.x[e]);
                squares.x[e] += more_squares.x[e] + distance * distance * (count * share);
            }
        }
        count = all;
    }
    store_quad(to + unit4, mean);
    store_quad(to + units4 + unit4, squares);
    if (unit4 == 0) {
        store_quad(to + 2 * units4, Quad{{count, count, count, count}});
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) din_backward_clear(const DinBackwardParams p) {
    u64 index = thread_of_grid();
    if (index < p.threads) {
        ((float *)p.to)[index] = 0.0f;
    }
}

// Writes rows of `rows` numbers from the sums at `from`, rows of `stride` numbers.
enum : u32 {
    // As they are.
    AS_THEY_ARE = 0,
    // [W_q, W_k, W_d, W_p] from the sums of W_q + W_d, W_k − W_d and W_p, each of `items` numbers: the gradient of W_d is that of W_q
    // minus that of W_k.
    FIRST_LAYER = 1,
    // The sum of `items` numbers, for what units share.
    ADDED_UP = 2,
};

template <typename T>
__device__ __forceinline__ void write(const DinBackwardParams &p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    u64 row = index / p.rows;
    u32 column = (u32)(index % p.rows);
    const float *sums = (const float *)p.from + row * p.stride;
    float value = 0.0f;
    if (p.mode == AS_THEY_ARE) {
        value = sums[column];
    } else if (p.mode == ADDED_UP) {
        for (u32 i = 0; i < p.items; i++) {
            value += sums[i];
        }
    } else {
        u32 inputs = p.rows / 4, matrix = column / inputs;
        sums += column % inputs;
        float query = sums[0], key = sums[p.items];
        value = matrix == 0 ? query : matrix == 1 ? key
                                  : matrix == 2   ? query - key
                                                  : sums[2 * (u64)p.items];
    }
    if (p.narrow) {
        ((T *)p.to)[index] = narrow<T>(value);
    } else {
        ((float *)p.to)[index] = value;
    }
}

#define VARIANTS(T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) din_backward_fold_##T(const DinBackwardParams p) { fold<T>(p); } \
    extern "C" __global__ void __launch_bounds__(THREADS) din_backward_candidates_##T(const DinBackwardParams p) {         \
        candidates<T>(p);                                                                                                  \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) din_backward_write_##T(const DinBackwardParams p) { write<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
