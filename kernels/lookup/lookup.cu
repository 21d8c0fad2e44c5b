// Look-ups: out[i] = R_1[ids[i,1]] ‖ … ‖ R_F[ids[i,F]], or the sum or mean of these rows over each bag of ids.
//
// A thread takes four columns of one table for one row of output, adjacent threads adjacent columns, so a warp reads whole
// rows and writes whole cache lines. One launch reads all tables, including those of a second output, so the ids are read
// from memory once. Checking an id is one comparison: an id outside its table reads nothing and counts as zeros, and the
// lowest position of one is reported if requested.
// Variants: lookup_each reads a row per id. lookup_bags sums the rows of a piece of a bag, in order, with four of them in
// flight, lookup_weighted_bags with the weights of their ids; bags that are split leave their sums in `partial`, and
// lookup_combine adds these, in order too. lookup_check checks ids that no other kernel reads.
// Precision: f32; a single row keeps its bits. Blocks of 256 rows are summed, then the blocks. A mean whose sum is not finite is
// computed again from rows times 2^-32: it is no larger than the largest row.
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 256,
    // Rows of a bag that a thread has in flight.
    AHEAD = 4,
    // Rows that are added up before their sum is added to the others.
    BLOCK_ROWS = 256,
};

// Where the rows of a table go, and which ids select them.
struct LookupColumn {
    float *out;
    // Numbers per row of the output, all tables together.
    u64 out_width;
    u32 first_column;
    // The column of the ids.
    u32 feature;
};

struct LookupParams {
    const u32 *ids;
    const Piece *pieces;
    const Tile *tiles;
    // [slots, vec4s]; and the same of rows times 2^-32, where those are not finite, for means.
    float *partial, *scaled;
    // The record for ids outside their tables; null: not reported.
    u64 *record;
    // [rows of ids, features]
    const float *weights;
    // [bags, features]: the ids that count in means; null: all.
    const u32 *counts;
    // Rows of output, pieces, or bags to combine.
    u64 rows;
    u32 features;
    u32 count;
    // Vec4s per concatenated row of all tables.
    u32 vec4s;
    u32 mean;
    DeviceTable tables[MOST_TABLES];
    LookupColumn columns[MOST_TABLES];
};

// What a thread takes: a vec4 of a row, and further ones if there are more than threads.
struct Place {
    u64 row;
    u32 vec4, step;
};

__device__ __forceinline__ Place place_of(const LookupParams &p) {
    u32 rows = max(THREADS / p.vec4s, 1u), row = threadIdx.x / p.vec4s;
    Place place = {(u64)blockIdx.x * rows + row, threadIdx.x % p.vec4s, THREADS};
    if (p.vec4s > THREADS) {
        place.row = blockIdx.x;
        place.vec4 = threadIdx.x;
    } else if (row >= rows) {
        place.row = p.rows;
    }
    return place;
}

// Writes a vec4 of a row of output.
__device__ __forceinline__ void write(const LookupParams &p, u32 index, u64 row, u32 first, const Vec4 &value) {
    const LookupColumn &column = p.columns[index];
    float *to = column.out + row * column.out_width + column.first_column + first;
    store_vec4(to, value, p.tables[index].width - first);
}

extern "C" __global__ void __launch_bounds__(THREADS) lookup_each(const LookupParams p) {
    Place place = place_of(p);
    if (place.row >= p.rows) {
        return;
    }
    for (u32 vec4 = place.vec4; vec4 < p.vec4s; vec4 += place.step) {
        u32 index = table_of(p.tables, p.count, vec4);
        const DeviceTable &table = p.tables[index];
        u32 first = COLUMNS * (vec4 - table.first_vec4);
        u64 at = place.row * p.features + p.columns[index].feature;
        u32 id = __ldg(p.ids + at);
        Vec4 value = zeros();
        if (in_table(table, p.record, at, id)) {
            value = any_row_vec4(table, id, first);
        }
        write(p, index, place.row, first, value);
    }
}

