// Gradients of target attention on matrix units: f16 and bf16, widths in multiples of 8 up to 128, rows aligned to 16 bytes.
// Formulas: backward_fma.cu.
//
// Grid: a block of four warps for each span of a history and key/value head. It owns the span: it reads its keys and values once and
//   writes their gradients once. Of BEHAVIOURS behaviours at a time, which cp.async brings into one of two stages, each warp has 16,
//   against ROWS query rows of the user (candidates × heads that share the key head). If ROWS hold all of them, they are loaded once
//   and their gradients stay in registers for the whole span; otherwise what a step adds to them is added to the span's partial
//   result, which this block alone accesses.
// Products: S = K·Qᵀ and dPᵀ = V·grad_outᵀ, 16 behaviours by ROWS for each warp. The history is the operand of height 16, so that
//   what a lane has of P and dS is what it must have of them as operands of dv = P·grad_out and dk = dS·Q, if the rows are numbered
//   suitably: position j of the sum is row 2j, position j + 4 row 2j + 1. For dqᵀ = Kᵀ·dS, each warp every fourth 16 columns, dS
//   passes through shared memory: the numbers of behaviours l and l + 8 of a warp, then what is left of each (below), 16 bytes.
// Precision: S and dP are products of stored numbers, exact, summed in f32. P and dS are f32: tf32, which holds every f16 and bf16,
//   has a fraction of 10 bits, so each is multiplied twice, as far as tf32 holds it and what is left: 21 bits or more together.
// Not finite: 0 times NaN or infinity, and the rest of an infinite number, are NaN, so where any sum is not finite the span is
//   computed again (backward_again.cuh).
#include "target_attention/backward_again.cuh"
#include "target_attention/backward_mma.cuh"

template <typename T, u32 CHUNK, u32 ROWS>
struct BackwardMma : BackwardMmaTiles<T, CHUNK, ROWS> {
    typedef BackwardMmaTiles<T, CHUNK, ROWS> Base;
    using Base::keys_source, Base::values_source, Base::heads, Base::behaviour_row, Base::at, Base::behaviour_of;
    using Base::kv_head, Base::warp, Base::lane, Base::queries, Base::states, Base::head_of, Base::place_of;
    using Base::needs_grads, Base::needs_weights, Base::tile_first, Base::rows, Base::first, Base::count, Base::poison;
    using Base::row_of, Base::grads_of, Base::keys, Base::values, Base::source, Base::load_history, Base::arrive;
    using Base::ROW_TILES, Base::COLUMN_TILES, Base::QUERY_TILES, Base::PITCH, Base::ROWS_BYTES, Base::p, Base::span;

    // ---- Scores ----------------------------------------------------------------------------------------------------

    // out[r]: the products of 16 behaviours and 8 rows.
    __device__ __forceinline__ void multiply(float (&out)[ROW_TILES][4], u32 history, u32 tile, u32 width) const {
        u32 row = warp * 16 + lane % 16;
        const u32 a_unit = at(row, lane / 16) % PITCH;
        history += row * PITCH;
        row = ROW_TILES == 1 ? lane % 8 : lane / 16 * 8 + lane % 8;
        const u32 b_unit = at(row, lane / 8 % 2) % PITCH, end = (width + 15) / 16 * 32;
        tile += row * PITCH;
#pragma unroll 2
        for (u32 k = 0; k < end; k += 32) {
            u32 a[4], b[4];
            load_matrices_4(a, history + (a_unit ^ k));
            u32 from = tile + (b_unit ^ k);
            if constexpr (ROW_TILES == 1) {
                load_matrices_2(b, from);
                multiply_add<T>(out[0], a, b);
            } else {
#pragma unroll
                for (u32 r = 0; r < ROW_TILES; r += 2) {
                    load_matrices_4(b, from + r * 8 * PITCH);
                    multiply_add<T>(out[r], a, b);
                    multiply_add<T>(out[r + 1], a, b + 2);
                }
            }
        }
    }

