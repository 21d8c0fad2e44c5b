// Axes of candidates at right angles, and their gradients.
//
// channels_axes: O·R = M, of the c axes of a candidate in their order (Gram–Schmidt). Each projection is taken out twice: what
// rounding leaves of the first time would be large against a short rest.
//
//     rest_i = M_i − Σ_{j<i} O_j·R_ji        R_ii = ‖rest_i‖        O_i = rest_i/R_ii; zeros where rest_i is no more than DEPENDENT of M_i
//
// channels_axes_gradients: dM from dO, for i from c down to 1:
//
//     dv = (dO_i − O_i·⟨O_i, dO_i⟩)/R_ii     dM_i = dv − Σ_{j<i} O_j·⟨O_j, dv⟩     dO_j −= R_ji·dv + ⟨O_j, dv⟩·M_i
//
// A warp takes a candidate, a lane every 32nd number of each row: what a lane writes, it alone reads. In f64, since axes are few and
// their rounding errors would be those of every score.
#include "interest_channels/axes.cuh"

enum : u32 {
    THREADS = 128,
    WARPS = THREADS / WARP,
};

// An axis of which no more than this part of its length is at right angles to the axes before it depends on them.
constexpr double DEPENDENT = 1e-5;

struct ChannelsAxesParams {
    // [M, c, d].
    const void *matrices;
    // [M, c, d]: O, in f64 and in f32; zeros where there is no channel.
    double *wide;
    float *axes;
    // [M, c, c]: R, of which the part below the diagonal is not written; null: not wanted.
    double *triangle;
    // [M, c]: one of AxisState.
    u32 *states;
    // The record for axes that depend on those before them, by their numbers in [M, c]; null: they are not reported.
    u64 *dependent;
    u64 candidates;
    // The number of the first candidate in the record.
    u64 first_candidate;
    u32 channels, width;
};

__device__ __forceinline__ double dot(const double *a, const double *b, u32 width) {
    double sum = 0.0;
    for (u32 column = threadIdx.x % WARP; column < width; column += WARP) {
        sum = __fma_rn(a[column], b[column], sum);
    }
    return sum_over_warp(sum);
}

// sum += factor·row
__device__ __forceinline__ void add_row(double *sum, double factor, const double *row, u32 width) {
    for (u32 column = threadIdx.x % WARP; column < width; column += WARP) {
        sum[column] = __fma_rn(factor, row[column], sum[column]);
    }
}

template <typename T>
__device__ __forceinline__ bool are_finite(const T *numbers, u64 count) {
    bool finite = true;
    for (u64 i = threadIdx.x % WARP; i < count; i += WARP) {
        finite &= is_finite(widen(numbers[i]));
    }
    return __all_sync(WHOLE_WARP, finite);
}

