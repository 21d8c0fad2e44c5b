// A step of an optimiser on the rows of a table that have a gradient; formulas in src/ops/lookup/update_rows.rs.
//
// A team of 1 to 32 lanes, a power of two, takes a row, a lane every so many vec4s of it. Row-wise Adagrad needs the sum of squares of
// the row first, which the lanes of a team add up. Rows have one team each: nothing is written twice.
// Precision: f32; a row of 16-bit numbers is rounded once.
#include "lookup/order.cuh"
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 256
};

// As src/gpu/lookup.rs numbers them.
enum Method : u32 {
    SGD,
    ROW_WISE_ADAGRAD,
    ADAGRAD,
    ADAM,
};

struct UpdateRowsParams {
    const u32 *ids;
    const float *gradient;
    const u32 *count;
    const u32 *is_wrong;
    void *table;
    // Sums or first moments, and second moments.
    float *first, *second;
    u32 width;
    u32 storage;
    u32 method;
    // Lanes of a team.
    u32 lanes;
    // Whether rows of the gradient, the table and the states can be read a vec4 at a time.
    u32 vectors;
    float rate;
    // What remains of a weight.
    float kept;
    float eps;
    float beta1, beta2, new1, new2;
    // Correct the bias of the moments.
    float mean, square;
};

template <typename T>
__device__ __forceinline__ Vec4 read_numbers(const T *from, u32 left, bool vectors) {
    Vec4 out = zeros();
    if (vectors) {
        if constexpr (sizeof(T) == 4) {
            return get_vec4((const Vec4 *)from);
        } else {
            uint2 pairs = *(const uint2 *)from;
            widen_pair<T>(pairs.x, out.numbers);
            widen_pair<T>(pairs.y, out.numbers + 2);
            return out;
        }
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        if (e < left) {
            out.numbers[e] = widen(from[e]);
        }
    }
    return out;
}

template <typename T>
__device__ __forceinline__ void write_numbers(T *to, const Vec4 &value, u32 left, bool vectors) {
    if (vectors) {
        if constexpr (sizeof(T) == 4) {
            put_vec4((Vec4 *)to, value);
        } else {
            *(uint2 *)to = make_uint2(narrow_pair<T>(value.numbers[0], value.numbers[1]),
                                      narrow_pair<T>(value.numbers[2], value.numbers[3]));
        }
        return;
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        if (e < left) {
            to[e] = narrow<T>(value.numbers[e]);
        }
    }
}

// The step of a number.
__device__ __forceinline__ float stepped(const UpdateRowsParams &p, float w, float g, float factor, float &m, float &v) {
    switch (p.method) {
    case SGD:
        return p.kept * w - p.rate * g;
    case ROW_WISE_ADAGRAD:
        return p.kept * w - factor * g;
    case ADAGRAD:
        m += g * g;
        return p.kept * w - p.rate * (g / (sqrtf(m) + p.eps));
    default:
        m = p.beta1 * m + p.new1 * g;
        v = p.beta2 * v + p.new2 * (g * g);
        return p.kept * w - p.rate * (m * p.mean / (sqrtf(v * p.square) + p.eps));
    }
}

// The columns of a lane.
template <typename T>
__device__ __forceinline__ void update_columns(const UpdateRowsParams &p, u32 id, u64 index, u32 lane, float factor) {
    const float *gradient = p.gradient + index * p.width;
    const u64 start = (u64)id * p.width;
    T *row = (T *)p.table + start;
    for (u32 column = COLUMNS * lane; column < p.width; column += COLUMNS * p.lanes) {
        const u32 left = p.width - column;
        Vec4 g = read_numbers(gradient + column, left, p.vectors);
        Vec4 w = read_numbers(row + column, left, p.vectors), m = zeros(), v = zeros();
        if (p.method >= ADAGRAD) {
            m = read_numbers(p.first + start + column, left, p.vectors);
        }
        if (p.method == ADAM) {
            v = read_numbers(p.second + start + column, left, p.vectors);
        }
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            w.numbers[e] = stepped(p, w.numbers[e], g.numbers[e], factor, m.numbers[e], v.numbers[e]);
        }
        write_numbers(row + column, w, left, p.vectors);
        if (p.method >= ADAGRAD) {
            write_numbers(p.first + start + column, m, left, p.vectors);
        }
        if (p.method == ADAM) {
            write_numbers(p.second + start + column, v, left, p.vectors);
        }
    }
}

// Adds the mean square of a row's gradient to its sum, and returns the factor of the gradient. All lanes of a warp call it together.
__device__ __forceinline__ float row_factor(const UpdateRowsParams &p, bool is_row, u32 id, u64 index, u32 lane) {
    float squares = 0.0f, sum = 0.0f;
    for (u32 column = COLUMNS * lane; is_row && column < p.width; column += COLUMNS * p.lanes) {
        Vec4 g = read_numbers(p.gradient + index * p.width + column, p.width - column, p.vectors);
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            squares = fma(g.numbers[e], g.numbers[e], squares);
        }
    }
    for (u32 lanes = p.lanes / 2; lanes > 0; lanes /= 2) {
        squares += shuffle_xor(squares, lanes);
    }
    if (is_row && lane == 0) {
        sum = p.first[id] + squares / (float)p.width;
        p.first[id] = sum;
    }
    sum = __shfl_sync(WHOLE_WARP, sum, (int)(threadIdx.x % WARP / p.lanes * p.lanes));
    return p.rate / (sqrtf(sum) + p.eps);
}

extern "C" __global__ void __launch_bounds__(THREADS) update_rows(const UpdateRowsParams p) {
    const u32 teams = THREADS / p.lanes, lane = threadIdx.x % p.lanes;
    const u64 index = (u64)blockIdx.x * teams + threadIdx.x / p.lanes;
    const bool is_row = index < count_of(p.count, p.is_wrong);
    const u32 id = is_row ? __ldg(p.ids + index) : 0;
    float factor = 0.0f;
    if (p.method == ROW_WISE_ADAGRAD) {
        factor = row_factor(p, is_row, id, index, lane);
    }
    if (!is_row) {
        return;
    }
    switch (p.storage) {
    case STORED_F32:
        return update_columns<f32>(p, id, index, lane, factor);
    case STORED_F16:
        return update_columns<f16>(p, id, index, lane, factor);
    default:
        return update_columns<bf16>(p, id, index, lane, factor);
    }
}