    // Turns products of queries and keys into scores.
    __device__ __forceinline__ void scale(float (&scores)[ROW_TILES][4]) const {
        if (p.bias == nullptr) {
#pragma unroll
            for (u32 n = 0; n < ROW_TILES * 4; n++) {
                scores[n / 4][n % 4] *= p.scale;
            }
            return;
        }
        const float *bias = p.bias + (span.history_start + first) * heads();
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 4; n++) {
            u32 l = behaviour_of(n % 4), row = row_of(n / 4, n % 4);
            float one = l < count && row < rows ? bias[(u64)l * heads() + head_of[row]] : 0.0f;
            scores[n / 4][n % 4] = fma(scores[n / 4][n % 4], p.scale, one);
        }
    }

    // Scores become weights, products of grad_out and values the gradients of scores. Rows that do not exist have a factor of 0.
    __device__ __forceinline__ void soft_weights(float (&scores)[ROW_TILES][4], float (&products)[ROW_TILES][4]) const {
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
#pragma unroll
            for (u32 side = 0; side < 2; side++) {
                RowState state;
                *(float4 *)&state = *(const float4 *)(states + row_of(r, side));
#pragma unroll
                for (u32 i = side; i < 4; i += 2) {
                    bool removed = scores[r][i] == -infinity();
                    float weight = exp_approx(scores[r][i] - state.shift) * state.factor;
                    float grad = weight * (products[r][i] - state.subtracted);
                    scores[r][i] = removed ? 0.0f : weight;
                    products[r][i] = removed ? 0.0f : grad;
                }
            }
        }
    }
    // The same without softmax: in a loop, by way of this thread's places of dS.
    __device__ __forceinline__ void plain_weights(float (&scores)[ROW_TILES][4], float (&products)[ROW_TILES][4]) const {
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 2; n++) {
            const float *s = scores[n / 2] + n % 2, *g = products[n / 2] + n % 2;
            *grads_of(warp, lane / 4, row_of(n / 2, n % 2)) = make_float4(s[0], s[2], g[0], g[2]);
        }
