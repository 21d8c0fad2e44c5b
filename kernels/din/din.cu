// DIN's local activation unit: a small network scores every pair of candidate and behaviour; the scores pool the
// behaviours.
//
//     x = [q ; s ; q - s ; q*s]      a = W_out·f(… f(W1·x + b1) …) + b_out      out = sum over l of w(a_l)·s_l
//
// The first layer is folded: W1·x + b1 = [(Wq + Wd)·q + b1] + (Wk - Wd)·s + Wp·(q*s). The first term is the
// candidate's alone (`prepare` computes it), the second the behaviour's, the third the pair's: d·h1 products a pair
// where the concatenation takes 4·d·h1, and no tensor of behaviours × candidates anywhere.
//
// `attend`: one block takes a piece, up to 8 candidates of a user against a part of the user's history; a warp takes 16
// of its behaviours at a time, the 16 rows of the matrix units' tiles:
//   1. the behaviours go into the warp's shared memory, widened, and (Wk - Wd)·s is computed for all candidates;
//   2. for each candidate, layer by layer, 32 units at a time: Wp·(q*s) onto the two other terms and the activation;
//      what comes out, split into parts, is laid out in the lane's registers as the next layer's input is, and waits
//      for it in shared memory. Nothing of a layer ever leaves the chip;
//   3. the scores of 16 behaviours × 8 candidates become weights, and the lanes, one column of the output each, add
//      the weighted behaviours up.
// Warps merge at the end of the piece in the order of their number, pieces in the order of the history (`merge`).
//
// Precision: that of float, on matrix units that take 16-bit numbers. Every operand is split into bfloat16 parts, each
// the rounding error of the one before: 3 for float (24 bits), 2 for what is computed from 16-bit storage (17 bits,
// more than a sum of that many terms keeps), 1 for bf16 weights, which are exact. The products of parts that matter
// (2, 3 and 6 of them for bf16, f16 and float) are exact and summed in float. bfloat16 has float's range, so f16 needs
// no care for overflow. On A100 six products still run at 2.7 times the rate of float's own multiply-adds.
//
// Weights are read in the order of mma's fragments, 256 consecutive bytes a warp, through L1, where all warps of a
// multiprocessor find them; `prepare` lays them out. What a lane keeps for itself beyond its registers lies in shared
// memory lane by lane, so its loads have no bank conflicts and need no barrier, and one kernel serves all sizes.
#include "din/network.cuh"

enum : u32 {
    // Candidates of a piece.
    TILE = 8,
    // Behaviours a warp takes at a time: the rows of a tile of mma.
    ROWS = 16,
    // Tiles of 8 units of the first layer computed together.
    GROUP = 4,
};

// ---- attend --------------------------------------------------------------------------------------------------------

struct DinAttendParams {
    const Piece *pieces;
    const void *history;
    const u32 *fragments;
    const float *vectors;
    const float *rows;
    const float *output_bias;
    void *out;
    // Of each slot: TILE × width acc; and TILE maxima and row_sums.
    float *partial;
    float *stats;
    DinLayer layers[3];
    u32 layer_count;
    u32 width, inputs_padded;
    u32 first_difference, first_output;
    u32 softmax;
    // Whether rows of the history can be read 16 bytes at a time.
    u32 by_vectors;
    // Numbers from one widened behaviour to the next: 8 more than a multiple of the 32 banks, so that the four rows
    // that half a warp reads two numbers each of lie in different banks.
    u32 stride;
    // Bytes of shared memory of a warp.
    u32 warp_bytes;
};

// A warp's shared memory.
struct WarpMemory {
    // Input fragments of the first and third layer and of the second, [step][part][lane].
    Vector *inputs;
    Vector *others;
    // (Wk - Wd)·s, [tile][lane].
    Vector *terms;
    // Behaviours [ROWS][stride], acc [TILE][stride].
    float *behaviours;
    float *acc;
    // Scores, then weights [ROWS][TILE]; factors on older acc, maxima and row_sums [TILE].
    float *weights;
    float *rescales;
    float *maxima;
    float *row_sums;
};

template <typename T>
__device__ __forceinline__ WarpMemory warp_memory(const DinAttendParams &p, u32 warp) {
    WarpMemory memory;
    float *next = (float *)((u8 *)dynamic_shared + warp * p.warp_bytes);
    memory.terms = (Vector *)next;
    next += p.layers[0].padded / 8 * WARP * 4;
    memory.behaviours = next;
    next += ROWS * p.stride;
    memory.acc = next;
    next += TILE * p.stride;
    memory.weights = next;
    next += ROWS * TILE;
    memory.rescales = next;
    memory.maxima = next + TILE;
    memory.row_sums = next + 2 * TILE;
    memory.others = (Vector *)(next + 4 * TILE);
    memory.inputs = memory.others + (p.layer_count > 1 ? p.layers[0].padded / 16 : 0) * Parts<T>::INPUT * WARP;
    return memory;
}

