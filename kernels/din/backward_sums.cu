// Sums over the pairs of DIN's backward pass: gradients of weights, behaviours and candidates.
//
// din_backward_outer: Σ dy ⊗ x over the tiles of a later layer, 32 units and 32 inputs per block of 64 threads. A block takes `per_split`
//   tiles; `weight_parts` has a matrix for each split.
// din_backward_first: of the first layer, over `per_split` runs. With G_m = Σ_l dy ⊗ s_l and S_m = Σ_l dy of the run of a candidate, the
//   sums are Σ S_m ⊗ q_m, Σ G_m and Σ G_m·diag(q_m), the gradients of W_q + W_d (as far as they come from q), W_k − W_d and W_p.
//   `target_parts` gets (W_q + W_d)ᵀ·S_m + the columns of W_p ⊙ G_m, summed: the run's part of the candidate's gradient, one for every 32
//   units.
// din_backward_history: ds_l = Σ_m (w·grad_out + ((W_k − W_d) + W_p·diag(q))ᵀ·dy) over the candidates of the user, in order.
// din_backward_targets: adds up the parts of a candidate, in the order of the history.
// din_backward_sums: adds up rows of numbers, 64 at a time.
#include "din/backward.cuh"

enum : u32 {
    // Units and inputs of a block.
    OUTER = 32,
    // float4s from one staged row to the next: one more than it has, so that eight neighbouring rows are in different banks.
    STAGED = QUADS + 1,
    // Columns of a block of din_backward_history, in float4s.
    COLUMNS4 = 16,
};

struct OuterMemory {
    Quad units[OUTER * STAGED], inputs[OUTER * STAGED];
    Quad targets[TILE_THREADS];
};

// Of a thread, which has units u, u + 8, u + 16, u + 24 and inputs j, j + 8, and so on: Σ dy ⊗ x and Σ dy.
struct Sums {
    float outer[4][4];
    float units[4];
};

// The part of a weight that a block computes.
struct Place {
    u32 first_unit, first_input, units, inputs;
};

__device__ __forceinline__ void stage(
    const DinBackwardParams &p, OuterMemory &memory, Place place, const float4 *grads, const float4 *inputs) {
    __syncthreads();
#pragma unroll
    for (u32 i = threadIdx.x; i < OUTER * QUADS; i += TILE_THREADS) {
        u32 row = i / QUADS, at = row * STAGED + i % QUADS;
        bool has_unit = place.first_unit + row < place.units, has_input = place.first_input + row < place.inputs;
        memory.units[at] = has_unit ? load_quad(grads + QUADS * place.first_unit + i) : Quad{};
        memory.inputs[at] = has_input ? load_quad(inputs + QUADS * place.first_input + i) : Quad{};
    }
    __syncthreads();
}

template <bool WITH_UNITS>
__device__ __forceinline__ void add_tile(const OuterMemory &memory, Sums &sums) {
    u32 u = threadIdx.x / 8, j = threadIdx.x % 8;
#pragma unroll
    for (u32 quad = 0; quad < QUADS; quad++) {
        Quad x[4];
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            x[b] = memory.inputs[(j + 8 * b) * STAGED + quad];
        }
#pragma unroll
        for (u32 a = 0; a < 4; a++) {
            Quad dy = memory.units[(u + 8 * a) * STAGED + quad];
#pragma unroll
            for (u32 b = 0; b < 4; b++) {
                sums.outer[a][b] += dot(dy, x[b]);
            }
            if (WITH_UNITS) {
                sums.units[a] += sum_of(dy);
            }
        }
    }
}

__device__ __forceinline__ void write_part(
    const DinBackwardParams &p, Place place, u32 matrix, const float (&sums)[4][4]) {
    float *parts = p.weight_parts + (u64)matrix * place.units * place.inputs;
#pragma unroll
    for (u32 a = 0; a < 4; a++) {
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            u32 unit = place.first_unit + threadIdx.x / 8 + 8 * a, input = place.first_input + threadIdx.x % 8 + 8 * b;
            if (unit < place.units && input < place.inputs) {
                parts[unit * place.inputs + input] = sums[a][b];
            }
        }
    }
}

