// DIN's local activation unit: a small network scores every pair of candidate and behaviour, and the scores pool the
// behaviours.
//
//     x = [q ; s ; q - s ; q*s]      a = W_out·f(… f(W1·x + b1) …) + b_out      out = sum over l of w(a_l)·s_l
//
// The first layer is folded: W1·x + b1 = [(Wq + Wd)·q + b1] + (Wk - Wd)·s + Wp·(q*s). The first term depends on the
// candidate alone (computed by `prepare`), the second on the behaviour, the third on the pair: d·h1 products per pair
// instead of the 4·d·h1 of the concatenation, and no tensor of behaviours × candidates.
//
// `attend`: a block takes a piece, up to 8 candidates of a user against a span of the user's history; a warp takes 16
// behaviours at a time, the 16 rows of a tile of the matrix units:
//   1. the behaviours are widened into the warp's shared memory, and (Wk - Wd)·s is computed for all candidates;
//   2. for each candidate, layer by layer, 32 units at a time: Wp·(q*s) plus the two other terms, and the activation. The
//      outputs, split into parts, already have the register layout of the next layer's inputs, and are kept for it in
//      shared memory. No intermediate result leaves the chip;
//   3. the scores of 16 behaviours × 8 candidates become weights, and the lanes, one output column each, add up the
//      weighted behaviours.
// Warps are combined at the end of the piece, in order; pieces by `combine`, in the order of the history.
//
// Precision: that of float, on matrix units that take 16-bit numbers. Every operand is split into bfloat16 parts, each
// the rounding error of those before: 3 for float (24 bits), 2 for what is computed from 16-bit storage (17 bits, more
// than a sum of so many terms keeps), 1 for bf16 weights, which are exact. The products of parts that matter (2, 3 and 6
// of them for bf16, f16 and float) are exact and summed in float. bfloat16 has the range of float, so f16 cannot
// overflow. On A100 six products still run at 2.7 times the rate of float multiply-adds.
//
// Weights are read in the order of mma's fragments, 256 consecutive bytes per warp, through L1, which the warps of a
// multiprocessor share; `prepare` lays them out. What does not fit a lane's registers is in shared memory, lane by lane,
// so its loads have no bank conflicts and need no barrier, and one kernel serves all sizes.
#include "din/layers.cuh"

// The number to subtract from scores with this maximum: 0 for -inf, since -inf - -inf is NaN. fmaxf drops NaN, so the maximum
// is never NaN, but e^(NaN - max) is, and stays in the sum.
__device__ __forceinline__ float base_of(float row_max) { return row_max == -infinity() ? 0.0f : row_max; }

// Turns the scores of `count` behaviours into weights. Lane l has candidate l % 8 and behaviours l / 8, l / 8 + 4, …,
// so that the numbers of a warp are adjacent; all four lanes of a candidate keep its max and sum.
__device__ void weigh(const DinAttendParams &p, const WarpMemory &memory, u32 count, float &row_max, float &row_sum) {
    const u32 lane = threadIdx.x % WARP, first = lane / TILE;
    float scores[4];
    float highest = -infinity();
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        scores[i] = memory.weights[lane + i * WARP];
        if (first + i * 4 < count) highest = fmaxf(highest, scores[i]);
    }
    highest = fmaxf(highest, shuffle_xor(highest, 8));
    highest = fmaxf(highest, shuffle_xor(highest, 16));
    const float before = row_max;
    row_max = fmaxf(row_max, highest);
    const float base = base_of(row_max), rescale = exp_approx(before - base);
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float weight = 0.0f;
        if (first + i * 4 < count) weight = p.softmax ? exp_approx(scores[i] - base) : scores[i];
        memory.weights[lane + i * WARP] = weight;
        sum += weight;
    }
    sum += shuffle_xor(sum, 8);
    sum += shuffle_xor(sum, 16);
    row_sum = fma(row_sum, rescale, sum);
    if (lane < TILE) memory.rescales[lane] = p.softmax ? rescale : 1.0f;
}

// Stands for the weight of a behaviour that does not count.
__device__ __forceinline__ float removed() { return -1.0f; }

