// Target attention of few candidates: f32, widths in multiples of 4 up to 128, rows aligned to 16 bytes.
//
//     s_l = scale·⟨q, k_l⟩ + bias_l        out = Σ_l w_l·v_l        w from s by `weighting`
//
// With so few output rows, each loaded number is used a few times at most and memory is the limit, so nothing is staged:
//   CHUNK/4 lanes hold a row of the history, 4 numbers each, straight from global memory; a warp takes 1 to 4 behaviours
//   at a time and keeps UNROLL such loads in flight. Scores are summed over the lanes of a row; if the keys are the values,
//   the same registers serve as values.
// Grid: a block of four warps for each piece of the plan and key/value head. Each group of lanes keeps its own max, sum and
//   weighted values over every PARTS-th behaviour; the groups are combined at the end, in shared memory, in order.
// Variants: rows_1 and rows_4 output rows.
// Precision: f32 throughout. Softmax in powers of 2 with a running maximum.
#include "target_attention/attend.cuh"

template <u32 CHUNK, u32 ROWS>
struct StreamHistory {
    static constexpr u32 LANES = CHUNK / 4, GROUPS = WARP / LANES, PARTS = WARPS * GROUPS;
    static constexpr u32 UNROLL = ROWS == 1 ? 8 : 4;
    // Behaviours per block and step.
    static constexpr u32 STEP = PARTS * UNROLL;

    const TargetAttentionParams &p;
    Work work;
    // This lane's first column, and its group in the block.
    u32 column, part;

    static __device__ __forceinline__ float4 load(const float *from, bool there) {
        if (!there) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        Vector vector = load_vector(from);
        return make_float4(__uint_as_float(vector.words[0]), __uint_as_float(vector.words[1]),
                           __uint_as_float(vector.words[2]), __uint_as_float(vector.words[3]));
    }

    // Loads UNROLL behaviours, PARTS apart; zeros past the end of the history and of the row.
    __device__ __forceinline__ void load_rows(float4 (&to)[UNROLL], const void *rows, u32 width, u32 first) const {
        u32 behaviour = first + part;
        const float *from = (const float *)rows + history_at(p, work, behaviour, width) + column;
        u64 stride = (u64)PARTS * p.kv_heads * width;
        bool there = column < width;
#pragma unroll
        for (u32 i = 0; i < UNROLL; i++) {
            to[i] = load(from + i * stride, there && behaviour + i * PARTS < work.piece.length);
        }
    }

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
                scores[i] = there ? plain_weight(p, scores[i]) : 0.0f;
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
            queries[r] = load((const float *)p.queries + (there ? output_row(p, work, r) * p.width + column : 0), there);
            acc[r] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            row_max[r] = p.weighting == SOFTMAX ? -infinity() : 0.0f;
        }
        for (u32 first = 0; first < work.piece.length; first += STEP) {
            float4 rows[UNROLL];
            float weights[ROWS][UNROLL];
            load_rows(rows, p.keys, p.width, first);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) {
                    float dot = queries[r].x * rows[i].x;
                    dot = fma(queries[r].y, rows[i].y, dot);
                    dot = fma(queries[r].z, rows[i].z, dot);
                    dot = fma(queries[r].w, rows[i].w, dot);
                    weights[r][i] = warp_sum<LANES>(dot);
                }
            }
            if (!p.aliased) load_rows(rows, p.values, p.value_width, first);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                float rescale = weigh(weights[r], first, r, row_max[r], row_sum[r]);
                float4 &sum = acc[r];
                sum = make_float4(sum.x * rescale, sum.y * rescale, sum.z * rescale, sum.w * rescale);
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) {
                    sum.x = fma(weights[r][i], rows[i].x, sum.x);
                    sum.y = fma(weights[r][i], rows[i].y, sum.y);
                    sum.z = fma(weights[r][i], rows[i].z, sum.z);
                    sum.w = fma(weights[r][i], rows[i].w, sum.w);
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
        write_rows<f32, PARTS, ROWS, CHUNK>(p, work, all, stats, large);
    }
};

template <u32 CHUNK, u32 ROWS>
__device__ __forceinline__ void stream_history(const TargetAttentionParams &p) {
    typedef StreamHistory<CHUNK, ROWS> Kernel;
    Kernel kernel = {p, this_block(p), threadIdx.x % Kernel::LANES * 4, threadIdx.x / Kernel::LANES};
    kernel.run();
}

#define STREAM_HISTORY(NAME, CHUNK, ROWS)                                                          \
    LAYOUT(NAME, StreamHistory<CHUNK, ROWS>::STEP);                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) NAME(const TargetAttentionParams p) { \
        stream_history<CHUNK, ROWS>(p);                                                            \
    }

STREAM_HISTORY(stream_history_32_rows_1_f32, 32, 1)
STREAM_HISTORY(stream_history_32_rows_4_f32, 32, 4)
STREAM_HISTORY(stream_history_64_rows_1_f32, 64, 1)
STREAM_HISTORY(stream_history_64_rows_4_f32, 64, 4)
STREAM_HISTORY(stream_history_128_rows_1_f32, 128, 1)
STREAM_HISTORY(stream_history_128_rows_4_f32, 128, 4)