// The part of the candidate of run `run`, added up over the units of the block.
__device__ __forceinline__ void write_target(
    const DinBackwardParams &p, OuterMemory &memory, Place place, u32 run, const Sums &sums, bool counts) {
    const float *products = (const float *)(p.network + p.layers[0].weights) + 4 * place.units * place.inputs;
    const float *queries = products + place.units * place.inputs;
    u32 own_input = place.first_input + threadIdx.x % 8;
    Quad part = {};
#pragma unroll
    for (u32 a = 0; a < 4; a++) {
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            u32 unit = place.first_unit + threadIdx.x / 8 + 8 * a, input = own_input + 8 * b;
            if (counts && unit < place.units && input < place.inputs) {
                u32 at = unit * place.inputs + input;
                part.x[b] = fma(queries[at], sums.units[a], fma(products[at], sums.outer[a][b], part.x[b]));
            }
        }
    }
    memory.targets[threadIdx.x] = part;
    __syncthreads();
    if (threadIdx.x < 8) {
        Quad sum = {};
        for (u32 other = threadIdx.x; other < TILE_THREADS; other += 8) {
#pragma unroll
            for (u32 b = 0; b < 4; b++) {
                sum.x[b] += memory.targets[other].x[b];
            }
        }
        float *row = p.target_parts + ((u64)run * p.unit_groups + place.first_unit / OUTER) * place.inputs;
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            if (own_input + 8 * b < place.inputs) {
                row[own_input + 8 * b] = sum.x[b];
            }
        }
    }
}

__device__ __forceinline__ Place place_of(const DinBackwardParams &p, u32 inputs4) {
    u32 input_group = blockIdx.x % p.input_groups, unit_group = blockIdx.x / p.input_groups % p.unit_groups;
    return {OUTER * unit_group, OUTER * input_group, 4 * p.layers[p.layer].units4, 4 * inputs4};
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS) din_backward_outer(const DinBackwardParams p) {
    __shared__ OuterMemory memory;
    const DinBackwardLayer &before = p.layers[p.layer - 1];
    const Place place = place_of(p, before.units4);
    u32 split = blockIdx.x / (p.input_groups * p.unit_groups);
    Sums all = {};
    for (u32 tile = split * p.per_split; tile < min((split + 1) * p.per_split, p.items); tile++) {
        const float4 *from = p.work + (u64)tile * p.tile;
        stage(p, memory, place, from + p.layers[p.layer].before, from + before.after);
        Sums own = {};
        add_tile<false>(memory, own);
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            all.outer[i / 4][i % 4] += own.outer[i / 4][i % 4];
        }
    }
    write_part(p, place, split, all.outer);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS) din_backward_first(const DinBackwardParams p) {
    __shared__ OuterMemory memory;
    const Place place = place_of(p, p.width4);
    u32 split = blockIdx.x / (p.input_groups * p.unit_groups);
    float of_queries[4][4] = {}, of_behaviours[4][4] = {}, of_pairs[4][4] = {};
    for (u32 run = split * p.per_split; run < min((split + 1) * p.per_split, p.items); run++) {
        const DinPiece piece = p.pieces[piece_of<&DinPiece::first_run>(p, run)];
        u32 own = run - piece.first_run, tiles = tiles_per_run(piece), first = piece.first_tile + own * tiles;
        Sums sums = {};
        for (u32 tile = first; tile < first + tiles; tile++) {
            const float4 *from = p.work + (u64)tile * p.tile;
            stage(p, memory, place, from + p.layers[0].before, from);
            add_tile<true>(memory, sums);
        }
        u32 m = piece.first_target + own;
        // Without any behaviour that is not removed, the candidate adds nothing, whatever it holds.
        bool counts = !p.softmax || load_quad(p.states + m).x[1] != 0.0f;
        const float *q = (const float *)(p.candidates + (u64)m * p.candidate);
#pragma unroll
        for (u32 b = 0; b < 4; b++) {
            u32 input = place.first_input + threadIdx.x % 8 + 8 * b;
            float x = counts && input < place.inputs ? q[input] : 0.0f;
#pragma unroll
            for (u32 a = 0; a < 4; a++) {
                of_queries[a][b] = fma(sums.units[a], x, of_queries[a][b]);
                of_behaviours[a][b] += sums.outer[a][b];
                of_pairs[a][b] = fma(sums.outer[a][b], x, of_pairs[a][b]);
            }
        }
        if (p.wants_targets) {
            write_target(p, memory, place, run, sums, counts);
        }
    }
    write_part(p, place, 3 * split, of_queries);
    write_part(p, place, 3 * split + 1, of_behaviours);
    write_part(p, place, 3 * split + 2, of_pairs);
}