#pragma unroll 1
        for (u32 n = 0; n < ROW_TILES * 2; n++) {
            float4 *place = grads_of(warp, lane / 4, row_of(n / 2, n % 2));
            float4 four = *place;
            float2 low = weight_and_slope(p, span, four.x), high = weight_and_slope(p, span, four.y);
            bool low_removed = four.x == -infinity() && p.weighting != IDENTITY;
            bool high_removed = four.y == -infinity() && p.weighting != IDENTITY;
            *place = make_float4(low_removed ? 0.0f : low.x, high_removed ? 0.0f : high.x, low_removed ? 0.0f : low.y * four.z,
                                 high_removed ? 0.0f : high.y * four.w);
        }
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 2; n++) {
            float4 four = *grads_of(warp, lane / 4, row_of(n / 2, n % 2));
            float *s = scores[n / 2] + n % 2, *g = products[n / 2] + n % 2;
            s[0] = four.x, s[2] = four.y, g[0] = four.z, g[2] = four.w;
        }
    }
    __device__ __forceinline__ void weigh(float (&scores)[ROW_TILES][4], float (&products)[ROW_TILES][4]) const {
        scale(scores);
        if (p.weighting == SOFTMAX) {
            soft_weights(scores, products);
        } else {
            plain_weights(scores, products);
        }
        if (count == BEHAVIOURS) return;
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 4; n++) {
            bool exists = behaviour_of(n % 4) < count;
            scores[n / 4][n % 4] = exists ? scores[n / 4][n % 4] : 0.0f;
            products[n / 4][n % 4] = exists ? products[n / 4][n % 4] : 0.0f;
        }
    }

    // ---- Gradients of keys and values ------------------------------------------------------------------------------

    // acc += the rows of the tile, weighed.
    __device__ __forceinline__ void add_rows(float (&acc)[COLUMN_TILES][4], const float (&weights)[ROW_TILES][4], u32 tile,
                                             u32 width) const {
        const u32 unit = at(lane % 8, lane / 8) % PITCH;
        tile += lane % 8 * PITCH;
#pragma unroll
        for (u32 r = 0; r < ROW_TILES; r++) {
            // Positions j and j + 4 of the sum are rows 2j and 2j + 1.
            const float four[4] = {weights[r][0], weights[r][2], weights[r][1], weights[r][3]};
            u32 a[4], rest[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                a[i] = __float_as_uint(four[i]);
                rest[i] = __float_as_uint(rest_of(four[i]));
            }
#pragma unroll
            for (u32 t = 0; t < COLUMN_TILES; t += 4) {
                // Wide rows would be loaded so early that registers are spilled.
                if (CHUNK > 64 && t * 8 >= width) continue;
                u32 pairs[4];
                float b[4][2];
                load_transposed_4(pairs, tile + r * 8 * PITCH + (unit ^ t * 16));
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    widen_pair<T>(pairs[i], b[i]);
                    multiply_add_tf32(acc[t + i], a, __float_as_uint(b[i][0]), __float_as_uint(b[i][1]));
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    multiply_add_tf32(acc[t + i], rest, __float_as_uint(b[i][0]), __float_as_uint(b[i][1]));
                }
            }
        }
    }

    // Writes the gradients of this warp's behaviours.
    template <typename G, bool WHOLE>
    __device__ __forceinline__ void store_as(const float (&acc)[COLUMN_TILES][4], void *to, u32 width) const {
        const u32 column = lane % 4 * 2;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 behaviour = behaviour_of(half * 2);
            if (behaviour >= count) continue;
            G *row = (G *)to + behaviour_row(first + behaviour) * width + column;
#pragma unroll
            for (u32 t = 0; t < COLUMN_TILES; t++) {
                if (!WHOLE && t * 8 >= width) continue;
                const float *pair = acc[t] + half * 2;
                if constexpr (sizeof(G) == 4) store_pair(row + t * 8, pair[0], pair[1]);
                if constexpr (sizeof(G) == 2) *(u32 *)(row + t * 8) = narrow_pair<G>(pair[0], pair[1]);
            }
        }
    }
    __device__ __forceinline__ void store(const float (&acc)[COLUMN_TILES][4], void *to, u32 width) {
#pragma unroll
        for (u32 n = 0; n < COLUMN_TILES * 4; n++) {
            poison = fma(acc[n / 4][n % 4], 0.0f, poison);
        }
        // Few instructions where all columns exist.
        if (p.grad_storage != STORED_F32) {
            store_as<T, false>(acc, to, width);
        } else if (width == CHUNK) {
            store_as<f32, true>(acc, to, CHUNK);
        } else {
            store_as<f32, false>(acc, to, width);
        }
    }

    // ---- The gradient of the bias ----------------------------------------------------------------------------------

    // A thread for each behaviour and head of the group: always the same, so that the sums need no barrier.
    __device__ __forceinline__ void add_bias() const {
        const u32 offset = tile_first % p.group_heads;
#pragma unroll 1
        for (u32 item = threadIdx.x; item < count * p.group_heads; item += THREADS) {
            const u32 l = item / p.group_heads, head = item % p.group_heads;
            float sum = 0.0f;
#pragma unroll 1
            for (u32 row = (head + p.group_heads - offset) % p.group_heads; row < rows; row += p.group_heads) {
                float4 four = *grads_of(l / 16, l % 8, row);
                sum += l % 16 < 8 ? four.x : four.y;
            }
            float *to = p.grad_bias + (span.history_start + first + l) * heads() + kv_head * p.group_heads + head;
            *to = (tile_first == 0 ? 0.0f : *to) + sum;
        }
    }
    // Without candidates.
    __device__ __forceinline__ void clear_bias() const {
#pragma unroll 1
        for (u32 item = threadIdx.x; item < count * p.group_heads; item += THREADS) {
            u64 l = span.history_start + first + item / p.group_heads;
            p.grad_bias[l * heads() + kv_head * p.group_heads + item % p.group_heads] = 0.0f;
        }
    }

    // ---- Gradients of queries --------------------------------------------------------------------------------------

    __device__ __forceinline__ void store_grads(const float (&products)[ROW_TILES][4]) const {
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 2; n++) {
            const float *g = products[n / 2] + n % 2;
            *grads_of(warp, lane / 4, row_of(n / 2, n % 2)) = make_float4(g[0], g[2], rest_of(g[0]), rest_of(g[2]));
        }
    }

    // acc[m][r]: 16 columns by 8 rows.
    __device__ __forceinline__ void add_keys(float (&acc)[QUERY_TILES][ROW_TILES][4]) const {
        if (warp * 16 >= p.width) return;
        // Positions j and j + 4 of the sum are behaviours 2j and 2j + 8 of a warp, then 2j + 1 and 2j + 9.
        u32 from = keys() + at(lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2);
        const uint4 *even = (const uint4 *)grads_of(0, lane % 4 * 2, lane / 4), *odd = (const uint4 *)grads_of(0, lane % 4 * 2 + 1, lane / 4);
#pragma unroll 1
        for (u32 behaviour = 0; behaviour < count; behaviour += 16) {
            u32 a[QUERY_TILES][2][4];
#pragma unroll
            for (u32 m = 0; m < QUERY_TILES; m++) {
                u32 pairs[4];
                // The tiles are as far apart as the swizzle's period.
                load_transposed_4(pairs, from + m * WARPS * 32);
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    float two[2];
                    widen_pair<T>(pairs[i], two);
                    a[m][0][i] = __float_as_uint(two[0]);
                    a[m][1][i] = __float_as_uint(two[1]);
                }
            }
#pragma unroll
            for (u32 r = 0; r < ROW_TILES; r++) {
#pragma unroll
                for (u32 side = 0; side < 2; side++) {
                    uint4 b = side == 0 ? even[r * 8] : odd[r * 8];
#pragma unroll
                    for (u32 m = 0; m < QUERY_TILES; m++) {
                        multiply_add_tf32(acc[m][r], a[m][side], b.x, b.y);
                        multiply_add_tf32(acc[m][r], a[m][side], b.z, b.w);
                    }
                }
            }
            from += 16 * PITCH;
            even += 8 * ROWS;
            odd += 8 * ROWS;
        }
    }

    // Adds the sums to the span's partial result, or writes them there or to the output, and clears them.
    __device__ __forceinline__ void put_queries(float (&acc)[QUERY_TILES][ROW_TILES][4], bool add) {
        const bool direct = span.first_partial == ~0ull;
        const u64 base = (direct ? span.first_target : span.first_partial) * heads();
#pragma unroll
        for (u32 n = 0; n < ROW_TILES * 2; n++) {
            const u32 row = row_of(n / 2, n % 2);
            if (row >= rows) continue;
            const u64 place = (base + place_of[row]) * p.width;
#pragma unroll
            for (u32 m = 0; m < QUERY_TILES * 2; m++) {
                const u32 column = (warp + m / 2 * WARPS) * 16 + lane / 4 + m % 2 * 8;
                float sum = acc[m / 2][n / 2][n % 2 + m % 2 * 2] * p.scale;
                if (column >= p.width) continue;
                if (add) sum += p.partial[place + column];
                poison = fma(sum, 0.0f, poison);
                if (direct) {
                    store_stored(p.grad_storage, p.grad_queries, place + column, sum);
                } else {
                    p.partial[place + column] = sum;
                }
            }
        }
#pragma unroll
        for (u32 n = 0; n < QUERY_TILES * ROW_TILES * 4; n++) {
            acc[n / 4 / ROW_TILES][n / 4 % ROW_TILES][n % 4] = 0.0f;
        }
    }

    // ---- The block -------------------------------------------------------------------------------------------------

    __device__ __forceinline__ void run() {
        const u32 all_rows = span.targets * p.group_heads;
        const bool single = all_rows <= ROWS;
        float dq[QUERY_TILES][ROW_TILES][4] = {};
        keys_source = source(p.keys, p.width);
        values_source = source(p.values, p.value_width);
        if (all_rows > 0) load_history(0);
        copy_commit();
        // Without behaviours there is one step, in which nothing is added.
        first = 0;
        do {
            count = min((u32)BEHAVIOURS, span.length - first);
            float dk[COLUMN_TILES][4] = {}, dv[COLUMN_TILES][4] = {};
#pragma unroll 1
            for (tile_first = 0; tile_first < all_rows; tile_first += ROWS) {
                rows = min(ROWS, all_rows - tile_first);
                arrive(single);
                float scores[ROW_TILES][4] = {}, products[ROW_TILES][4] = {};
                multiply(scores, keys(), queries, p.width);
                if (needs_grads) multiply(products, values(), queries + ROWS_BYTES, p.value_width);
                weigh(scores, products);
                // Biases and other weightings part the lanes; matrix instructions need them together.
                __syncwarp();
                if (needs_grads) store_grads(products);
                if (needs_weights && p.aliased) add_rows(dk, scores, queries + ROWS_BYTES, p.value_width);
                if (needs_weights && !p.aliased) add_rows(dv, scores, queries + ROWS_BYTES, p.value_width);
                if (p.grad_keys != nullptr) {
#pragma unroll
                    for (u32 n = 0; n < ROW_TILES * 4; n++) {
                        products[n / 4][n % 4] *= p.scale;
                    }
                    add_rows(dk, products, queries, p.width);
                }
                __syncthreads();
                if (p.grad_queries != nullptr) {
                    add_keys(dq);
                    if (!single || first + BEHAVIOURS >= span.length) put_queries(dq, !single && first > 0);
                }
                if (p.grad_bias != nullptr) add_bias();
            }
            // If the keys are the values, dk is the sum of both.
            if (p.grad_keys != nullptr) store(dk, p.grad_keys, p.width);
            if (p.grad_values != nullptr) store(dv, p.grad_values, p.value_width);
            if (p.grad_bias != nullptr && all_rows == 0) clear_bias();
            first += BEHAVIOURS;
        } while (first < span.length);
        if (__syncthreads_or(poison != 0.0f)) BackwardAgain{p, span, kv_head}.run();
    }
};

