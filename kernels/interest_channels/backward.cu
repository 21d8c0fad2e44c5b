// Gradients of interest channels, of what was kept. Of a channel i of a candidate, with r and A as in interest_channels.cu:
//
//     dr = grad_out, or with r divided by its length (grad_out − u·⟨u, grad_out⟩)/‖r‖, u = r/‖r‖; grad_out/1e-12 where ‖r‖ is not above that
//     dO = (1/L) Σ_{l kept} ⟨dr, e_l⟩·e_l          de_l = (1/L) Σ (A_l·dr + ⟨dr, e_l⟩·O)
//
// channels_gradients_T: a block per channel computes scores of what is kept again, and dr, ⟨dr, e_l⟩ and dO from them (groups of lanes
// take rows in turn: selected/rows.cuh). What a behaviour gets from a channel is a number times dr and a number times O, so that no
// gradient of a behaviour is stored: for each slot the block writes its behaviour and both numbers with the row that they belong to.
// The slots are then sorted by behaviour and summed by the kernels of look-ups (lookup/sort.cu, lookup/backward.cu), and stored by
// selected_narrow. channels_axes_gradients (axes.cu) takes dO to the gradients of the axes. Sums have a fixed order.
#include "interest_channels/pool.cuh"

struct ChannelsGradientParams {
    // [M].
    const Tile *tiles;
    // [N, d].
    const void *history;
    // What channels_axes wrote.
    const float *axes;
    const u32 *states;
    // [M, c, K] and [M, c]; those out of range are reported, and left out.
    const u32 *positions;
    const u32 *counts;
    u64 *bad_counts, *bad_positions;
    // [M, c, d].
    const void *grad_out;
    // [M, c, K] each: what each slot has. Places are positions; NONE: the slot does not count.
    u32 *places;
    float *weights;
    float *slopes;
    // [M, c, d] each: r, where it is divided by its length, otherwise null; dr; dO, or null.
    float *sums;
    float *sum_grads;
    float *axis_grads;
    // [M, c, K] each: the behaviour of the slot, NONE: none; the channel and A/L; the channel and ⟨dr, e⟩/L. Null: not wanted.
    u32 *rows;
    uint2 *score_bags;
    uint2 *slope_bags;
    u32 channels, width, top_k;
    u32 unused;
};

// out [width] = Σ factor·row over the slots that count.
template <typename T>
__device__ __forceinline__ void sum_kept(
    const KeptRows &rows, const u32 *places, const float *factors, u32 count, u32 width, float *out) {
    constexpr u32 PER = PER_VECTOR<T>;
    for (u32 first = 0; first < rows.vectors; first += rows.lanes) {
        const u32 vector = first + rows.lane();
        float sum[PER];
        sum_rows<T>(rows, vector, places, factors, count, sum);
        over_groups<PER>(sum, rows.lanes, (float *)dynamic_shared);
        if (threadIdx.x < rows.lanes && vector < rows.vectors) {
            store_numbers<PER>(out, vector, width, sum);
        }
    }
}

// dr of grad_out, r being null where it is not divided by its length.
template <typename T>
__device__ __forceinline__ void write_sum_gradient(const T *grad_out, const float *sums, u32 width, float *out) {
    double norm = 1.0, along = 0.0;
    if (sums) {
        norm = norm_of(sums, width);
        const bool is_above = norm > MIN_NORM || norm != norm;
        for (u32 column = threadIdx.x; is_above && column < width; column += blockDim.x) {
            along = __fma_rn((double)sums[column] / norm, (double)widen(grad_out[column]), along);
        }
        along = sum_over_block(along);
        norm = is_above ? norm : MIN_NORM;
    }
    for (u32 column = threadIdx.x; column < width; column += blockDim.x) {
        double grad = (double)widen(grad_out[column]);
        if (sums) {
            grad = __fma_rn(-along, (double)sums[column] / norm, grad) / norm;
        }
        out[column] = (float)grad;
    }
}

template <typename T>
__device__ __forceinline__ void gradients(const ChannelsGradientParams &p) {
    const u64 list = blockIdx.x, slots = list * p.top_k, numbers = list * p.width;
    const Tile &tile = p.tiles[list / p.channels];
    const u64 history = tile.history_start, length = tile.history_end - history;
    const bool is_channel = p.states[list] == IS_CHANNEL;
    u32 count = __ldg(p.counts + list);
    if (count > p.top_k) {
        if (threadIdx.x == 0) {
            report_bad_id(p.bad_counts, list, count);
        }
        count = 0;
    }
    u32 *places = p.places + slots;
    float *weights = p.weights + slots, *slopes = p.slopes + slots;
    for (u32 k = threadIdx.x; k < count; k += blockDim.x) {
        const u32 position = __ldg(p.positions + slots + k);
        const bool stays = position < length;
        if (!stays) {
            report_bad_id(p.bad_positions, slots + k, position);
        }
        places[k] = stays && is_channel ? position : (u32)NONE;
    }
    __syncthreads();
    const KeptRows rows = whole_rows<T>(p.history, history, p.width);
    multiply_rows<T>(rows, p.axes + numbers, places, count, weights);
    __syncthreads();
    for (u32 k = threadIdx.x; k < count; k += blockDim.x) {
        weights[k] = places[k] != NONE ? weights[k] / (float)length : 0.0f;
    }
    __syncthreads();
    float *sums = p.sums ? p.sums + numbers : nullptr, *sum_grads = p.sum_grads + numbers;
    if (sums) {
        sum_kept<T>(rows, places, weights, count, p.width, sums);
        __syncthreads();
    }
    write_sum_gradient((const T *)p.grad_out + numbers, sums, p.width, sum_grads);
    __syncthreads();
    multiply_rows<T>(rows, sum_grads, places, count, slopes);
    __syncthreads();
    for (u32 k = threadIdx.x; k < p.top_k; k += blockDim.x) {
        const bool counts = k < count && places[k] != NONE;
        const float slope = counts ? slopes[k] / (float)length : 0.0f;
        if (k < count) {
            slopes[k] = slope;
        }
        if (p.rows) {
            p.rows[slots + k] = counts ? (u32)(history + places[k]) : (u32)NONE;
            p.score_bags[slots + k] = make_uint2((u32)list, __float_as_uint(counts ? weights[k] : 0.0f));
            p.slope_bags[slots + k] = make_uint2((u32)list, __float_as_uint(slope));
        }
    }
    if (p.axis_grads) {
        __syncthreads();
        sum_kept<T>(rows, places, slopes, count, p.width, p.axis_grads + numbers);
    }
}

// Three blocks per multiprocessor, as of attention over a selection.
#define GRADIENTS(T)                                                                                                       \
    LAYOUT(channels_gradients_##T, 32 * PER_VECTOR<T> * sizeof(float), 256 * PER_VECTOR<T> * sizeof(float));               \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 3) channels_gradients_##T(const ChannelsGradientParams p) { \
        gradients<T>(p);                                                                                                   \
    }

GRADIENTS(f32)
GRADIENTS(f16)
GRADIENTS(bf16)
