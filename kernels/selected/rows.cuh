// The rows that a candidate keeps, as one head of it reads them, and their weights.
//
// A block takes a head of a candidate. Adjacent lanes share a row, one vector of 16 bytes each, at most a warp; the groups of
// lanes take the kept behaviours in turn, with several rows in flight each. A wider row is read in parts, one after the other.
//
// `places` has for each slot where its behaviour is, from the history's first; NONE: it is removed, and none of its rows are
// read. Positions and counts come from the caller: those out of range are reported, and removed.
#pragma once
#include "shared/loose.cuh"

enum : u32 {
    MOST_THREADS = 256,
    MOST_WARPS = MOST_THREADS / WARP,
    // Rows that a thread has in flight.
    AHEAD = 4,
    // Turns over rows that are added up before they are added to the rest.
    TURNS_PER_BLOCK = 64,
};

struct SelectedInputs {
    // One candidate each.
    const Tile *tiles;
    const void *queries;
    const void *keys;
    const void *values;
    // [N, H] and [H, 3]; null: zeros, and 1, 0, 0.
    const float *bias;
    const float *gammas;
    // [M, K], [M, K] and [M].
    const u32 *positions;
    const float *similarities;
    const u32 *counts;
    // Records for counts above K, and for positions outside their history.
    u64 *bad_counts, *bad_positions;
    u32 top_k;
    // H, H_kv, and the heads of queries that share one of keys.
    u32 heads, kv_heads, group;
    u32 width, value_width;
    float scale;
    u32 unused;
};

// A head of a candidate.
struct Reader {
    u64 candidate, first_slot;
    // Its row of [M, H].
    u64 row;
    // The user's first behaviour, and their number.
    u64 history, length;
    u32 head, kv_head, count;
    // γ₁, γ₂, γ₃. One of 0 leaves its term out.
    float of_score, of_similarity, of_product;

    __device__ __forceinline__ bool uses_scores() const { return of_score != 0.0f || of_product != 0.0f; }
};

// One head of the rows of keys or values.
struct KeptRows {
    // Of the history's first behaviour.
    const u8 *first;
    // Bytes from a behaviour to the next, and of the head's part.
    u32 stride, bytes;
    // Vectors that hold it, and the lanes that share it: a power of two, and its logarithm.
    u32 vectors, lanes, shift;
    Access access;

    // This thread's among the lanes of a row, its group, and the groups of the block.
    __device__ __forceinline__ u32 lane() const { return threadIdx.x & (lanes - 1); }
    __device__ __forceinline__ u32 group() const { return threadIdx.x >> shift; }
    __device__ __forceinline__ u32 groups() const { return blockDim.x >> shift; }
    // The row of a behaviour.
    __device__ __forceinline__ const u8 *row(u32 place) const {
        return (const u8 *)multiply_add_wide(place, stride, (u64)first);
    }
};

__device__ __forceinline__ Reader reader_of(const SelectedInputs &p) {
    const Tile tile = p.tiles[blockIdx.x / p.heads];
    Reader r;
    r.head = blockIdx.x % p.heads;
    r.kv_head = r.head / p.group;
    r.candidate = tile.first_target + tile.first_row;
    r.first_slot = r.candidate * p.top_k;
    r.row = r.candidate * p.heads + r.head;
    r.history = tile.history_start;
    r.length = tile.history_end - tile.history_start;
    r.count = __ldg(p.counts + r.candidate);
    if (r.count > p.top_k) {
        if (threadIdx.x == 0) {
            report_bad_id(p.bad_counts, r.candidate, r.count);
        }
        r.count = 0;
    }
    r.of_score = p.gammas ? __ldg(p.gammas + 3 * r.head) : 1.0f;
    r.of_similarity = p.gammas ? __ldg(p.gammas + 3 * r.head + 1) : 0.0f;
    r.of_product = p.gammas ? __ldg(p.gammas + 3 * r.head + 2) : 0.0f;
    return r;
}

__device__ __forceinline__ Access access_of(const void *row, u32 bytes) {
    const u32 low = (u32)(u64)row | bytes;
    return low % sizeof(Vector) == 0 ? VECTORS : low % sizeof(u32) == 0 ? WORDS
                                                                        : NUMBERS;
}

// The reader's head of [N, H_kv, width].
template <typename T>
__device__ __forceinline__ KeptRows rows_of(const SelectedInputs &p, const Reader &r, const void *rows, u32 width) {
    KeptRows out;
    out.bytes = width * sizeof(T);
    out.stride = p.kv_heads * out.bytes;
    out.first = (const u8 *)rows + r.history * out.stride + r.kv_head * out.bytes;
    out.vectors = (out.bytes + sizeof(Vector) - 1) / sizeof(Vector);
    out.shift = 32 - __clz(min(out.vectors, (u32)WARP) - 1);
    out.lanes = 1u << out.shift;
    out.access = access_of(out.first, out.bytes);
    return out;
}