template <typename T>
__device__ __forceinline__ void axes(const ChannelsAxesParams &p) {
    const u32 lane = threadIdx.x % WARP, channels = p.channels, width = p.width;
    const u64 m = (u64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (m >= p.candidates) {
        return;
    }
    const u64 first = m * channels * width;
    const T *matrix = (const T *)p.matrices + first;
    double *rows = p.wide + first;
    double *triangle = p.triangle ? p.triangle + m * channels * channels : nullptr;
    const bool finite = are_finite(matrix, (u64)channels * width);
    for (u32 i = 0; i < channels; i++) {
        double *rest = rows + (u64)i * width;
        for (u32 column = lane; column < width; column += WARP) {
            rest[column] = (double)widen(matrix[(u64)i * width + column]);
        }
        const double whole = __dsqrt_rn(dot(rest, rest, width));
        for (u32 j = 0; j < i; j++) {
            if (triangle && lane == 0) {
                triangle[(u64)j * channels + i] = 0.0;
            }
        }
        for (u32 turn = 0; turn < 2; turn++) {
            for (u32 j = 0; j < i; j++) {
                const double *axis = rows + (u64)j * width;
                const double along = dot(axis, rest, width);
                if (triangle && lane == 0) {
                    triangle[(u64)j * channels + i] += along;
                }
                add_row(rest, -along, axis, width);
            }
        }
        const double length = __dsqrt_rn(dot(rest, rest, width));
        const bool depends = length <= DEPENDENT * whole, is_channel = finite && !depends;
        for (u32 column = lane; column < width; column += WARP) {
            const double number = is_channel ? rest[column] / length : 0.0;
            rest[column] = number;
            p.axes[first + (u64)i * width + column] = (float)number;
        }
        if (lane == 0) {
            p.states[m * channels + i] = !finite ? NOT_FINITE : is_channel ? IS_CHANNEL
                                                                           : NO_CHANNEL;
            if (triangle) {
                triangle[(u64)i * channels + i] = is_channel ? length : 0.0;
            }
            if (finite && depends && p.dependent) {
                report_bad_id(p.dependent, (p.first_candidate + m) * channels + i, 0);
            }
        }
    }
}

struct ChannelsAxesGradientParams {
    // What channels_axes read and wrote.
    const void *matrices;
    const double *wide;
    const double *triangle;
    const u32 *states;
    // [M, c, d]: dO.
    const float *grads;
    // [M, c + 1, d]: changed gradients of O, and dv.
    double *work;
    // [M, c, d].
    void *out;
    u64 candidates;
    u32 channels, width;
    // Whether `out` is f32 whatever the matrices are.
    u32 is_wide;
    u32 unused;
};

template <typename T>
__device__ __forceinline__ void store(const ChannelsAxesGradientParams &p, u64 at, float number) {
    if (p.is_wide) {
        ((float *)p.out)[at] = number;
    } else {
        ((T *)p.out)[at] = narrow<T>(number);
    }
}

template <typename T>
__device__ __forceinline__ void axes_gradients(const ChannelsAxesGradientParams &p) {
    const u32 lane = threadIdx.x % WARP, channels = p.channels, width = p.width;
    const u64 m = (u64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (m >= p.candidates) {
        return;
    }
    const u64 first = m * channels * width;
    const T *matrix = (const T *)p.matrices + first;
    const double *rows = p.wide + first, *triangle = p.triangle + m * channels * channels;
    double *grads = p.work + m * (channels + 1) * width, *rest = grads + (u64)channels * width;
    for (u32 i = 0; i < channels; i++) {
        for (u32 column = lane; column < width; column += WARP) {
            grads[(u64)i * width + column] = (double)p.grads[first + (u64)i * width + column];
        }
    }
    for (u32 i = channels; i-- > 0;) {
        const double *axis = rows + (u64)i * width;
        double *own = grads + (u64)i * width;
        const u32 state = p.states[m * channels + i];
        if (state == IS_CHANNEL) {
            add_row(own, -dot(axis, own, width), axis, width);
            const double length = triangle[(u64)i * channels + i];
            for (u32 column = lane; column < width; column += WARP) {
                const double number = own[column] / length;
                own[column] = number;
                rest[column] = number;
            }
            for (u32 j = 0; j < i; j++) {
                const double *other = rows + (u64)j * width;
                double *before = grads + (u64)j * width;
                const double along = dot(other, rest, width), part = triangle[(u64)j * channels + i];
                add_row(own, -along, other, width);
                add_row(before, -part, rest, width);
                for (u32 column = lane; column < width; column += WARP) {
                    const double number = (double)widen(matrix[(u64)i * width + column]);
                    before[column] = __fma_rn(-along, number, before[column]);
                }
            }
        }
        for (u32 column = lane; column < width; column += WARP) {
            float number = state == IS_CHANNEL ? (float)own[column] : 0.0f;
            store<T>(p, first + (u64)i * width + column, state == NOT_FINITE ? not_a_number() : number);
        }
    }
}

// Without the bound on blocks, ptxas aims at more on some devices, and spills.
#define AXES(T)                                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) channels_axes_##T(const ChannelsAxesParams p) { axes<T>(p); }     \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) channels_axes_gradients_##T(const ChannelsAxesGradientParams p) { \
        axes_gradients<T>(p);                                                                                                  \
    }

AXES(f32)
AXES(f16)
AXES(bf16)