__device__ __forceinline__ float2 load_two(const float *from) { return __ldg((const float2 *)from); }

__device__ __forceinline__ float sigmoid(float x) {
    // 1/inf is 0: no care for large negative numbers.
    return reciprocal_approx(1.0f + exp_approx(-x));
}

// Activates a tile of 8 units; the layer's bias is still to be added where it is not the first. Comparisons, not
// fmaxf: NaN stays NaN.
__device__ __forceinline__ void activate_tile(
    float (&c)[4], const DinLayer &layer, const float *vectors, u32 tile, bool add_bias) {
    const float *vector = vectors + layer.first_vector + tile * 8 + threadIdx.x % 4 * 2;
    if (add_bias) {
        const float2 bias = load_two(vector);
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] += r % 2 == 0 ? bias.x : bias.y;
    }
    if (layer.activation == RELU) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = c[r] < 0.0f ? 0.0f : c[r];
    } else if (layer.activation == SIGMOID) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) c[r] = sigmoid(c[r]);
    } else {
        const float2 alphas = load_two(vector + 3 * layer.padded);
        if (layer.activation == PRELU) {
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const float alpha = r % 2 == 0 ? alphas.x : alphas.y;
                c[r] = c[r] < 0.0f ? alpha * c[r] : c[r];
            }
        } else {
            const float2 gains = load_two(vector + layer.padded), shifts = load_two(vector + 2 * layer.padded);
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const bool even = r % 2 == 0;
                const float gate = sigmoid(fma(even ? gains.x : gains.y, c[r], even ? shifts.x : shifts.y));
                c[r] *= fma(even ? alphas.x : alphas.y, 1.0f - gate, gate);
            }
        }
    }
}

// c += inputs · weights for one step of 16 inputs and one tile of 8 units. `fragment` is the lane's.
template <u32 WEIGHT, u32 INPUT>
__device__ __forceinline__ void multiply_parts(float (&c)[4], const u32 (&inputs)[INPUT][4], const u32 *fragment) {
    constexpr u32 KEPT = WEIGHT > INPUT ? WEIGHT : INPUT;
#pragma unroll
    for (u32 w = 0; w < WEIGHT; w++) {
        const uint2 pair = __ldg((const uint2 *)(fragment + w * 2 * WARP));
        const u32 b[2] = {pair.x, pair.y};
#pragma unroll
        for (u32 x = 0; x < INPUT; x++) {
            // Products of small parts are below the last place.
            if (w + x < KEPT) multiply_add<bf16>(c, inputs[x], b);
        }
    }
}

// GROUP tiles of a layer from `first` on, of `tiles`; the inputs are `steps` fragments in the warp's memory.
template <u32 WEIGHT, u32 INPUT>
__device__ __forceinline__ void multiply(
    float (&c)[GROUP][4], const Vector *inputs, u32 steps, const u32 *fragments, u32 tiles, u32 first) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        u32 a[INPUT][4];
#pragma unroll
        for (u32 x = 0; x < INPUT; x++) {
            const Vector part = inputs[(step * INPUT + x) * WARP + lane];
#pragma unroll
            for (u32 r = 0; r < 4; r++) a[x][r] = part.words[r];
        }
#pragma unroll
        for (u32 n = 0; n < GROUP; n++) {
            if (first + n < tiles) {
                const u32 tile = step * tiles + first + n;
                multiply_parts<WEIGHT, INPUT>(c[n], a, fragments + (tile * WEIGHT * WARP + lane) * 2);
            }
        }
    }
}

// Leaves the parts of an input fragment in the warp's memory.
template <u32 INPUT>
__device__ __forceinline__ void store_inputs(Vector *inputs, u32 step, const u32 (&parts)[INPUT][4]) {
#pragma unroll
    for (u32 i = 0; i < INPUT; i++) {
        Vector part;
#pragma unroll
        for (u32 r = 0; r < 4; r++) part.words[r] = parts[i][r];
        inputs[(step * INPUT + i) * WARP + threadIdx.x % WARP] = part;
    }
}

