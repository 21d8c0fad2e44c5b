// SDIM: gradients of bucket rows, and the gradients of behaviours without a table.
//
// sdim_bucket_gradients turns the sums of grad_out over the candidates that read each bucket (encode.cu, scan.cu) into the
//   gradients of the bucket rows, in place: (sum − u·⟨u, sum⟩) / (G·‖T‖) with u = T/‖T‖. As many lanes as a row needs take a row.
// sdim_target_gradients does the same for each candidate and group, from the bucket sums that scan.cu left and the gradient of
//   the candidate's output, where there is no table.
// sdim_match adds, for each behaviour, these gradients of the candidates that share its bucket. A warp takes a behaviour and
//   compares its signatures with those of the user's candidates, 32 at a time, in order. Sums are taken of at most 1024
//   signatures, then of these.
// Precision: f32. Where a sum of squares overflows, it is computed again from rows times 2^-80.
#include "sdim/columns.cuh"

enum : u32 {
    WARPS = 4,
    // Of sdim_match: a lane's columns at a time, every 32nd, and signatures per partial sum.
    MATCH_COLUMNS = 4,
    MATCH_BLOCK = 1024,
};

__device__ __forceinline__ u32 code_at(const void *codes, u32 bytes, u64 at) {
    return bytes == 1 ? ((const u8 *)codes)[at] : ((const u16 *)codes)[at];
}

// 1 / √x, exact but for a few roundings; NaN for infinity.
__device__ __forceinline__ float inverse_root(float x) {
    float out;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return fma(0.5f * out, fma(-x * out, out, 1.0f), out);
}

// Over `lanes` adjacent lanes, a power of two. The whole warp calls it together.
__device__ __forceinline__ float sum_over(float value, u32 lanes) {
#pragma unroll 1
    for (u32 other = lanes / 2; other > 0; other /= 2) {
        value += shuffle_xor(value, other);
    }
    return value;
}

// Four numbers of a row from `column` on, zeros past its end.
template <typename T>
__device__ __forceinline__ void load_columns(float *out, const T *row, u32 column, u32 width) {
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        out[e] = column + e < width ? widen(row[column + e]) : 0.0f;
    }
}
template <>
__device__ __forceinline__ void load_columns<float>(float *out, const float *row, u32 column, u32 width) {
    const float *from = row + column;
    if (column + LANE_COLUMNS <= width && (u64)from % 16 == 0) {
        float4 four = *(const float4 *)from;
        out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
        return;
    }
#pragma unroll
    for (u32 e = 0; e < LANE_COLUMNS; e++) {
        out[e] = column + e < width ? from[e] : 0.0f;
    }
}

// The length of a bucket row, as what rows are multiplied by: first `scale`, then `inverse`, each within the range of f32.
struct Length {
    float scale, inverse;
    bool is_floor, is_finite;
};

// The columns of a row that a lane has.
struct Lane {
    u32 first, lanes, width;
    __device__ __forceinline__ u32 step() const { return lanes * LANE_COLUMNS; }
};

// `row(out, column)` reads four numbers of a bucket row. The whole warp calls these together.
template <typename Row>
__device__ __forceinline__ float squares_of(Lane lane, float scale, Row row) {
    float sum = 0.0f;
#pragma unroll 1
    for (u32 column = lane.first; column < lane.width; column += lane.step()) {
        float x[LANE_COLUMNS];
        row(x, column);
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            sum = fma(x[e] * scale, x[e] * scale, sum);
        }
    }
    return sum_over(sum, lane.lanes);
}

template <typename Row>
__device__ __forceinline__ Length length_of(Lane lane, Row row) {
    float scale = 1.0f, squares = squares_of(lane, scale, row);
    // The square of Sdim::MIN_NORM. NaN is not less.
    bool is_floor = squares < 1e-24f, huge = squares == infinity();
    if (__any_sync(WHOLE_WARP, huge)) {
        scale = huge ? 0x1p-80f : 1.0f;
        squares = squares_of(lane, scale, row);
    }
    return {scale, inverse_root(squares), is_floor, is_finite(squares)};
}

// ⟨u, grad⟩
template <typename Row, typename Grad>
__device__ __forceinline__ float along(Lane lane, Length length, Row row, Grad grad) {
    float sum = 0.0f;
#pragma unroll 1
    for (u32 column = lane.first; column < lane.width; column += lane.step()) {
        float x[LANE_COLUMNS], g[LANE_COLUMNS];
        row(x, column);
        grad(g, column);
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            sum = fma(x[e] * length.scale * length.inverse, g[e], sum);
        }
    }
    return sum_over(sum, lane.lanes);
}

