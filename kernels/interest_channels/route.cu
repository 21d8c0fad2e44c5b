// Where behaviours go: to the one of a candidate's axes (axes.cu) that they point along most.
//
//     A_li = ⟨e_l, O_i⟩        channel(l) = argmax_i A_li, the first of equal ones
//
// A block takes 256 behaviours and some candidates. Rows come to shared memory 32 numbers at a time, in f32; a thread multiplies two
// behaviours with 16 axes, one after the other those of all candidates, and keeps the best of each candidate's. It writes where each
// behaviour goes, and the key of its score there or, where channels keep the best among all, along every axis.
// Scores are f32 multiply-adds in the order of the row, of axes rounded to f32.
#include "interest_channels/axes.cuh"
#include "selection/lists.cuh"

enum : u32 {
    THREADS = 128,
    // Behaviours of a thread, and of a block.
    OWN = 2,
    BEHAVIOURS = OWN * THREADS,
    // Axes, and numbers of a row, that are in shared memory at a time.
    ROWS = 16,
    COLUMNS = 32,
    PITCH = COLUMNS + 4,
};

// Some candidates of a user against some of the user's behaviours. Candidates and pairs of one and a behaviour are counted within the part
// of the batch that is computed together; a candidate's pairs are adjacent.
struct ChannelPiece {
    // The first behaviour of the piece; the pair of its first candidate with the user's first behaviour.
    u64 history_start, first_pair, first_target;
    u32 targets, length;
    // The position of the first behaviour in the history, and the length of that.
    u32 first_position, history_length;
};
static_assert(sizeof(ChannelPiece) == 40, "twin in src/cuda/interest_channels/parts.rs");

struct ChannelsRouteParams {
    const ChannelPiece *pieces;
    // [candidates, c, d] and [candidates, c].
    const float *axes;
    const u32 *states;
    // [N, d].
    const void *history;
    // Keys of scores: [pairs] or, among all, for each candidate [c, L].
    u32 *keys;
    // [pairs]: the channel that each behaviour goes to; NONE: the candidate has none.
    u32 *routed;
    u32 channels, width;
    // Whether keys are those along every axis.
    u32 all;
    // Whether rows of the history are whole vectors.
    u32 vectors;
};

// Stages numbers of the piece's behaviours from a column on, padded with zeros.
template <typename T>
__device__ __forceinline__ void stage_behaviours(
    const ChannelsRouteParams &p, const ChannelPiece &piece, u32 first, float *to) {
    const T *from = (const T *)p.history + piece.history_start * p.width + first;
    const u32 left = p.width - first;
    if (!p.vectors) {
#pragma unroll 2
        for (u32 item = threadIdx.x; item < BEHAVIOURS * COLUMNS; item += THREADS) {
            const u32 row = item / COLUMNS, column = item % COLUMNS;
            const bool there = row < piece.length && column < left;
            to[row * PITCH + column] = there ? widen(from[(u64)row * p.width + column]) : 0.0f;
        }
        return;
    }
    constexpr u32 PER = PER_VECTOR<T>, LANES = COLUMNS / PER;
#pragma unroll 4
    for (u32 item = threadIdx.x; item < BEHAVIOURS * LANES; item += THREADS) {
        const u32 row = item / LANES, column = item % LANES * PER;
        const bool there = row < piece.length && column < left;
        alignas(16) float numbers[PER];
        widen_vector<T>(there ? load_vector(from + (u64)row * p.width + column) : Vector{}, numbers);
#pragma unroll
        for (u32 e = 0; e < PER; e += 4) {
            *(float4 *)(to + row * PITCH + column + e) = *(const float4 *)(numbers + e);
        }
    }
}

// Stages numbers of ROWS axes of the piece's candidates, of which `left` exist.
__device__ __forceinline__ void stage_axes(
    const ChannelsRouteParams &p, u64 first_row, u32 rows_left, u32 first, float *to) {
#pragma unroll
    for (u32 item = threadIdx.x; item < ROWS * COLUMNS; item += THREADS) {
        const u32 row = item / COLUMNS, column = item % COLUMNS;
        const bool there = row < rows_left && column < p.width - first;
        to[row * PITCH + column] = there ? p.axes[(first_row + row) * p.width + first + column] : 0.0f;
    }
}