// The behaviours, or their products with a candidate, as input fragments.
template <u32 INPUT>
__device__ __forceinline__ void make_inputs(const DinAttendParams &p, const WarpMemory &memory, const float *candidate) {
    const u32 lane = threadIdx.x % WARP;
    const float *mine = memory.behaviours + lane / 4 * p.stride + lane % 4 * 2;
#pragma unroll 1
    for (u32 step = 0; step < p.inputs_padded / 16; step++) {
        float x[8];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 column = step * 16 + half * 8;
            float2 q = {1.0f, 1.0f};
            if (candidate != nullptr) q = load_two(candidate + column + lane % 4 * 2);
#pragma unroll
            for (u32 lower = 0; lower < 2; lower++) {
                const float2 s = *(const float2 *)(mine + lower * 8 * p.stride + column);
                x[(half * 2 + lower) * 2] = s.x * q.x;
                x[(half * 2 + lower) * 2 + 1] = s.y * q.y;
            }
        }
        u32 parts[INPUT][4];
        split<INPUT>(x, parts);
        store_inputs<INPUT>(memory.inputs, step, parts);
    }
}

// Widens up to ROWS behaviours from `first` on into the warp's memory; zeros behind the last and beside each.
template <typename T>
__device__ void load_behaviours(const DinAttendParams &p, const WarpMemory &memory, u64 first, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    const T *from = (const T *)p.history + first * p.width;
    if (p.by_vectors) {
        const u32 vectors = p.width / PER_VECTOR<T>;
#pragma unroll 4
        for (u32 i = lane; i < ROWS * vectors; i += WARP) {
            const u32 row = i / vectors, column = i % vectors * PER_VECTOR<T>;
            float numbers[PER_VECTOR<T>] = {};
            if (row < count) widen_vector<T>(load_vector(from + u64(row) * p.width + column), numbers);
            float4 *to = (float4 *)(memory.behaviours + row * p.stride + column);
            if constexpr (PER_VECTOR<T> == 4) {
                *to = {numbers[0], numbers[1], numbers[2], numbers[3]};
            } else {
                // Of eight lanes, whose stores go together, four begin with the other half: each bank is met once.
                const bool upper = lane / 4 % 2;
                const float4 low = {numbers[0], numbers[1], numbers[2], numbers[3]};
                const float4 high = {numbers[4], numbers[5], numbers[6], numbers[7]};
                to[upper] = upper ? high : low;
                to[!upper] = upper ? low : high;
            }
        }
    }
    const u32 done = p.by_vectors ? p.width : 0;
    for (u32 row = 0; row < ROWS; row++) {
        for (u32 column = done + lane; column < p.stride; column += WARP) {
            const bool inside = row < count && column < p.width;
            memory.behaviours[row * p.stride + column] = inside ? widen(from[u64(row) * p.width + column]) : 0.0f;
        }
    }
}

// The behaviours' own term of the first layer.
template <typename T>
__device__ void make_terms(const DinAttendParams &p, const WarpMemory &memory) {
    const u32 lane = threadIdx.x % WARP, tiles = p.layers[0].padded / 8;
    make_inputs<Parts<T>::INPUT>(p, memory, nullptr);
#pragma unroll 1
    for (u32 first = 0; first < tiles; first += GROUP) {
        float c[GROUP][4] = {};
        multiply<Parts<T>::DIFFERENCE, Parts<T>::INPUT>(
            c, memory.inputs, p.inputs_padded / 16, p.fragments + p.first_difference, tiles, first);
#pragma unroll
        for (u32 n = 0; n < GROUP; n++) {
            if (first + n < tiles) *(float4 *)&memory.terms[(first + n) * WARP + lane] = {c[n][0], c[n][1], c[n][2], c[n][3]};
        }
    }
}

// Adds a tile's share of the scores: of rows lane / 4 and lane / 4 + 8.
__device__ __forceinline__ void add_to_scores(float (&scores)[2], const float (&c)[4], const float *weights, u32 tile) {
    const float2 weight = load_two(weights + tile * 8 + threadIdx.x % 4 * 2);
    scores[0] = fma(c[0], weight.x, fma(c[1], weight.y, scores[0]));
    scores[1] = fma(c[2], weight.x, fma(c[3], weight.y, scores[1]));
}

