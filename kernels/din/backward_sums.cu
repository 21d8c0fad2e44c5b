// Sums over the pairs of DIN's backward pass: gradients of weights, behaviours and candidates. A warp is a block. Precision: that of float,
// on matrix units, see din.cu.
//
// din_backward_outer: Σ dy ⊗ x over the tiles of a later layer, 32 units and 32 inputs per block. A block takes `per_split` tiles;
//   `weight_parts` has a matrix for each split.
// din_backward_first: of the first layer, over `per_split` runs. With G_m = Σ_l dy ⊗ s_l and S_m = Σ_l dy of the run of a candidate, the
//   sums are Σ S_m ⊗ q_m, Σ G_m and Σ G_m·diag(q_m), the gradients of W_q + W_d (as far as they come from q), W_k − W_d and W_p.
//   `target_parts` gets (W_q + W_d)ᵀ·S_m + the columns of W_p ⊙ G_m, summed: the run's part of the candidate's gradient, one for every 32
//   units.
// din_backward_history: ds_l = Σ_m (w·grad_out + q ⊙ W_pᵀ·dy) + (W_k − W_d)ᵀ·Σ_m dy over the candidates of the user, in order.
// din_backward_targets: adds up the parts of a candidate, in the order of the history.
// din_backward_sums: adds up rows of numbers, 64 at a time.
#include "din/products.cuh"

enum : u32 {
    // Units and inputs of a block, and tiles that are added up before their sum is added to that of others.
    OUTER = 32,
    CHAIN = 16,
};

// Of 32 units and 32 inputs: Σ dy ⊗ x, a tile of 16 × 8 for every 16 units and 8 inputs.
typedef float Outer[2][4][4];

// The part of a weight that a block computes.
struct Place {
    u32 first_unit, first_input, units, inputs;
};

__device__ __forceinline__ Place place_of(const DinBackwardParams &p, u32 inputs4) {
    const u32 input_group = blockIdx.x % p.input_groups, unit_group = blockIdx.x / p.input_groups % p.unit_groups;
    return {OUTER * unit_group, OUTER * input_group, 4 * p.layers[p.layer].units4, 4 * inputs4};
}

// Zeros where pairs are removed, whatever their behaviour holds.
template <u32 PARTS>
__device__ __forceinline__ void clear_removed(uint2 kept, u32 (&parts)[PARTS][4]) {
    u32 shift = threadIdx.x % 4 * 8;
    // Pairs are rarely removed: nothing of this is to be computed before it is known.
    asm volatile("" : "+r"(shift));
    const u32 upper = (kept.x >> shift & 1 ? 0xffffu : 0) | (kept.x >> shift & 16 ? 0xffff0000u : 0);
    const u32 lower = (kept.y >> shift & 1 ? 0xffffu : 0) | (kept.y >> shift & 16 ? 0xffff0000u : 0);
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) parts[i][r] &= r < 2 ? upper : lower;
    }
}

// Whether the pair of row lane / 4 is kept, of those of half a tile.
__device__ __forceinline__ bool counts_row(u32 kept) { return (kept >> threadIdx.x / 4 * 4 & 1) != 0; }