// Turns scores into halves of normalised weights; max and sum are known.
__device__ void weigh_again(const WarpMemory &memory, u32 count) {
    const u32 lane = threadIdx.x % WARP, first = lane / TILE;
    const float base = base_of(memory.maxima[lane % TILE]), row_sum = memory.row_sums[lane % TILE];
#pragma unroll 1
    for (u32 i = 0; i < 4; i++) {
        const float score = memory.weights[lane + i * WARP];
        const bool counts = first + i * 4 < count && score != -infinity();
        memory.weights[lane + i * WARP] = counts ? exp_approx(score - base) / (2.0f * row_sum) : removed();
    }
}

// As pool, with weights of weigh_again: what a removed behaviour holds does not count.
__device__ void pool_again(const DinAttendParams &p, const WarpMemory &memory, u32 count) {
    for (u32 column = threadIdx.x % WARP; column < p.width; column += WARP) {
#pragma unroll 1
        for (u32 c = 0; c < TILE; c++) {
            float sum = 0.0f;
#pragma unroll 1
            for (u32 row = 0; row < count; row++) {
                const float weight = memory.weights[row * TILE + c];
                if (weight != removed()) sum = fma(weight, memory.behaviours[row * p.stride + column], sum);
            }
            memory.acc[c * p.stride + column] += sum;
        }
    }
}

// Whether a sum of the warp's is NaN, or so large that those of the block's warps might overflow, though all weights of its
// candidate are numbers.
__device__ bool is_spoilt(const DinAttendParams &p, const WarpMemory &memory) {
    bool spoilt = false;
#pragma unroll 1
    for (u32 c = 0; c < TILE; c++) {
        const bool numbers = memory.row_sums[c] == memory.row_sums[c];
#pragma unroll 1
        for (u32 column = threadIdx.x % WARP; column < p.width; column += WARP) {
            spoilt |= numbers && !(fabsf(memory.acc[c * p.stride + column]) < largest() / 8.0f);
        }
    }
    return __any_sync(WHOLE_WARP, spoilt);
}

// Adds the weighted behaviours, 16 by 16, so that no chain of additions is as long as a history. A lane owns columns; it takes
// two at a time, which share each load of the weights.
__device__ void pool(const DinAttendParams &p, const WarpMemory &memory, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 column = lane; column < p.width; column += 2 * WARP) {
        // If the row has no second column, it is in the padding: stride is at least 8, plus 32 for a warp.
        const bool both = column + WARP < p.width;
        float acc[2][TILE] = {};
        for (u32 row = 0; row < count; row++) {
            const float *weights = memory.weights + row * TILE;
            const float first = memory.behaviours[row * p.stride + column];
            const float second = both ? memory.behaviours[row * p.stride + column + WARP] : 0.0f;
#pragma unroll
            for (u32 c = 0; c < TILE; c++) {
                acc[0][c] = fma(weights[c], first, acc[0][c]);
                acc[1][c] = fma(weights[c], second, acc[1][c]);
            }
        }
#pragma unroll
        for (u32 c = 0; c < TILE; c++) {
            float *to = memory.acc + c * p.stride + column;
            *to = fma(*to, memory.rescales[c], acc[0][c]);
            if (both) to[WARP] = fma(to[WARP], memory.rescales[c], acc[1][c]);
        }
    }
}

// The factor that rescales the sums of a part to the common maximum. NaN stays in the sums of a part whose maximum is -inf.
__device__ __forceinline__ float rescale_of(float part_max, float row_max) { return exp_approx(part_max - base_of(row_max)); }

// The weight of a part's weighted sums, of which a negative sum of weights tells that they are divided by it, where half of the
// combined sums is wanted.
__device__ __forceinline__ float half_weight(float rescale, float part_sum, float row_sum) {
    return rescale * (part_sum < 0.0f ? -part_sum : 1.0f) / (2.0f * row_sum);
}