// Adds what a candidate gives four behaviours, in four columns.
__device__ __forceinline__ void add_candidate(
    const DinBackwardParams &p, u32 tile, const float4 *candidate, u32 column4, u32 quad, Quad (&sums)[4]) {
    const DinBackwardLayer &layer = p.layers[0];
    u32 size = 4 * p.width4 * layer.units4;
    const float4 *keys = p.network + layer.weights + 3 * size + column4;
    const float4 *grads = p.work + (u64)tile * p.tile + layer.before + quad;
    Quad q = load_quad(candidate + column4), grad_out = load_quad(candidate + p.width4 + column4);
    Quad own[4] = {};
    for (u32 unit = 0; unit < layer.units; unit++) {
        Quad w = load_quad(keys + unit * p.width4), product = load_quad(keys + unit * p.width4 + size);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            w.x[e] = fma(q.x[e], product.x[e], w.x[e]);
        }
        add_outer(own, load_quad(grads + QUADS * unit), w);
    }
    Quad weight = load_quad(p.pair_numbers + 8 * (u64)tile + quad);
    Quad kept = load_quad(p.pair_numbers + 8 * (u64)tile + QUADS + quad);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            // Nothing of a pair that is removed, whatever the candidate holds.
            if (kept.x[i] > 0.0f) {
                sums[i].x[c] += fma(weight.x[i], grad_out.x[c], own[i].x[c]);
            }
        }
    }
}

// A block has 64 columns of 16 behaviours, a thread four of both. Blocks of users without candidates are zeros. Where the candidates
// of a user are in several parts, all but the last leave sums in `carried`, and all but the first add to these.
template <typename T>
__device__ __forceinline__ void history(const DinBackwardParams &p) {
    u32 column4 = blockIdx.x % p.input_groups * COLUMNS4 + threadIdx.x % COLUMNS4, quad = threadIdx.x / COLUMNS4;
    if (column4 >= p.width4) {
        return;
    }
    u32 block = blockIdx.x / p.input_groups;
    const DinPiece piece = p.pieces[piece_of<&DinPiece::first_block>(p, block)];
    u32 own = block - piece.first_block, first = 16 * own + 4 * quad;
    Quad sums[4] = {};
    for (u32 m = 0; m < piece.targets; m++) {
        u32 tile = piece.first_tile + m * tiles_per_run(piece) + own;
        add_candidate(p, tile, p.candidates + (u64)(piece.first_target + m) * p.candidate, column4, quad, sums);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            u32 column = 4 * column4 + c;
            if (first + i < piece.rows && column < p.width) {
                u64 at = (u64)(piece.first_row + first + i) * p.width + column;
                float value = sums[i].x[c] + (p.adds ? p.carried[at] : 0.0f);
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

#define VARIANTS(T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS) din_backward_history_##T(const DinBackwardParams p) { \
        history<T>(p);                                                                                               \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