// Adds a tile, and with `units` also Σ dy, of which all columns are the same. `grads` and `inputs` are turned.
template <u32 GRAD, u32 INPUT, bool WITH_UNITS>
__device__ __forceinline__ void add_tile(const DinBackwardParams &p, Place place, u32 tile, const float4 *grads,
                                         const float4 *inputs, Outer &outer, float (&units)[2][4]) {
    constexpr u32 KEPT = GRAD > INPUT ? GRAD : INPUT;
    const uint2 kept = __ldg((const uint2 *)(p.pair_numbers + PAIR_NUMBERS * u64(tile) + 4));
    // Inputs 16 at a time, and the gradients again for each: registers are short.
#pragma unroll
    for (u32 b = 0; b < 2; b++) {
        if (place.first_input + 16 * b < place.inputs) {
            u32 x[INPUT][4];
            load_parts(x, (const Vector *)inputs + (place.first_input / 16 + b) * INPUT * WARP);
            if ((kept.x & kept.y) != WHOLE_WARP) clear_removed(kept, x);
#pragma unroll
            for (u32 a = 0; a < 2; a++) {
                if (place.first_unit + 16 * a < place.units) {
                    u32 dy[GRAD][4];
                    load_parts(dy, (const Vector *)grads + (place.first_unit / 16 + a) * GRAD * WARP);
#pragma unroll
                    for (u32 i = 0; i < GRAD * INPUT; i++) {
                        const u32 g = i / INPUT, w = i % INPUT;
                        // Products of two small parts are below the last place.
                        if (g + w < KEPT) {
                            const u32 low[2] = {x[w][0], x[w][2]}, high[2] = {x[w][1], x[w][3]};
                            multiply_add<bf16>(outer[a][2 * b], dy[g], low);
                            multiply_add<bf16>(outer[a][2 * b + 1], dy[g], high);
                        }
                    }
                    if (WITH_UNITS && b == 0) {
                        const u32 ones[2] = {0x3f803f80, 0x3f803f80};
#pragma unroll
                        for (u32 g = 0; g < GRAD; g++) multiply_add<bf16>(units[a], dy[g], ones);
                    }
                }
            }
        }
    }
}

__device__ __forceinline__ void write_part(const DinBackwardParams &p, Place place, u32 matrix, const Outer &sums) {
    const u32 unit = place.first_unit + threadIdx.x / 4, input = place.first_input + threadIdx.x % 4 * 2;
    float *row = p.weight_parts + ((u64)matrix * place.units + unit) * place.inputs + input;
    // Units and inputs are padded to 16.
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 a = i / 2, half = i % 2;
        if (a == 0 || place.first_unit + 16 * a < place.units) {
#pragma unroll
            for (u32 b = 0; b < 4; b++) {
                const float2 two = {sums[a][b][2 * half], sums[a][b][2 * half + 1]};
                if (b < 2 || place.first_input + 8 * b < place.inputs) *(float2 *)(row + 8 * b) = two;
            }
        }
        row += 8 * place.inputs;
    }
}

// The part of the candidate of run `run`, added up over the units of the block.
__device__ __forceinline__ void write_target(const DinBackwardParams &p, Place place, u32 run, const Outer &outer,
                                             const float (&units)[2][4], bool counts) {
    const u32 unit = place.first_unit + threadIdx.x / 4, input = place.first_input + threadIdx.x % 4 * 2;
    const float *products = (const float *)(p.network + p.first_weights) + (place.units + unit) * place.inputs + input;
    const float *queries = products + place.units * place.inputs;
    float sums[8] = {};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 a = i / 2, half = i % 2;
        if (counts && (a == 0 || place.first_unit + 16 * a < place.units)) {
#pragma unroll
            for (u32 b = 0; b < 4; b++) {
                if (b < 2 || place.first_input + 8 * b < place.inputs) {
                    // Plain loads, which wait for the row's stores: with all of them at once registers would be short.
                    const float2 product = *(const float2 *)(products + 8 * b), query = *(const float2 *)(queries + 8 * b);
                    float &x = sums[2 * b], &y = sums[2 * b + 1];
                    x = fma(query.x, units[a][2 * half], fma(product.x, outer[a][b][2 * half], x));
                    y = fma(query.y, units[a][2 * half], fma(product.y, outer[a][b][2 * half + 1], y));
                }
            }
        }
        products += 8 * place.inputs;
        queries += 8 * place.inputs;
    }
    // Of 32 inputs, each lane gets one.
    const float sum = sum_one_of(sums);
    const u32 own = place.first_input + threadIdx.x / 8 * 8 + threadIdx.x % 4 * 2 + threadIdx.x / 4 % 2;
    float *row = p.target_parts + ((u64)run * p.unit_groups + place.first_unit / OUTER) * place.inputs;
    if (own < place.inputs) row[own] = sum;
}