// Combines the warps, in order, and writes the output or the partial result.
template <typename T>
__device__ void finish(const DinAttendParams &p, const Piece &piece) {
    const u32 warps = blockDim.x / WARP;
    for (u32 i = threadIdx.x; i < piece.rows * p.width; i += blockDim.x) {
        const u32 row = i / p.width, column = i % p.width;
        float row_max = -infinity(), least = 0.0f;
        for (u32 warp = 0; warp < warps; warp++) {
            row_max = fmaxf(row_max, warp_memory<T>(p, warp).maxima[row]);
            least = fminf(least, warp_memory<T>(p, warp).row_sums[row]);
        }
        const bool again = p.softmax && least < 0.0f;
        float sum = 0.0f, row_sum = 0.0f;
        for (u32 warp = 0; warp < warps; warp++) {
            const WarpMemory memory = warp_memory<T>(p, warp);
            const float rescale = p.softmax ? rescale_of(memory.maxima[row], row_max) : 1.0f;
            sum = fma(memory.acc[row * p.stride + column], rescale, sum);
            row_sum = fma(again ? fabsf(memory.row_sums[row]) : memory.row_sums[row], rescale, row_sum);
        }
        if (again) {
            sum = 0.0f;
            for (u32 warp = 0; warp < warps; warp++) {
                const WarpMemory memory = warp_memory<T>(p, warp);
                const float rescale = rescale_of(memory.maxima[row], row_max);
                const float weight = half_weight(rescale, memory.row_sums[row], row_sum);
                sum = fma(memory.acc[row * p.stride + column], weight, sum);
            }
            sum = doubled(sum);
        }
        if (piece.slot != NONE) {
            p.partial[(u64(piece.slot) * TILE + row) * p.width + column] = sum;
            if (column == 0) {
                p.stats[(u64(piece.slot) * TILE + row) * 2] = row_max;
                p.stats[(u64(piece.slot) * TILE + row) * 2 + 1] = again ? -row_sum : row_sum;
            }
        } else {
            // Without weights the result is 0, not 0/0.
            if (p.softmax && !again) sum = row_sum == 0.0f ? 0.0f : sum * reciprocal_approx(row_sum);
            ((T *)p.out)[(piece.first_target + piece.first_row + row) * p.width + column] = narrow<T>(sum);
        }
    }
}

template <typename T>
__device__ void attend(const DinAttendParams &p) {
    const Piece piece = p.pieces[blockIdx.x];
    const u32 lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const WarpMemory memory = warp_memory<T>(p, threadIdx.x / WARP);
    const u64 row_numbers = p.inputs_padded + p.layers[0].padded;
    const float *candidates = p.rows + (piece.first_target + piece.first_row) * row_numbers;
    const float bias = *p.output_bias;
    float row_max = -infinity(), row_sum = 0.0f;
#pragma unroll 1
    for (bool again = false;; again = true) {
        __syncwarp();
        for (u32 i = lane; i < TILE * p.stride; i += WARP) memory.acc[i] = 0.0f;
#pragma unroll 1
        for (u32 first = threadIdx.x / WARP * ROWS; first < piece.length; first += warps * ROWS) {
            const u32 count = min(piece.length - first, u32(ROWS));
            // All lanes have read the behaviours and weights of the previous iteration.
            __syncwarp();
            load_behaviours<T>(p, memory, piece.history_start + first, count);
            __syncwarp();
            make_terms<T>(p, memory);
#pragma unroll 1
            for (u32 candidate = 0; candidate < TILE; candidate++) {
                float scores[2] = {};
                // Matrix instructions need all lanes together, which only some have just stored a weight.
                __syncwarp();
                if (candidate < piece.rows) score<T>(p, memory, candidates + candidate * row_numbers, scores);
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    const float sum = warp_sum<4>(scores[half]);
                    if (lane % 4 == 0) memory.weights[(lane / 4 + half * 8) * TILE + candidate] = sum + bias;
                }
            }
            __syncwarp();
            if (again) {
                weigh_again(memory, count);
                __syncwarp();
                pool_again(p, memory, count);
            } else {
                weigh(p, memory, count, row_max, row_sum);
                __syncwarp();
                pool(p, memory, count);
            }
        }
        if (lane < TILE) {
            memory.maxima[lane] = row_max;
            memory.row_sums[lane] = again ? -row_sum : row_sum;
        }
        __syncwarp();
        // Where sums are not finite, again with halves of normalised weights, and without removed behaviours.
        if (again || !p.softmax || !is_spoilt(p, memory)) {
            for (u32 i = lane; again && i < TILE * p.stride; i += WARP) memory.acc[i] = doubled(memory.acc[i]);
            break;
        }
    }
    // The threads read the results of all warps.
    __syncthreads();
    finish<T>(p, piece);
}