__device__ __forceinline__ void add_products(
    const float *behaviours, const float *axes, u32 columns, float (&scores)[ROWS][OWN]) {
    behaviours += threadIdx.x * PITCH;
#pragma unroll 1
    for (u32 column = 0; column < columns; column += 4) {
        float4 own[OWN];
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            own[o] = *(const float4 *)(behaviours + o * THREADS * PITCH + column);
        }
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            const float4 axis = *(const float4 *)(axes + r * PITCH + column);
#pragma unroll
            for (u32 o = 0; o < OWN; o++) {
                scores[r][o] = fma(own[o].x, axis.x, scores[r][o]);
                scores[r][o] = fma(own[o].y, axis.y, scores[r][o]);
                scores[r][o] = fma(own[o].z, axis.z, scores[r][o]);
                scores[r][o] = fma(own[o].w, axis.w, scores[r][o]);
            }
        }
    }
}

// The key of a score: the upper half of its entry.
__device__ __forceinline__ u32 score_key(float score) { return key_of(entry_of(score, 0)); }

// Where this thread's behaviours go, as far as the axes of the current candidate are known.
struct Routing {
    const ChannelsRouteParams &p;
    const ChannelPiece &piece;
    // The candidate, its next axis, and the best so far.
    u32 target, axis;
    float best[OWN];
    u32 channel[OWN];

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            best[o] = -infinity();
            channel[o] = NONE;
        }
    }
    __device__ __forceinline__ u32 behaviour(u32 o) const { return o * THREADS + threadIdx.x; }
    __device__ __forceinline__ u64 first_pair() const { return piece.first_pair + (u64)target * piece.history_length; }

    // The next axis.
    __device__ __forceinline__ void add(const float (&scores)[OWN], bool is_channel) {
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            if (!is_channel) {
                continue;
            }
            // NaN unless it is finite. A behaviour with scores of NaN, none of which is larger than another, stays in the first channel.
            const float score = scores[o] + (scores[o] - scores[o]);
            channel[o] = channel[o] == NONE ? axis : channel[o];
            if (best[o] < score) {
                best[o] = score;
                channel[o] = axis;
            }
            if (p.all && behaviour(o) < piece.length) {
                const u64 row = first_pair() * p.channels + (u64)axis * piece.history_length;
                p.keys[row + piece.first_position + behaviour(o)] = score_key(score);
            }
        }
        axis++;
        if (axis < p.channels) {
            return;
        }
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            if (behaviour(o) < piece.length) {
                const u64 pair = first_pair() + piece.first_position + behaviour(o);
                p.routed[pair] = channel[o];
                if (!p.all) {
                    p.keys[pair] = score_key(best[o] == -infinity() ? not_a_number() : best[o]);
                }
            }
        }
        axis = 0;
        target++;
        begin();
    }
};

template <typename T>
__device__ __forceinline__ void route(const ChannelsRouteParams &p) {
    __shared__ alignas(16) float behaviours[BEHAVIOURS * PITCH];
    __shared__ alignas(16) float axes[ROWS * PITCH];
    const ChannelPiece piece = p.pieces[blockIdx.x];
    const u32 rows = piece.targets * p.channels;
    const u64 first_axis = piece.first_target * p.channels;
    Routing routing = {p, piece, 0, 0};
    routing.begin();
    for (u32 first_row = 0; first_row < rows; first_row += ROWS) {
        float scores[ROWS][OWN] = {};
        for (u32 first = 0; first < p.width; first += COLUMNS) {
            // Others have finished with what is overwritten.
            __syncthreads();
            stage_behaviours<T>(p, piece, first, behaviours);
            stage_axes(p, first_axis + first_row, rows - first_row, first, axes);
            __syncthreads();
            add_products(behaviours, axes, min((u32)COLUMNS, p.width - first), scores);
        }
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            if (first_row + r < rows) {
                routing.add(scores[r], p.states[first_axis + first_row + r] == IS_CHANNEL);
            }
        }
    }
}

#define ROUTE(T) \
    extern "C" __global__ void __launch_bounds__(THREADS) channels_route_##T(const ChannelsRouteParams p) { route<T>(p); }

ROUTE(f32)
ROUTE(f16)
ROUTE(bf16)