template <typename T>
__device__ __forceinline__ void outer(const DinBackwardParams &p) {
    const DinBackwardLayer &layer = p.layers[p.layer];
    const Place place = place_of(p, p.layers[p.layer - 1].units4);
    const u32 split = blockIdx.x / (p.input_groups * p.unit_groups), end = min((split + 1) * p.per_split, p.items);
    Outer all = {};
#pragma unroll 1
    for (u32 first = split * p.per_split; first < end; first += CHAIN) {
        Outer own = {};
        float none[2][4] = {};
#pragma unroll 1
        for (u32 tile = first; tile < min(first + CHAIN, end); tile++) {
            const float4 *from = p.work + (u64)tile * p.tile;
            add_tile<BackwardParts<T>::INPUT, BackwardParts<T>::INPUT, false>(p, place, tile, from + layer.grads, from + layer.inputs, own, none);
        }
#pragma unroll
        for (u32 i = 0; i < 32; i++) all[i / 16][i / 4 % 4][i % 4] += own[i / 16][i / 4 % 4][i % 4];
    }
    write_part(p, place, split, all);
}

template <typename T>
__device__ __forceinline__ void first(const DinBackwardParams &p) {
    const Place place = place_of(p, p.width4);
    const u32 split = blockIdx.x / (p.input_groups * p.unit_groups), end = min((split + 1) * p.per_split, p.items);
    Outer of_queries = {}, of_behaviours = {}, of_pairs = {};
#pragma unroll 1
    for (u32 run = split * p.per_split; run < end; run++) {
        const DinPiece piece = p.pieces[piece_of<&DinPiece::first_run>(p, run)];
        const u32 own = run - piece.first_run, tiles = tiles_per_run(piece), first = piece.first_tile + own * tiles;
        const float4 *blocks = p.blocks + (u64)piece.first_block * p.block + p.block_turned;
        Outer outer = {};
        float units[2][4] = {};
        // Some lanes have just stored a candidate's part.
        __syncwarp();
#pragma unroll 1
        for (u32 i = 0; i < tiles; i++) {
            const float4 *grads = p.work + (u64)(first + i) * p.tile + p.layers[0].grads;
            add_tile<BackwardParts<T>::INPUT, BackwardParts<T>::WEIGHT, true>(
                p, place, first + i, grads, blocks + (u64)i * p.block, outer, units);
        }
        const u32 m = piece.first_target + own;
        // Without any behaviour that is not removed, the candidate adds nothing, whatever it holds.
        const bool counts = !p.softmax || load_quad(p.states + m).x[1] != 0.0f;
        const float *q = (const float *)(p.candidates + (u64)m * p.candidate);
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            const u32 input = place.first_input + 8 * b + threadIdx.x % 4 * 2;
            const float2 x = counts && input < place.inputs ? load_two(q + input) : float2{};
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                const u32 a = i / 4, r = i % 4;
                const float own = r % 2 == 0 ? x.x : x.y;
                of_queries[a][b][r] = fma(units[a][r], own, of_queries[a][b][r]);
                of_behaviours[a][b][r] += outer[a][b][r];
                of_pairs[a][b][r] = fma(outer[a][b][r], own, of_pairs[a][b][r]);
            }
        }
        if (p.wants_targets) write_target(p, place, run, outer, units, counts);
    }
    write_part(p, place, 3 * split, of_queries);
    write_part(p, place, 3 * split + 1, of_behaviours);
    write_part(p, place, 3 * split + 2, of_pairs);
}

