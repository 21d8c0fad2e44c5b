// Attention of few candidates, without staging: stream.cu. `Rows` loads the history four numbers at a time.
#pragma once
#include "target_attention/attend.cuh"

// Rows of f32, aligned to 16 bytes.
struct StreamedRows : StoredRows<f32> {
    enum : bool {
        // Whether the keys always are the values.
        ALIASED = false
    };

    static __device__ __forceinline__ float4 load(const float *from, bool there) {
        if (!there) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        Vector vector = load_vector(from);
        return make_float4(__uint_as_float(vector.words[0]), __uint_as_float(vector.words[1]),
                           __uint_as_float(vector.words[2]), __uint_as_float(vector.words[3]));
    }

    // Four numbers of COUNT behaviours, PARTS apart, from a column on; zeros past the end of the history and of the row.
    template <u32 COUNT, u32 PARTS>
    __device__ __forceinline__ void load_history(float4 (&to)[COUNT], const Work &work, bool keys, u32 behaviour, u32 column) const {
        const u32 width = keys ? p.width : p.value_width;
        const float *from = (const float *)(keys ? p.keys : p.values) + history_at(p, work, behaviour, width) + column;
        u64 stride = (u64)PARTS * p.kv_heads * width;
        bool there = column < width;
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            to[i] = load(from + i * stride, there && behaviour + i * PARTS < work.piece.length);
        }
    }
};

template <u32 CHUNK, u32 ROWS>
struct StreamHistory {
    static constexpr u32 LANES = CHUNK / 4, GROUPS = WARP / LANES, PARTS = WARPS * GROUPS;
    static constexpr u32 UNROLL = ROWS == 1 ? 8 : 4;
    // Behaviours per block and step.
    static constexpr u32 STEP = PARTS * UNROLL;
};

template <typename Rows, u32 CHUNK, u32 ROWS>
struct StreamKernel : StreamHistory<CHUNK, ROWS> {
    typedef StreamHistory<CHUNK, ROWS> Sizes;
    using Sizes::LANES, Sizes::PARTS, Sizes::UNROLL, Sizes::STEP;

    const Rows rows;
    const TargetAttentionParams &p;
    Work work;
    // This lane's first column, and its group in the block.
    u32 column, part;

    // Turns dot products into weights; returns the factor that rescales the row's sums so far.
    __device__ __forceinline__ float weigh(float (&scores)[UNROLL], u32 first, u32 row, float &row_max, float &row_sum) const {
        u32 behaviour = first + part;
        if (p.bias != nullptr) {
            const float *bias = p.bias + head_of(p, work, row);
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                u32 at = behaviour + i * PARTS;
                u64 l = work.piece.history_start + (at < work.piece.length ? at : 0);
                scores[i] = score_of(p, scores[i], bias[l * (p.kv_heads * p.group_heads)]);
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                scores[i] = score_of(p, scores[i]);
            }
        }
        float new_max = row_max;
#pragma unroll
        for (u32 i = 0; i < UNROLL; i++) {
            bool there = behaviour + i * PARTS < work.piece.length;
            if (p.weighting != SOFTMAX) {
                scores[i] = there ? plain_weight(p, work, scores[i]) : 0.0f;
            } else {
                if (!there) scores[i] = -infinity();
                new_max = fmaxf(new_max, scores[i]);
            }
        }
        if (p.weighting != SOFTMAX) return 1.0f;
        float rescale = rescale_factor(row_max, new_max), base = base_of(new_max);
        row_max = new_max;
        row_sum *= rescale;
#pragma unroll
        for (u32 i = 0; i < UNROLL; i++) {
            scores[i] = exp2_approx(scores[i] - base);
            row_sum += scores[i];
        }
        return rescale;
    }

    __device__ __forceinline__ void run() const {
        float4 queries[ROWS], acc[ROWS];
        float row_max[ROWS], row_sum[ROWS] = {};
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            bool there = r < work.piece.rows && column < p.width;
            queries[r] = StreamedRows::load((const float *)p.queries + (there ? output_row(p, work, r) * p.width + column : 0), there);
            acc[r] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            row_max[r] = p.weighting == SOFTMAX ? -infinity() : 0.0f;
        }
        for (u32 first = 0; first < work.piece.length; first += STEP) {
            float4 loaded[UNROLL];
            float weights[ROWS][UNROLL];
            rows.template load_history<UNROLL, PARTS>(loaded, work, true, first + part, column);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) {
                    float dot = queries[r].x * loaded[i].x;
                    dot = fma(queries[r].y, loaded[i].y, dot);
                    dot = fma(queries[r].z, loaded[i].z, dot);
                    dot = fma(queries[r].w, loaded[i].w, dot);
                    weights[r][i] = warp_sum<LANES>(dot);
                }
            }
            if (!Rows::ALIASED && !p.aliased) rows.template load_history<UNROLL, PARTS>(loaded, work, false, first + part, column);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                float rescale = weigh(weights[r], first, r, row_max[r], row_sum[r]);
                float4 &sum = acc[r];
                sum = make_float4(sum.x * rescale, sum.y * rescale, sum.z * rescale, sum.w * rescale);
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) {
                    sum.x = fma(weights[r][i], loaded[i].x, sum.x);
                    sum.y = fma(weights[r][i], loaded[i].y, sum.y);
                    sum.z = fma(weights[r][i], loaded[i].z, sum.z);
                    sum.w = fma(weights[r][i], loaded[i].w, sum.w);
                }
            }
        }
        __shared__ alignas(16) float all[PARTS * ROWS * CHUNK];
        __shared__ float stats[PARTS * ROWS * 2];
        bool large = any_large<ROWS * 4>(acc);
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            u32 at = part * ROWS + r;
            *(float4 *)(all + at * CHUNK + column) = acc[r];
            if (column == 0) {
                stats[at * 2] = row_max[r];
                stats[at * 2 + 1] = row_sum[r];
            }
        }
        large = __syncthreads_or(large);
        write_rows<Rows, PARTS, ROWS, CHUNK>(rows, work, all, stats, large);
    }
};

template <u32 CHUNK, u32 ROWS, typename Rows>
__device__ __forceinline__ void stream_history(const Rows &rows) {
    typedef StreamKernel<Rows, CHUNK, ROWS> Kernel;
    Kernel kernel = {{}, rows, rows.p, this_block(rows.p), threadIdx.x % Kernel::LANES * 4, threadIdx.x / Kernel::LANES};
    kernel.run();
}