// Writes the gradient of a bucket row to `out`, which may be where `row` or `grad` read from: a lane reads no other's columns
// after it has written. Of a row that is not `wanted`, zeros.
template <typename Row, typename Grad>
__device__ __forceinline__ void write_gradient(Lane lane, Length length, bool wanted, float inverse_groups, float *out,
                                               Row row, Grad grad) {
    float product = along(lane, length, row, grad);
#pragma unroll 1
    for (u32 column = lane.first; column < lane.width; column += lane.step()) {
        float x[LANE_COLUMNS], g[LANE_COLUMNS];
        row(x, column);
        grad(g, column);
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            // Nothing is across a row of one number, which rounding may miss.
            float along_row = lane.width == 1 ? g[e] : x[e] * length.scale * length.inverse * product;
            float across = g[e] - along_row;
            g[e] = wanted && !length.is_floor ? across * length.inverse * length.scale * inverse_groups : 0.0f;
        }
        store_columns<float>(out, g, 0, column, lane.width);
    }
}

template <typename Grad>
__device__ __forceinline__ void write_share(Lane lane, float inverse_groups, float *out, Grad grad) {
#pragma unroll 1
    for (u32 column = lane.first; column < lane.width; column += lane.step()) {
        float g[LANE_COLUMNS];
        grad(g, column);
#pragma unroll
        for (u32 e = 0; e < LANE_COLUMNS; e++) {
            g[e] *= inverse_groups;
        }
        store_columns<float>(out, g, 0, column, lane.width);
    }
}

struct SdimBucketParams {
    // [users, groups, 2^bits, width]: the bucket rows, and the sums that become their gradients.
    const float *table;
    float *grads;
    // Of candidates, [users + 1], and their signatures, [candidates, groups].
    const u64 *offsets;
    const void *codes;
    // Bucket rows of all users.
    u64 rows;
    u32 width, groups, bits, code_bytes;
    u32 normalise;
    // 1 / groups.
    float inverse_groups;
};

// Whether a candidate reads this bucket row. The whole warp calls it together, for one row.
__device__ __forceinline__ bool is_read(const SdimBucketParams &p, u64 row) {
    u32 code = (u32)row & ((1u << p.bits) - 1);
    u64 group = row >> p.bits, user = group / p.groups;
    u32 g = (u32)(group - user * p.groups);
    bool found = false;
    for (u64 m = p.offsets[user] + threadIdx.x % WARP; m < p.offsets[user + 1]; m += WARP) {
        found |= code_at(p.codes, p.code_bytes, m * p.groups + g) == code;
    }
    return __any_sync(WHOLE_WARP, found);
}

extern "C" __global__ void __launch_bounds__(WARPS *WARP, 8) sdim_bucket_gradients(const SdimBucketParams p) {
    u32 lanes = lanes_of(p.width);
    u64 at = (u64)blockIdx.x * (WARPS * WARP / lanes) + threadIdx.x / lanes;
    bool there = at < p.rows;
    u64 row = there ? at : 0;
    // Lanes without a row have no columns.
    Lane lane = {threadIdx.x % lanes * LANE_COLUMNS, lanes, there ? p.width : 0};
    const float *from = p.table + row * p.width;
    float *sums = p.grads + row * p.width;
    auto bucket = [&](float *x, u32 column) { load_columns(x, from, column, p.width); };
    auto grad = [&](float *g, u32 column) { load_columns(g, (const float *)sums, column, p.width); };
    if (!p.normalise) {
        write_share(lane, p.inverse_groups, sums, grad);
        return;
    }
    Length length = length_of(lane, bucket);
    // Nobody's gradient depends on a row that is not finite unless a candidate reads it.
    bool wanted = true;
    u32 doubtful = __ballot_sync(WHOLE_WARP, there && !length.is_finite);
    for (; doubtful != 0; doubtful &= doubtful - 1) {
        u32 of = __ffs(doubtful) - 1;
        u64 doubtful_row = __shfl_sync(WHOLE_WARP, row, of);
        bool found = is_read(p, doubtful_row);
        wanted = row == doubtful_row ? found : wanted;
    }
    write_gradient(lane, length, wanted, p.inverse_groups, sums, bucket, grad);
}

struct SdimTargetGradientParams {
    // One per candidate.
    const Tile *tiles;
    const void *grad_out;
    // [slots + tiles, groups, width]: bucket sums, of candidates whose history is not split in the second range; there, by
    // candidate, the gradients are written.
    float *sums;
    u64 count;
    u32 width, groups;
    u32 normalise;
    u32 first_whole;
    // 1 / groups.
    float inverse_groups;
    u32 unused;
};