// Adds what a candidate gives the behaviours, in 32 columns, but for (W_k − W_d)ᵀ·dy. `kept` are the tile's pairs.
template <typename T>
__device__ __forceinline__ void add_candidate(
    const DinBackwardParams &p, u32 tile, uint2 kept, const float *candidate, u32 pair, Sums &sums) {
    const DinBackwardLayer &layer = p.layers[0];
    const Vector *grads = (const Vector *)(p.work + (u64)tile * p.tile);
    const u32 steps = layer.units4 / 4, pairs = p.width4 / 4;
    Sums own = {};
    multiply<BackwardParts<T>::WEIGHT, BackwardParts<T>::INPUT>(own, grads, steps, p.network + layer.back, pairs, pair);
    const float *q = candidate + 16 * pair + threadIdx.x % 4 * 2, *grad_out = q + 4 * p.width4;
    const float *weights = (const float *)(p.pair_numbers + PAIR_NUMBERS * (u64)tile) + threadIdx.x / 4;
    const float weight[2] = {weights[0], weights[8]};
#pragma unroll
    for (u32 n = 0; n < 2 * PAIRS; n++) {
        if (n < 2 || pair + n / 2 < pairs) {
            const float2 x = load_two(q + 8 * n), grad = load_two(grad_out + 8 * n);
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const float product = own[n][r] * (r % 2 == 0 ? x.x : x.y);
                own[n][r] = fma(weight[r / 2], r % 2 == 0 ? grad.x : grad.y, product);
            }
        }
    }
    if ((kept.x & kept.y) != WHOLE_WARP) {
        // Nothing of a pair that is removed, whatever the candidate holds.
        const bool counts[2] = {counts_row(kept.x), counts_row(kept.y)};
#pragma unroll
        for (u32 i = 0; i < 8 * PAIRS; i++) own[i / 4][i % 4] = counts[i % 4 / 2] ? own[i / 4][i % 4] : 0.0f;
    }
#pragma unroll
    for (u32 i = 0; i < 8 * PAIRS; i++) sums[i / 4][i % 4] += own[i / 4][i % 4];
}

// Adds (W_k − W_d)ᵀ·Σ_m dy of a block's behaviours, over tiles from `tile` on, `stride` apart. `seen` are the rows of which a pair is kept.
template <typename T>
__device__ __forceinline__ void add_difference(
    const DinBackwardParams &p, u32 tile, u32 stride, u32 targets, uint2 seen, u32 pair, Sums &sums) {
    constexpr u32 INPUT = BackwardParts<T>::INPUT;
    __shared__ Vector inputs[INPUT * WARP];
    const u32 steps = p.layers[0].units4 / 4, pairs = p.width4 / 4;
    // The unit matrix as weights: of tiles of 8 columns, numbers 2(l % 4) and 2(l % 4) + 1 of column l / 4.
    const u32 column = threadIdx.x / 4, one = column / 2 == threadIdx.x % 4 ? column % 2 == 0 ? 0x3f80u : 0x3f800000u : 0;
    const u32 low[2] = {one, 0}, high[2] = {0, one};
    Sums own = {};
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        float all[2][4] = {};
#pragma unroll 1
        for (u32 first = 0; first < targets; first += CHAIN) {
            float some[2][4] = {};
            const Vector *grads = (const Vector *)(p.work + (u64)(tile + first * stride) * p.tile) + step * INPUT * WARP;
#pragma unroll 1
            for (u32 m = min(targets - first, u32(CHAIN)); m > 0; m--) {
                u32 parts[INPUT][4];
                load_parts(parts, grads);
                grads += (u64)stride * p.tile;
#pragma unroll
                for (u32 i = 0; i < INPUT; i++) {
                    multiply_add<bf16>(some[0], parts[i], low);
                    multiply_add<bf16>(some[1], parts[i], high);
                }
            }
#pragma unroll
            for (u32 i = 0; i < 8; i++) all[i / 4][i % 4] += some[i / 4][i % 4];
        }
        u32 parts[INPUT][4];
        split_tiles<INPUT>(all[0], all[1], parts);
        store_parts(inputs, parts);
        const float4 *weights = p.network + p.difference_back + step * pairs * BackwardParts<T>::DIFFERENCE * WARP;
        multiply<BackwardParts<T>::DIFFERENCE, INPUT>(own, inputs, 1, weights, pairs, pair);
    }
    const bool counts[2] = {counts_row(seen.x), counts_row(seen.y)};
#pragma unroll
    for (u32 i = 0; i < 8 * PAIRS; i++) sums[i / 4][i % 4] += counts[i % 4 / 2] ? own[i / 4][i % 4] : 0.0f;
}