// A vector of a row, padded with zeros.
template <typename T>
__device__ __forceinline__ Vector part_of(const u8 *row, u32 vector, u32 bytes, Access access) {
    if (access == VECTORS) {
        return load_vector(row + sizeof(Vector) * vector);
    }
    Vector out;
    loose_words<sizeof(T), 4>(out.words, row, sizeof(Vector) * vector, bytes, access == WORDS);
    return out;
}

// Stores the numbers of a vector that are within the row.
template <typename T>
__device__ __forceinline__ void store_part(T *row, u32 vector, u32 width, const float *numbers) {
    T *to = row + PER_VECTOR<T> * vector;
    const u32 left = width - PER_VECTOR<T> * vector;
    if (left >= PER_VECTOR<T> && (u64)to % sizeof(Vector) == 0) {
        store_vector(to, narrow_vector<T>(numbers));
        return;
    }
#pragma unroll
    for (u32 i = 0; i < PER_VECTOR<T>; i++) {
        if (i < left) {
            to[i] = narrow<T>(numbers[i]);
        }
    }
}

// Finds the kept behaviours that neither their similarity nor their bias removes.
__device__ __forceinline__ void find_places(const SelectedInputs &p, const Reader &r, u32 *places) {
    for (u32 k = threadIdx.x; k < r.count; k += blockDim.x) {
        const u64 slot = r.first_slot + k;
        const u32 position = __ldg(p.positions + slot);
        bool stays = position < r.length;
        if (!stays) {
            report_bad_id(p.bad_positions, slot, position);
        } else {
            stays = __ldg(p.similarities + slot) != -infinity();
            stays &= !p.bias || __ldg(p.bias + (r.history + position) * p.heads + r.head) != -infinity();
        }
        places[k] = stays ? position : (u32)NONE;
    }
}

// The sum over the adjacent lanes that share a row.
__device__ __forceinline__ float over_lanes(float value, u32 lanes) {
    for (u32 other = lanes / 2; other > 0; other /= 2) {
        value += shuffle_xor(value, other);
    }
    return value;
}

// out[k] = ⟨row of slot k, `with`⟩, of those that stay. Others must have finished with `places`. `with` is stored as rows are, or in f32.
template <typename T, typename With>
__device__ __forceinline__ void multiply_rows(
    const KeptRows &rows, const With *with, const u32 *places, u32 count, float *out) {
    constexpr u32 PER = PER_VECTOR<T>;
    const u32 lane = rows.lane(), group = rows.group(), groups = rows.groups();
    const Access access = access_of(with, rows.bytes);
    for (u32 first = 0; first < rows.vectors; first += rows.lanes) {
        const u32 vector = first + lane;
        const bool there = vector < rows.vectors;
        float factors[PER];
        if constexpr (sizeof(With) == sizeof(T)) {
            widen_vector<T>(there ? part_of<T>((const u8 *)with, vector, rows.bytes, access) : Vector{}, factors);
        } else {
            const u32 left = there ? rows.bytes / sizeof(T) - PER * vector : 0;
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                factors[e] = e < left ? with[PER * vector + e] : 0.0f;
            }
        }
        for (u32 begin = 0; begin < count; begin += AHEAD * groups) {
            u32 own[AHEAD];
            Vector parts[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 k = begin + i * groups + group;
                own[i] = k < count ? places[k] : (u32)NONE;
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const bool reads = there && own[i] != NONE;
                parts[i] = reads ? part_of<T>(rows.row(own[i]), vector, rows.bytes, rows.access) : Vector{};
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                float numbers[PER], product = 0.0f;
                widen_vector<T>(parts[i], numbers);
#pragma unroll
                for (u32 e = 0; e < PER; e++) {
                    product = fma(numbers[e], factors[e], product);
                }
                product = over_lanes(product, rows.lanes);
                if (lane == 0 && own[i] != NONE) {
                    float *to = out + begin + i * groups + group;
                    *to = first > 0 ? *to + product : product;
                }
            }
        }
    }
}