// Σ of the rows of `length` ids, from row `start` of the ids on; weighted or not.
template <typename T, bool WEIGHTED>
__device__ __forceinline__ Vec4 sum_rows(const LookupParams &p, u32 index, u64 start, u32 length, u32 first) {
    const DeviceTable &table = p.tables[index];
    Vec4 sum = zeros();
    for (u32 block = 0; block < length; block += BLOCK_ROWS) {
        const u32 end = min(length - block, (u32)BLOCK_ROWS) + block;
        Vec4 of_block = zeros();
        for (u32 begin = block; begin < end; begin += AHEAD) {
            u64 at = (start + begin) * p.features + p.columns[index].feature;
            u32 ids[AHEAD];
            float weights[AHEAD];
            Vec4 rows[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                ids[i] = begin + i < end ? __ldg(p.ids + at + i * p.features) : 0;
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                rows[i] = zeros();
                weights[i] = 0.0f;
                if (begin + i < end && in_table(table, p.record, at + i * p.features, ids[i])) {
                    rows[i] = row_vec4<T>(table, ids[i], first);
                    if constexpr (WEIGHTED) {
                        weights[i] = __ldg(p.weights + at + i * p.features);
                    }
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    if constexpr (WEIGHTED) {
                        of_block.numbers[e] = fma(weights[i], rows[i].numbers[e], of_block.numbers[e]);
                    } else {
                        of_block.numbers[e] += rows[i].numbers[e];
                    }
                }
            }
        }
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            sum.numbers[e] += of_block.numbers[e];
        }
    }
    return sum;
}

// The same of rows times 2^-32.
__device__ __forceinline__ Vec4 sum_scaled_rows(const LookupParams &p, u32 index, u64 start, u32 length, u32 first) {
    const DeviceTable &table = p.tables[index];
    Vec4 sum = zeros();
#pragma unroll 1
    for (u32 i = 0; i < length; i++) {
        u32 id = __ldg(p.ids + (start + i) * p.features + p.columns[index].feature);
        Vec4 row = id < table.rows ? any_row_vec4(table, id, first) : zeros();
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            sum.numbers[e] = fma(row.numbers[e], 0x1p-32f, sum.numbers[e]);
        }
    }
    return sum;
}

