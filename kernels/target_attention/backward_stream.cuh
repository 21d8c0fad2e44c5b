// Gradients of few query rows: backward_stream.cu. `Rows` reads and writes rows.
#pragma once
#include "target_attention/backward_rows.cuh"

// Rows as they are stored, four numbers at a time.
struct StreamedAlike : RowsAlike {
    typedef uint4 Raw;

    __device__ __forceinline__ Raw load(const AttentionBackwardParams &p, const void *rows, u64 row, u32 width, u32 column) const {
        return load_raw(p.storage, rows, row * width + column);
    }
    __device__ __forceinline__ void widen(const AttentionBackwardParams &p, const Raw &raw, float (&out)[4]) const {
        widen_raw(p.storage, raw, out);
    }
};

// out += factor·row
__device__ __forceinline__ void add_four(float (&out)[4], float factor, const float (&row)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        out[i] = fma(factor, row[i], out[i]);
    }
}

__device__ __forceinline__ float dot_four(const float (&a)[4], const float (&b)[4]) {
    return fma(a[3], b[3], fma(a[2], b[2], fma(a[1], b[1], a[0] * b[0])));
}

template <typename Rows, u32 LANES, u32 ROWS>
struct BackwardStream {
    static constexpr u32 GROUPS = THREADS / LANES, AHEAD = ROWS == 1 ? 4 : 2, COLUMNS = LANES * 4;

    typedef typename Rows::Raw Raw;

    const Rows access;
    const AttentionBackwardParams &p;
    const AttentionSpan span;
    const u32 kv_head, rows, lane, group;
    const bool has_key, has_value, needs_grads;
    float q[ROWS][4], g[ROWS][4], dq[ROWS][4];
    RowState states[ROWS];

    __device__ __forceinline__ u32 heads() const { return p.kv_heads * p.group_heads; }
    __device__ __forceinline__ u64 index_of_row(u32 row) const {
        return (span.first_target + row / p.group_heads) * heads() + kv_head * p.group_heads + row % p.group_heads;
    }
    __device__ __forceinline__ u64 behaviour_row(u32 behaviour) const {
        return (span.history_start + behaviour) * p.kv_heads + kv_head;
    }

    __device__ __forceinline__ void load_rows() {
#pragma unroll
        for (u32 m = 0; m < ROWS; m++) {
            uint4 query = {}, grad = {};
            states[m] = RowState{0.0f, 0.0f, 0.0f, infinity()};
            if (m < rows) {
                u64 row = index_of_row(m);
                if (has_key) query = load_raw(access.row_storage(p), p.queries, row * p.width + lane * 4);
                if (has_value) grad = load_raw(access.row_storage(p), p.grad_out, row * p.value_width + lane * 4);
                if (p.states != nullptr) *(float4 *)&states[m] = *(const float4 *)(p.states + row);
            }
            widen_raw(access.row_storage(p), query, q[m]);
            widen_raw(access.row_storage(p), grad, g[m]);
            dq[m][0] = dq[m][1] = dq[m][2] = dq[m][3] = 0.0f;
        }
    }

    // Adds two numbers over the lanes that hold a behaviour: each half of them adds one of the two.
    __device__ __forceinline__ void add_both(float &a, float &b) const {
        const bool upper = (lane & (LANES / 2)) != 0;
        float mine = (upper ? b : a) + shuffle_xor(upper ? a : b, LANES / 2);
        mine = warp_sum<LANES / 2>(mine);
        float other = shuffle_xor(mine, LANES / 2);
        a = upper ? other : mine;
        b = upper ? mine : other;
    }

    // Weight and gradient of a score, and whether its behaviour is removed.
    __device__ __forceinline__ bool weigh(const RowState &state, float score, float product, float &weight, float &grad) const {
        if (p.weighting == SOFTMAX) {
            float above = score - state.shift;
            weight = exp_approx(above > state.most ? state.most : above) * state.factor;
            grad = weight * (product - state.subtracted);
        } else {
            float2 both = weight_and_slope(p, span, score);
            weight = both.x;
            grad = both.y * product;
        }
        return score == -infinity() && p.weighting != IDENTITY;
    }

    // The gradients of the bias of a behaviour, by the lane that comes first.
    __device__ __forceinline__ void write_bias(u32 behaviour, const float (&grads)[ROWS]) const {
#pragma unroll 1
        for (u32 head = 0; head < p.group_heads; head++) {
            float sum = 0.0f;
#pragma unroll
            for (u32 m = 0; m < ROWS; m++) {
                if (m < rows && m % p.group_heads == head) sum += grads[m];
            }
            p.grad_bias[(span.history_start + behaviour) * heads() + kv_head * p.group_heads + head] = sum;
        }
    }