// ---- combine -------------------------------------------------------------------------------------------------------

struct DinCombineParams {
    const Tile *tiles;
    const float *partial;
    const float *stats;
    void *out;
    u32 width;
    u32 softmax;
};

// Combines the partial results of a history, in order: one block per candidate, its threads over the columns.
template <typename T>
__device__ void combine(const DinCombineParams &p) {
    const Tile &tile = p.tiles[blockIdx.x / TILE];
    const u32 row = blockIdx.x % TILE;
    if (row >= tile.rows) return;
    const u64 first = u64(tile.first_slot) * TILE + row;
    float row_max = -infinity();
    for (u32 slot = 0; slot < tile.slots; slot++) row_max = fmaxf(row_max, p.stats[(first + slot * TILE) * 2]);
    for (u32 column = threadIdx.x; column < p.width; column += blockDim.x) {
        float sum = 0.0f, row_sum = 0.0f, least = 0.0f;
        for (u32 slot = 0; slot < tile.slots; slot++) {
            const u64 part = first + slot * TILE;
            const float rescale = p.softmax ? rescale_of(p.stats[part * 2], row_max) : 1.0f;
            sum = fma(p.partial[part * p.width + column], rescale, sum);
            row_sum = fma(p.stats[part * 2 + 1], rescale, row_sum);
            least = fminf(least, p.stats[part * 2 + 1]);
        }
        // Some are divided by their sums of weights, or too large to be added.
        const bool again = p.softmax && (least < 0.0f || !is_finite(sum));
        if (again) {
            sum = row_sum = 0.0f;
            for (u32 slot = 0; slot < tile.slots; slot++) {
                const float *stat = p.stats + (first + slot * TILE) * 2;
                row_sum = fma(fabsf(stat[1]), rescale_of(stat[0], row_max), row_sum);
            }
            for (u32 slot = 0; slot < tile.slots; slot++) {
                const u64 part = first + slot * TILE;
                const float weight =
                    half_weight(rescale_of(p.stats[part * 2], row_max), p.stats[part * 2 + 1], row_sum);
                sum = fma(p.partial[part * p.width + column], weight, sum);
            }
            sum = doubled(sum);
        } else if (p.softmax) {
            sum = row_sum == 0.0f ? 0.0f : sum * reciprocal_approx(row_sum);
        }
        ((T *)p.out)[(tile.first_target + tile.first_row + row) * p.width + column] = narrow<T>(sum);
    }
}

// Padded units of the first and second layer, layers, padded inputs, stride, bytes.
#define SHARED(T, FIRST, SECOND, LAYERS, INPUTS, STRIDE) \
    FIRST, SECOND, LAYERS, INPUTS, STRIDE, WarpLayout<T>(FIRST, SECOND, LAYERS, INPUTS, STRIDE).bytes
#define KERNELS(T)                                                                                                     \
    LAYOUT(din_attend_##T, SHARED(T, 80, 48, 2, 64, 72), SHARED(T, 208, 80, 2, 128, 136), SHARED(T, 16, 0, 1, 16, 40), \
           SHARED(T, 64, 256, 3, 32, 40), SHARED(T, 128, 64, 3, 112, 136));                                            \
    extern "C" __global__ void __launch_bounds__(128) din_prepare_##T(const DinPrepareParams p) { prepare<T>(p); }     \
    extern "C" __global__ void __launch_bounds__(128, 4) din_attend_##T(const DinAttendParams p) { attend<T>(p); }     \
    extern "C" __global__ void __launch_bounds__(128) din_combine_##T(const DinCombineParams p) { combine<T>(p); }

KERNELS(f32)
KERNELS(f16)
KERNELS(bf16)
