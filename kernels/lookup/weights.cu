// Bags whose ids do not all count alike: weights of ids, their gradient, and means that leave ids outside their tables out.
//
// count_ids counts the ids of each bag that are inside their table, for means that skip the others: an integer sum, which is the
// same in any order. weigh_ids finds the bag of each row of ids and the weight of one feature's id: the caller's, or one
// over the count of the bag; `gradient_windows` multiplies by it. weight_gradient gives each id eight lanes, which multiply four columns each of
// its row and of its bag's gradient.
// Precision: f32. A lane adds up 64 steps of four columns before it adds their sum to the others.
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 256,
    // Lanes per id.
    LANES = 8,
    // Steps that are added up before their sum is added to the others.
    BLOCK_STEPS = 64,
};

struct BagIdsParams {
    // [rows, features]
    const u32 *ids;
    // [bags + 1]
    const u64 *offsets;
    // [bags, features]: how many ids are inside their table.
    u32 *counts;
    // [rows, features], or null: means of those inside.
    const float *weights;
    // Per row its bag, and the weight of its id as bits.
    uint2 *bags;
    u64 rows, table_rows;
    u32 features, feature;
    u32 bag_count;
    u32 unused;
};

struct WeightGradientParams {
    // [rows, features]
    const u32 *ids;
    // Per row its bag.
    const uint2 *bags;
    // The table's first column of the first row.
    const float *grad;
    // [rows, features]
    float *out;
    u64 rows;
    u32 features, feature;
    u32 grad_width;
    // Whether to add to the output.
    u32 adds;
    // Whether rows of grad can be read a vec4 at a time.
    u32 vectors;
    u32 unused;
    DeviceTable table;
};

// The last bag that begins no later: empty ones come before it.
__device__ __forceinline__ u32 bag_of(const BagIdsParams &p, u64 row) {
    u32 low = 0, high = p.bag_count;
    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;
        if (__ldg(p.offsets + middle) <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

extern "C" __global__ void __launch_bounds__(THREADS) clear_counts(const BagIdsParams p) {
    const u64 index = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (index < (u64)p.bag_count * p.features) {
        p.counts[index] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) count_ids(const BagIdsParams p) {
    const u64 row = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (row < p.rows && __ldg(p.ids + row * p.features + p.feature) < p.table_rows) {
        atomicAdd(p.counts + (u64)bag_of(p, row) * p.features + p.feature, 1u);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) weigh_ids(const BagIdsParams p) {
    const u64 row = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= p.rows) {
        return;
    }
    const u32 bag = bag_of(p, row);
    float weight;
    if (p.weights) {
        weight = __ldg(p.weights + row * p.features + p.feature);
    } else {
        weight = 1.0f / (float)max(__ldg(p.counts + (u64)bag * p.features + p.feature), 1u);
    }
    p.bags[row] = make_uint2(bag, __float_as_uint(weight));
}

extern "C" __global__ void __launch_bounds__(THREADS) weight_gradient(const WeightGradientParams p) {
    const u64 row = (u64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const u32 lane = threadIdx.x % LANES;
    const bool is_row = row < p.rows;
    const u64 at = row * p.features + p.feature;
    const u32 id = is_row ? __ldg(p.ids + at) : NONE;
    float sum = 0.0f;
    if (is_row && id < p.table.rows) {
        const float *grad = p.grad + (u64)__ldg(p.bags + row).x * p.grad_width;
        for (u32 block = 0; block < p.table.width; block += BLOCK_STEPS * LANES * COLUMNS) {
            const u32 end = min(p.table.width - block, (u32)BLOCK_STEPS * LANES * COLUMNS) + block;
            float of_block = 0.0f;
            for (u32 column = block + COLUMNS * lane; column < end; column += LANES * COLUMNS) {
                const Vec4 values = any_row_vec4(p.table, id, column);
                Vec4 from = zeros();
                if (p.vectors) {
                    from = load_vec4(grad + column);
                } else {
#pragma unroll
                    for (u32 e = 0; e < COLUMNS; e++) {
                        if (column + e < p.table.width) {
                            from.numbers[e] = __ldg(grad + column + e);
                        }
                    }
                }
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    of_block = fma(values.numbers[e], from.numbers[e], of_block);
                }
            }
            sum += of_block;
        }
    }
#pragma unroll
    for (u32 distance = LANES / 2; distance > 0; distance /= 2) {
        sum += shuffle_xor(sum, distance);
    }
    if (is_row && lane == 0) {
        p.out[at] = p.adds ? p.out[at] + sum : sum;
    }
}