    __device__ __forceinline__ void add_behaviour(u32 behaviour, const Raw &raw_key, const Raw &raw_value) {
        const bool exists = behaviour < span.length;
        float k[4], v[4], dk[4] = {}, dv[4] = {}, grads[ROWS] = {};
        access.widen(p, raw_key, k);
        access.widen(p, raw_value, v);
#pragma unroll
        for (u32 m = 0; m < ROWS; m++) {
            if (m >= rows) break;
            float score = dot_four(q[m], k), product = dot_four(g[m], v), weight, grad, bias = 0.0f;
            add_both(score, product);
            if (p.bias != nullptr && exists) {
                u32 head = kv_head * p.group_heads + m % p.group_heads;
                bias = p.bias[(span.history_start + behaviour) * heads() + head];
            }
            // Without a bias, the same as scale·dot.
            bool is_removed = weigh(states[m], fma(score, p.scale, bias), product, weight, grad);
            if (is_removed || !exists) continue;
            grads[m] = grad;
            add_four(dv, weight, g[m]);
            add_four(dk, grad * p.scale, q[m]);
            add_four(dq[m], grad * p.scale, k);
        }
        if (!exists) return;
        u64 row = behaviour_row(behaviour);
        if (p.aliased) add_four(dk, 1.0f, dv);
        if (p.grad_keys != nullptr && has_key) store_raw(p.grad_storage, p.grad_keys, row * p.width + lane * 4, dk);
        if (p.grad_values != nullptr && has_value) store_raw(p.grad_storage, p.grad_values, row * p.value_width + lane * 4, dv);
        if (access.sums() != nullptr && has_key) store_four<f32>(access.sums(), row * p.width + lane * 4, dk);
        if (p.grad_bias != nullptr && lane == 0) write_bias(behaviour, grads);
    }

    // Adds the gradients of the queries over the block, and writes them.
    __device__ __forceinline__ void write_queries(float (*sums)[ROWS][COLUMNS]) {
        const u32 warp = threadIdx.x / WARP, pitch = (p.width + 3) / 4 * 4;
#pragma unroll
        for (u32 m = 0; m < ROWS; m++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 lanes = LANES; lanes < WARP; lanes *= 2) {
                    dq[m][i] += shuffle_xor(dq[m][i], lanes);
                }
            }
            if (threadIdx.x % WARP < LANES) *(float4 *)(sums[warp][m] + lane * 4) = *(const float4 *)dq[m];
        }
        __syncthreads();
        for (u32 item = threadIdx.x; item < rows * COLUMNS; item += THREADS) {
            u32 row = item / COLUMNS, column = item % COLUMNS;
            if (column >= p.width) continue;
            float sum = 0.0f;
#pragma unroll
            for (u32 i = 0; i < WARPS; i++) {
                sum += sums[i][row][column];
            }
            u64 at = index_of_row(row);
            if (span.first_partial == ~0ull) {
                store_stored(access.grad_row_storage(p), p.grad_queries, at * p.width + column, sum);
            } else {
                p.partial[(at + (span.first_partial - span.first_target) * heads()) * pitch + column] = sum;
            }
        }
    }

    __device__ __forceinline__ void run(float (*sums)[ROWS][COLUMNS]) {
        load_rows();
#pragma unroll 1
        for (u32 first = 0; first < span.length; first += GROUPS * AHEAD) {
            Raw keys[AHEAD] = {}, values[AHEAD] = {};
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                u32 behaviour = first + i * GROUPS + group;
                if (behaviour >= span.length) continue;
                u64 row = behaviour_row(behaviour);
                if (has_key) keys[i] = access.load(p, p.keys, row, p.width, lane * 4);
                if (p.aliased) values[i] = keys[i];
                if (has_value && needs_grads && !p.aliased) {
                    values[i] = access.load(p, p.values, row, p.value_width, lane * 4);
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                add_behaviour(first + i * GROUPS + group, keys[i], values[i]);
            }
        }
        if (p.grad_queries != nullptr) write_queries(sums);
    }
};

template <u32 LANES, u32 ROWS, typename Rows>
__device__ __forceinline__ void backward_stream(const AttentionBackwardParams &p, const Rows &access) {
    typedef BackwardStream<Rows, LANES, ROWS> Kernel;
    __shared__ alignas(16) float sums[WARPS][ROWS][Kernel::COLUMNS];
    const AttentionSpan span = p.spans[blockIdx.x / p.kv_heads];
    const u32 lane = threadIdx.x % LANES;
    const bool needs_grads = p.grad_queries != nullptr || p.grad_keys != nullptr || p.grad_bias != nullptr;
    Kernel kernel = {access, p, span,
                     blockIdx.x % p.kv_heads, span.targets * p.group_heads,
                     lane, threadIdx.x / LANES,
                     lane * 4 < p.width, lane * 4 < p.value_width, needs_grads};
    kernel.run(sums);
}