template <typename Kernel>
__device__ __forceinline__ void backward_mma(const AttentionBackwardParams &p) {
    const bool aliased = p.aliased != 0;
    const bool needs_grads = p.grad_queries != nullptr || p.grad_keys != nullptr || p.grad_bias != nullptr;
    const bool needs_weights = p.grad_values != nullptr || (aliased && p.grad_keys != nullptr);
    const u32 shared = shared_address(dynamic_shared);
    u8 *states = (u8 *)dynamic_shared + Kernel::states_at(aliased);
    constexpr u32 ROWS = Kernel::ROW_TILES * 8;
    Kernel kernel = {{p,
                      p.spans[blockIdx.x / p.kv_heads],
                      blockIdx.x % p.kv_heads,
                      threadIdx.x / WARP,
                      threadIdx.x % WARP,
                      shared,
                      shared + Kernel::rows_at(aliased),
                      (float4 *)((u8 *)dynamic_shared + Kernel::grads_at(aliased)),
                      (RowState *)states,
                      (u32 *)(states + ROWS * 16),
                      (u32 *)(states + ROWS * 20),
                      needs_grads,
                      needs_weights,
                      0,
                      0,
                      0,
                      0,
                      0.0f,
                      {},
                      {}}};
    kernel.run();
}

#define BACKWARD_MMA(NAME, ...)                                                                      \
    typedef BackwardMma<__VA_ARGS__> NAME##_kernel;                                                  \
    LAYOUT(NAME, BEHAVIOURS, NAME##_kernel::shared_bytes(false), NAME##_kernel::shared_bytes(true)); \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) NAME(const AttentionBackwardParams p) { \
        backward_mma<NAME##_kernel>(p);                                                              \
    }

// Storage type, columns, rows per tile.
BACKWARD_MMA(backward_mma_64_rows_8_f16, f16, 64, 8)
BACKWARD_MMA(backward_mma_64_rows_32_f16, f16, 64, 32)
BACKWARD_MMA(backward_mma_128_rows_8_f16, f16, 128, 8)
BACKWARD_MMA(backward_mma_128_rows_16_f16, f16, 128, 16)
BACKWARD_MMA(backward_mma_64_rows_8_bf16, bf16, 64, 8)
BACKWARD_MMA(backward_mma_64_rows_32_bf16, bf16, 64, 32)
BACKWARD_MMA(backward_mma_128_rows_8_bf16, bf16, 128, 8)
BACKWARD_MMA(backward_mma_128_rows_16_bf16, bf16, 128, 16)