template <typename T>
__device__ __forceinline__ void target_gradients(const SdimTargetGradientParams &p) {
    u32 lanes = lanes_of(p.width);
    u64 at = (u64)blockIdx.x * (WARPS * WARP / lanes) + threadIdx.x / lanes;
    bool there = at < p.count * p.groups;
    Lane lane = {threadIdx.x % lanes * LANE_COLUMNS, lanes, there ? p.width : 0};
    u64 row = there ? at : 0, m = row / p.groups, g = row - m * p.groups;
    Tile tile = p.tiles[m];
    bool whole = tile.slots == 0;
    u64 place = whole ? p.first_whole + m : tile.first_slot, stride = (u64)p.groups * p.width;
    u32 parts = whole ? 1 : tile.slots;
    const float *from = p.sums + (place * p.groups + g) * p.width;
    const T *grads = (const T *)p.grad_out + (tile.first_target + tile.first_row) * p.width;
    float *out = p.sums + ((p.first_whole + m) * p.groups + g) * p.width;
    auto grad = [&](float *x, u32 column) { load_columns(x, grads, column, p.width); };
    auto bucket = [&](float *x, u32 column) {
        load_columns(x, from, column, p.width);
        for (u32 part = 1; part < parts; part++) {
            float more[LANE_COLUMNS];
            load_columns(more, from + part * stride, column, p.width);
#pragma unroll
            for (u32 e = 0; e < LANE_COLUMNS; e++) {
                x[e] += more[e];
            }
        }
    };
    if (!p.normalise) {
        write_share(lane, p.inverse_groups, out, grad);
        return;
    }
    write_gradient(lane, length_of(lane, bucket), true, p.inverse_groups, out, bucket, grad);
}

struct SdimMatchParams {
    const Piece *pieces;
    // Of candidates, [users + 1].
    const u64 *offsets;
    // [behaviours, groups] and [candidates, groups].
    const void *codes;
    const void *target_codes;
    // [candidates, groups, width]
    const float *grads;
    void *out;
    u32 width, groups, code_bytes, target_code_bytes;
    // Whether the output is stored as rows are, or as f32.
    u32 narrow;
    u32 unused;
};

// Adds the gradients of the candidates that share a bucket with a behaviour, in columns first_column + 32·i.
__device__ __forceinline__ void add_matches(float *sum, const SdimMatchParams &p, u64 begin, u64 end, u64 row,
                                            u32 first_column) {
    u32 lane = threadIdx.x % WARP, g = lane % p.groups, step = WARP % p.groups;
    u64 own = row * p.groups;
    for (u64 block = begin; block < end; block += MATCH_BLOCK) {
        u64 block_end = min(end, block + MATCH_BLOCK);
        float of_block[MATCH_COLUMNS] = {};
        for (u64 at = block; at < block_end; at += WARP) {
            bool same = at + lane < block_end && code_at(p.target_codes, p.target_code_bytes, at + lane) ==
                                                     code_at(p.codes, p.code_bytes, own + g);
            for (u32 all = __ballot_sync(WHOLE_WARP, same); all != 0; all &= all - 1) {
                const float *from = p.grads + (at + __ffs(all) - 1) * p.width;
#pragma unroll
                for (u32 i = 0; i < MATCH_COLUMNS; i++) {
                    u32 column = first_column + i * WARP;
                    if (column < p.width) {
                        of_block[i] += from[column];
                    }
                }
            }
            g += step;
            g -= g >= p.groups ? p.groups : 0;
        }
#pragma unroll
        for (u32 i = 0; i < MATCH_COLUMNS; i++) {
            sum[i] += of_block[i];
        }
    }
}

template <typename T>
__device__ __forceinline__ void match(const SdimMatchParams &p) {
    u32 lane = threadIdx.x % WARP;
    Piece piece = p.pieces[blockIdx.x];
    u64 begin = p.offsets[piece.user] * p.groups, end = p.offsets[piece.user + 1] * p.groups;
    for (u32 i = threadIdx.x / WARP; i < piece.length; i += WARPS) {
        u64 row = piece.history_start + i;
        for (u32 first_column = lane; first_column < p.width + lane; first_column += WARP * MATCH_COLUMNS) {
            float sum[MATCH_COLUMNS] = {};
            add_matches(sum, p, begin, end, row, first_column);
#pragma unroll
            for (u32 e = 0; e < MATCH_COLUMNS; e++) {
                u32 column = first_column + e * WARP;
                u64 to = row * p.width + column;
                if (column < p.width && p.narrow) {
                    ((T *)p.out)[to] = narrow<T>(sum[e]);
                } else if (column < p.width) {
                    ((float *)p.out)[to] = sum[e];
                }
            }
        }
    }
}

// Half the warps of a multiprocessor: with a higher target, ptxas spills.
#define VARIANTS(T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP, 8)                                           \
        sdim_target_gradients_##T(const SdimTargetGradientParams p) {                                      \
        target_gradients<T>(p);                                                                            \
    }                                                                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP, 8) sdim_match_##T(const SdimMatchParams p) { \
        match<T>(p);                                                                                       \
    }
VARIANTS(f32)
VARIANTS(f16)
VARIANTS(bf16)