// The mean of `length` rows from their sum or, where that is not finite, that of the scaled rows.
__device__ __forceinline__ void divide_scaled(Vec4 &sum, const Vec4 &scaled, u64 length) {
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        float mean = scaled.numbers[e] / (float)length * 0x1p32f;
        // Rounded beyond the largest row.
        if (is_finite(scaled.numbers[e]) && !is_finite(mean)) {
            mean = copysignf(largest(), mean);
        }
        sum.numbers[e] = is_finite(sum.numbers[e]) ? sum.numbers[e] / (float)length : mean;
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ Vec4 sum_any_rows(const LookupParams &p, u32 index, u64 start, u32 length, u32 first) {
    switch (p.tables[index].storage) {
    case STORED_F32:
        return sum_rows<f32, WEIGHTED>(p, index, start, length, first);
    case STORED_F16:
        return sum_rows<f16, WEIGHTED>(p, index, start, length, first);
    case STORED_BF16:
        return sum_rows<bf16, WEIGHTED>(p, index, start, length, first);
    default:
        return sum_rows<i8, WEIGHTED>(p, index, start, length, first);
    }
}

// How many ids of a bag of `length` count in its mean, of one of the tables.
__device__ __forceinline__ u64 counted(const LookupParams &p, u32 index, u32 bag, u64 length) {
    return p.counts ? __ldg(p.counts + (u64)bag * p.features + p.columns[index].feature) : length;
}

__device__ __forceinline__ void divide(Vec4 &sum, u64 length) {
    float divisor = (float)max(length, 1ull);
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        sum.numbers[e] /= divisor;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) lookup_bags(const LookupParams p) {
    Place place = place_of(p);
    if (place.row >= p.rows) {
        return;
    }
    const Piece &piece = p.pieces[place.row];
    for (u32 vec4 = place.vec4; vec4 < p.vec4s; vec4 += place.step) {
        u32 index = table_of(p.tables, p.count, vec4), first = COLUMNS * (vec4 - p.tables[index].first_vec4);
        Vec4 sum = sum_any_rows<false>(p, index, piece.history_start, piece.length, first);
        const bool again = p.mean && any_not_finite<COLUMNS>(sum.numbers);
        Vec4 scaled = zeros();
        if (again) {
            scaled = sum_scaled_rows(p, index, piece.history_start, piece.length, first);
        }
        if (piece.slot != NONE) {
            u64 at = COLUMNS * ((u64)piece.slot * p.vec4s + vec4);
            put_vec4((Vec4 *)(p.partial + at), sum);
            if (again) {
                put_vec4((Vec4 *)(p.scaled + at), scaled);
            }
            continue;
        }
        if (again) {
            divide_scaled(sum, scaled, counted(p, index, piece.user, piece.length));
        } else if (p.mean) {
            divide(sum, counted(p, index, piece.user, piece.length));
        }
        write(p, index, piece.user, first, sum);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) lookup_weighted_bags(const LookupParams p) {
    Place place = place_of(p);
    if (place.row >= p.rows) {
        return;
    }
    const Piece &piece = p.pieces[place.row];
    for (u32 vec4 = place.vec4; vec4 < p.vec4s; vec4 += place.step) {
        u32 index = table_of(p.tables, p.count, vec4), first = COLUMNS * (vec4 - p.tables[index].first_vec4);
        Vec4 sum = sum_any_rows<true>(p, index, piece.history_start, piece.length, first);
        if (piece.slot != NONE) {
            put_vec4((Vec4 *)(p.partial + COLUMNS * ((u64)piece.slot * p.vec4s + vec4)), sum);
        } else {
            write(p, index, piece.user, first, sum);
        }
    }
}

// Adds the partial results of a bag, times 2^-32.
__device__ __forceinline__ Vec4 add_scaled(const LookupParams &p, const Tile &tile, u32 vec4) {
    Vec4 sum = zeros();
#pragma unroll 1
    for (u32 part = 0; part < tile.slots; part++) {
        u64 at = COLUMNS * ((u64)(tile.first_slot + part) * p.vec4s + vec4);
        Vec4 one = load_vec4(p.partial + at);
        // Written where the part is not finite.
        Vec4 scaled = any_not_finite<COLUMNS>(one.numbers) ? load_vec4(p.scaled + at) : zeros();
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            float x = one.numbers[e];
            sum.numbers[e] += is_finite(x) ? x * 0x1p-32f : scaled.numbers[e];
        }
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) lookup_combine(const LookupParams p) {
    Place place = place_of(p);
    if (place.row >= p.rows) {
        return;
    }
    const Tile &tile = p.tiles[place.row];
    for (u32 vec4 = place.vec4; vec4 < p.vec4s; vec4 += place.step) {
        Vec4 sum = zeros();
        for (u32 part = 0; part < tile.slots; part++) {
            const float *from = p.partial + COLUMNS * ((u64)(tile.first_slot + part) * p.vec4s + vec4);
            Vec4 one = load_vec4(from);
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                sum.numbers[e] += one.numbers[e];
            }
        }
        u32 index = table_of(p.tables, p.count, vec4);
        const u64 length = p.mean ? counted(p, index, tile.user, tile.history_end - tile.history_start) : 0;
        if (p.mean && any_not_finite<COLUMNS>(sum.numbers)) {
            divide_scaled(sum, add_scaled(p, tile, vec4), length);
        } else if (p.mean) {
            divide(sum, length);
        }
        write(p, index, tile.user, COLUMNS * (vec4 - p.tables[index].first_vec4), sum);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) lookup_check(const LookupParams p) {
    u64 index = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (index < p.rows * p.count) {
        u32 table = index % p.count;
        u64 at = index / p.count * p.features + p.columns[table].feature;
        in_table(p.tables[table], p.record, at, __ldg(p.ids + at));
    }
}
