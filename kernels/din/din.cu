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
    const bool empty = row_max == -infinity();
    const float rescale = empty ? 1.0f : exp_approx(before - row_max);
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float weight = 0.0f;
        if (first + i * 4 < count) weight = !p.softmax ? scores[i] : empty ? 0.0f
                                                                           : exp_approx(scores[i] - row_max);
        memory.weights[lane + i * WARP] = weight;
        sum += weight;
    }
    sum += shuffle_xor(sum, 8);
    sum += shuffle_xor(sum, 16);
    row_sum = fma(row_sum, rescale, sum);
    if (lane < TILE) memory.rescales[lane] = p.softmax ? rescale : 1.0f;
}

// Adds the weighted behaviours. A lane owns columns; it takes two at a time, which share each load of the weights.
__device__ void pool(const DinAttendParams &p, const WarpMemory &memory, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 column = lane; column < p.width; column += 2 * WARP) {
        // If the row has no second column, it is in the padding: stride is at least 8, plus 32 for a warp.
        const bool both = column + WARP < p.width;
        float acc[2][TILE];
#pragma unroll
        for (u32 c = 0; c < TILE; c++) {
            acc[0][c] = memory.acc[c * p.stride + column] * memory.rescales[c];
            acc[1][c] = both ? memory.acc[c * p.stride + column + WARP] * memory.rescales[c] : 0.0f;
        }
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
            memory.acc[c * p.stride + column] = acc[0][c];
            if (both) memory.acc[c * p.stride + column + WARP] = acc[1][c];
        }
    }
}

// Combines the warps, in order, and writes the output or the partial result.
template <typename T>
__device__ void finish(const DinAttendParams &p, const Piece &piece) {
    const u32 warps = blockDim.x / WARP;
    for (u32 i = threadIdx.x; i < piece.rows * p.width; i += blockDim.x) {
        const u32 row = i / p.width, column = i % p.width;
        float row_max = -infinity();
        for (u32 warp = 0; warp < warps; warp++) row_max = fmaxf(row_max, warp_memory<T>(p, warp).maxima[row]);
        float sum = 0.0f, row_sum = 0.0f;
        for (u32 warp = 0; warp < warps; warp++) {
            const WarpMemory memory = warp_memory<T>(p, warp);
            float rescale = 1.0f;
            if (p.softmax) rescale = row_max == -infinity() ? 0.0f : exp_approx(memory.maxima[row] - row_max);
            sum = fma(memory.acc[row * p.stride + column], rescale, sum);
            row_sum = fma(memory.row_sums[row], rescale, row_sum);
        }
        if (piece.slot != NONE) {
            p.partial[(u64(piece.slot) * TILE + row) * p.width + column] = sum;
            if (column == 0) {
                p.stats[(u64(piece.slot) * TILE + row) * 2] = row_max;
                p.stats[(u64(piece.slot) * TILE + row) * 2 + 1] = row_sum;
            }
        } else {
            // Without weights the result is 0, not 0/0.
            if (p.softmax) sum = row_sum == 0.0f ? 0.0f : sum * reciprocal_approx(row_sum);
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
    for (u32 i = lane; i < TILE * p.stride; i += WARP) memory.acc[i] = 0.0f;
    const float bias = *p.output_bias;
    float row_max = -infinity(), row_sum = 0.0f;
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
            if (candidate < piece.rows) score<T>(p, memory, candidates + candidate * row_numbers, scores);
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const float sum = warp_sum<4>(scores[half]);
                if (lane % 4 == 0) memory.weights[(lane / 4 + half * 8) * TILE + candidate] = sum + bias;
            }
        }
        __syncwarp();
        weigh(p, memory, count, row_max, row_sum);
        __syncwarp();
        pool(p, memory, count);
    }
    if (lane < TILE) {
        memory.maxima[lane] = row_max;
        memory.row_sums[lane] = row_sum;
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
        float sum = 0.0f, row_sum = 0.0f;
        for (u32 slot = 0; slot < tile.slots; slot++) {
            const u64 part = first + slot * TILE;
            float rescale = 1.0f;
            if (p.softmax) rescale = row_max == -infinity() ? 0.0f : exp_approx(p.stats[part * 2] - row_max);
            sum = fma(p.partial[part * p.width + column], rescale, sum);
            row_sum = fma(p.stats[part * 2 + 1], rescale, row_sum);
        }
        if (p.softmax) sum = row_sum == 0.0f ? 0.0f : sum * reciprocal_approx(row_sum);
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