// A block has 32 columns of 16 behaviours. Blocks of users without candidates are zeros. Where the candidates of a user are in several
// parts, all but the last leave sums in `carried`, and all but the first add to these.
template <typename T>
__device__ __forceinline__ void history(const DinBackwardParams &p) {
    const u32 pair = blockIdx.x % p.input_groups * PAIRS, block = blockIdx.x / p.input_groups;
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_block>(p, block)];
    const u32 own = block - piece.first_block;
    const u32 first = piece.first_tile + own, stride = tiles_per_run(piece);
    uint2 seen = {};
    Sums sums = {};
#pragma unroll 1
    for (u32 m = 0; m < piece.targets; m++) {
        const u32 tile = first + m * stride;
        const uint2 kept = __ldg((const uint2 *)(p.pair_numbers + PAIR_NUMBERS * (u64)tile + 4));
        seen = {seen.x | kept.x, seen.y | kept.y};
        add_candidate<T>(p, tile, kept, (const float *)(p.candidates + (u64)(piece.first_target + m) * p.candidate), pair, sums);
    }
    if (piece.targets > 0) add_difference<T>(p, first, stride, piece.targets, seen, pair, sums);
#pragma unroll
    for (u32 i = 0; i < 8 * PAIRS; i++) {
        const u32 n = i / 4, r = i % 4;
        const u32 row = 16 * own + threadIdx.x / 4 + r / 2 * 8, column = 16 * pair + 8 * n + threadIdx.x % 4 * 2 + r % 2;
        if (row < piece.rows && column < p.width) {
            const u64 at = (u64)(piece.first_row + row) * p.width + column;
            const float value = sums[n][r] + (p.adds ? p.carried[at] : 0.0f);
            if (p.keeps) {
                p.carried[at] = value;
            } else if (p.narrow) {
                ((T *)p.to)[at] = narrow<T>(value);
            } else {
                ((float *)p.to)[at] = value;
            }
        }
    }
}

// A thread has one column of a candidate.
extern "C" __global__ void __launch_bounds__(THREADS) din_backward_targets(const DinBackwardParams p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    u32 m = (u32)(index / p.width), column = (u32)(index % p.width);
    const DinUser user = user_of(p, m);
    u32 own = m - user.first_target;
    if (own >= user.targets) {
        return;
    }
    float sum = 0.0f;
    for (u32 i = 0; i < user.pieces; i++) {
        u64 run = p.pieces[user.first_piece + i].first_run + own;
        for (u32 part = 0; part < p.unit_groups; part++) {
            sum += p.target_parts[(run * p.unit_groups + part) * 4 * p.width4 + column];
        }
    }
    p.target_totals[index] += sum;
}

// out[g,:] += Σ in[r,:] over 64 rows r from 64·g on, in order; without the + unless `adds`. A thread has four columns of `stride`.
extern "C" __global__ void __launch_bounds__(THREADS) din_backward_sums(const DinBackwardParams p) {
    u64 index = thread_of_grid();
    if (index >= p.threads) {
        return;
    }
    u32 group = (u32)(index / p.stride), column = (u32)(index % p.stride);
    Quad sum = {};
    for (u32 row = ROWS_PER_SUM * group; row < min(ROWS_PER_SUM * (group + 1), p.rows); row++) {
        Quad more = load_quad((const float4 *)p.from + (u64)row * p.stride + column);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            sum.x[e] += more.x[e];
        }
    }
    float4 *to = (float4 *)p.to + index;
    if (p.adds) {
        Quad before = load_quad(to);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            sum.x[e] += before.x[e];
        }
    }
    store_quad(to, sum);
}

#define VARIANTS(T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(WARP) din_backward_first_##T(const DinBackwardParams p) { first<T>(p); } \
    extern "C" __global__ void __launch_bounds__(WARP) din_backward_outer_##T(const DinBackwardParams p) { outer<T>(p); } \
    extern "C" __global__ void __launch_bounds__(WARP, 8) din_backward_history_##T(const DinBackwardParams p) { history<T>(p); }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