// One layer for one candidate: reads input fragments `from`, leaves the activated units as the next layer's fragments
// in `to`, or, behind the last layer, their share of the scores: those of rows lane / 4 and lane / 4 + 8, of which
// the row's four lanes hold a part each. `candidate` is null but for the first layer.
template <typename T>
__device__ __forceinline__ void run_layer(
    const DinAttendParams &p, const WarpMemory &memory, const DinLayer &layer, u32 steps, const float *candidate,
    const Vector *from, Vector *to, float (&scores)[2]) {
    constexpr u32 WEIGHT = Parts<T>::WEIGHT, INPUT = Parts<T>::INPUT;
    const u32 lane = threadIdx.x % WARP, tiles = layer.padded / 8;
#pragma unroll 1
    for (u32 first = 0; first < tiles; first += GROUP) {
        float c[GROUP][4] = {};
        if (candidate != nullptr) {
#pragma unroll
            for (u32 n = 0; n < GROUP; n++) {
                if (first + n < tiles) {
                    const float4 term = *(const float4 *)&memory.terms[(first + n) * WARP + lane];
                    const float2 own = load_two(candidate + p.inputs_padded + (first + n) * 8 + lane % 4 * 2);
                    c[n][0] = term.x + own.x;
                    c[n][1] = term.y + own.y;
                    c[n][2] = term.z + own.x;
                    c[n][3] = term.w + own.y;
                }
            }
        }
        multiply<WEIGHT, INPUT>(c, from, steps, p.fragments + layer.first_fragment, tiles, first);
#pragma unroll
        for (u32 n = 0; n < GROUP; n += 2) {
            // Sizes are padded to 16, so tiles come in pairs.
            if (first + n < tiles) {
                activate_tile(c[n], layer, p.vectors, first + n, candidate == nullptr);
                activate_tile(c[n + 1], layer, p.vectors, first + n + 1, candidate == nullptr);
                if (to == nullptr) {
                    add_to_scores(scores, c[n], p.vectors + p.first_output, first + n);
                    add_to_scores(scores, c[n + 1], p.vectors + p.first_output, first + n + 1);
                } else {
                    // Two neighbouring tiles of outputs lie in the registers as a fragment of inputs does.
                    u32 parts[INPUT][4];
                    split_tiles<INPUT>(c[n], c[n + 1], parts);
                    store_inputs<INPUT>(to, (first + n) / 2, parts);
                }
            }
        }
    }
}

// Scores of the warp's behaviours for one candidate.
template <typename T>
__device__ void score(const DinAttendParams &p, const WarpMemory &memory, const float *candidate, float (&scores)[2]) {
    Vector *const inputs = memory.inputs, *const others = memory.others;
    make_inputs<Parts<T>::INPUT>(p, memory, candidate);
    const u32 layers = p.layer_count;
    run_layer<T>(p, memory, p.layers[0], p.inputs_padded / 16, candidate, inputs, layers > 1 ? others : nullptr, scores);
    if (layers == 1) return;
    const u32 steps = p.layers[0].padded / 16;
    run_layer<T>(p, memory, p.layers[1], steps, nullptr, others, layers > 2 ? inputs : nullptr, scores);
    if (layers == 2) return;
    run_layer<T>(p, memory, p.layers[2], p.layers[1].padded / 16, nullptr, inputs, nullptr, scores);
}

// Makes weights of the scores of `count` behaviours. Lane l has candidate l % 8 and behaviours l / 8, l / 8 + 4 and so
// on, so that a warp's numbers are neighbours; all four lanes of a candidate keep its row_max and row_sum.
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
        if (first + i * 4 < count) weight = !p.softmax ? scores[i] : empty ? 0.0f : exp_approx(scores[i] - row_max);
        memory.weights[lane + i * WARP] = weight;
        sum += weight;
    }
    sum += shuffle_xor(sum, 8);
    sum += shuffle_xor(sum, 16);
    row_sum = fma(row_sum, rescale, sum);
    if (lane < TILE) memory.rescales[lane] = p.softmax ? rescale : 1.0f;
}

// Adds the weighted behaviours to the acc. A lane owns columns; two at a time share each load of the weights.
__device__ void pool(const DinAttendParams &p, const WarpMemory &memory, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 column = lane; column < p.width; column += 2 * WARP) {
        // The second column lies in the padding where the row has none: stride is at least 8 and a warp's 32 more.
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

// Puts the warps' acc together, in their order, and writes the output or the partial result.
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
            // Nothing to weigh gives zeros, not 0/0.
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
        // The lanes have read the behaviours and weights of the round before.
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
    // The threads read all warps' acc.
    __syncthreads();
    finish<T>(p, piece);
}

// ---- merge ---------------------------------------------------------------------------------------------------------

struct DinCombineParams {
    const Tile *tiles;
    const float *partial;
    const float *stats;
    void *out;
    u32 width;
    u32 softmax;
};

// Puts the parts of a history together, in their order: one block a candidate, its threads over the columns.
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

#define KERNELS(TYPE, SUFFIX)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128) din_prepare_##SUFFIX(const DinPrepareParams p) { prepare<TYPE>(p); } \
    extern "C" __global__ void __launch_bounds__(128, 4) din_attend_##SUFFIX(const DinAttendParams p) { attend<TYPE>(p); }    \
    extern "C" __global__ void __launch_bounds__(128) din_combine_##SUFFIX(const DinCombineParams p) { combine<TYPE>(p); }

KERNELS(float, f32)
KERNELS(f16, f16)
KERNELS(bf16, bf16)