// sum = Σ factor · row over the slots of this thread's group that stay, of one vector of each row. A factor of 0 counts:
// 0·NaN is NaN.
template <typename T>
__device__ __forceinline__ void sum_rows(
    const KeptRows &rows, u32 vector, const u32 *places, const float *factors, u32 count, float *sum) {
    constexpr u32 PER = PER_VECTOR<T>;
    const u32 group = rows.group(), groups = rows.groups();
    const bool there = vector < rows.vectors;
    // In blocks, so that the error does not grow with the number of slots.
    float block[PER] = {};
#pragma unroll
    for (u32 e = 0; e < PER; e++) {
        sum[e] = 0.0f;
    }
    for (u32 begin = group, turn = 1; begin < count; begin += AHEAD * groups, turn++) {
        float weights[AHEAD];
        Vector parts[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 k = begin + i * groups, place = k < count ? places[k] : (u32)NONE;
            const bool reads = there && place != NONE;
            weights[i] = place != NONE ? factors[k] : 0.0f;
            parts[i] = reads ? part_of<T>(rows.row(place), vector, rows.bytes, rows.access) : Vector{};
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            float numbers[PER];
            widen_vector<T>(parts[i], numbers);
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                block[e] = fma(weights[i], numbers[e], block[e]);
            }
        }
        if (turn % TURNS_PER_BLOCK == 0) {
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                sum[e] += block[e];
                block[e] = 0.0f;
            }
        }
    }
#pragma unroll
    for (u32 e = 0; e < PER; e++) {
        sum[e] += block[e];
    }
}

// Adds the sums of all groups of lanes up, for the first: always in the same order. `shared` has a place for each number of each
// thread. All threads call it together.
template <u32 PER>
__device__ __forceinline__ void over_groups(float *sum, u32 lanes, float *shared) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (u32 other = lanes; other < WARP; other *= 2) {
#pragma unroll
        for (u32 e = 0; e < PER; e++) {
            sum[e] += shuffle_xor(sum[e], other);
        }
    }
    // What an earlier call left has been read.
    __syncthreads();
    if (lane < lanes) {
#pragma unroll
        for (u32 e = 0; e < PER; e++) {
            shared[(warp * PER + e) * WARP + lane] = sum[e];
        }
    }
    __syncthreads();
    if (threadIdx.x < lanes) {
        for (u32 other = 1; other < blockDim.x / WARP; other++) {
#pragma unroll
            for (u32 e = 0; e < PER; e++) {
                sum[e] += shared[(other * PER + e) * WARP + lane];
            }
        }
    }
}

// Reduces over all threads of a block, always in the same order.
template <bool SUM>
__device__ __forceinline__ float over_block(float value) {
    __shared__ float of_warps[MOST_WARPS];
    value = SUM ? warp_sum(value) : warp_max(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        of_warps[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    value = of_warps[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++) {
        value = SUM ? value + of_warps[warp] : fmaxf(value, of_warps[warp]);
    }
    return value;
}

// The factor times the number, or nothing if the factor is 0.
__device__ __forceinline__ float term(float factor, float number) { return factor == 0.0f ? 0.0f : factor * number; }

// Of an online softmax: the largest α, and Σ exp(α − max).
struct State {
    float row_max, row_sum;
};

// From ⟨q, k⟩ of each slot, where scores are wanted, to exp(α − max); removes what an s or an α of -∞ removes. Scores go to
// `scores`, if there is such a list. A thread has the slots threadIdx.x, threadIdx.x + blockDim.x, … to itself. NaN is not
// dropped: its weight is NaN.
__device__ __forceinline__ State weigh(
    const SelectedInputs &p, const Reader &r, bool scored, u32 *places, float *weights, float *scores) {
    State state = {-infinity(), 0.0f};
    for (u32 k = threadIdx.x; k < r.count; k += blockDim.x) {
        const u32 place = places[k];
        if (place == NONE) {
            continue;
        }
        const float similarity = __ldg(p.similarities + r.first_slot + k);
        const float bias = p.bias ? __ldg(p.bias + (r.history + place) * p.heads + r.head) : 0.0f;
        const float score = scored ? fma(weights[k], p.scale, bias) : 0.0f;
        float alpha = term(r.of_similarity, similarity);
        if (r.uses_scores()) {
            alpha += term(r.of_score, score) + term(r.of_product, score * similarity);
            alpha = score == -infinity() ? -infinity() : alpha;
        }
        weights[k] = alpha;
        if (scores) {
            scores[k] = score;
        }
        places[k] = alpha == -infinity() ? (u32)NONE : place;
        state.row_max = fmaxf(state.row_max, alpha);
    }
    state.row_max = over_block<false>(state.row_max);
    for (u32 k = threadIdx.x; k < r.count; k += blockDim.x) {
        if (places[k] != NONE) {
            weights[k] = exp_approx(weights[k] - state.row_max);
            state.row_sum += weights[k];
        }
    }
    state.row_sum = over_block<true>(state.row_sum);
    return state;
}
