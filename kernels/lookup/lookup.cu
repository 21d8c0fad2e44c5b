// Look-ups: out[i] = R_1[ids[i,1]] ‖ … ‖ R_F[ids[i,F]], or the sum or mean of these rows over each bag of ids.
//
// A thread takes four columns of one table for one row of output, adjacent threads adjacent columns, so a warp reads whole
// rows and writes whole cache lines. One launch reads all tables, including those of a second output, so the ids are read
// from memory once. Checking an id is one comparison: an id outside its table reads nothing and counts as zeros, and the
// lowest position of one is reported if requested.
// Variants: lookup_each reads a row per id. lookup_bags sums the rows of a piece of a bag, in order, with four of them in
// flight; bags that are split leave their sums in `partial`, and lookup_combine adds these, in order too. lookup_check checks
// ids that no other kernel reads.
// Precision: f32; a single row keeps its bits.
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 256,
    // Rows of a bag that a thread has in flight.
    AHEAD = 4,
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
    // [slots, vec4s].
    float *partial;
    // The record for ids outside their tables; null: not reported.
    u64 *record;
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

// Σ of the rows of `length` ids, from row `start` of the ids on.
template <typename T>
__device__ __forceinline__ Vec4 sum_rows(const LookupParams &p, u32 index, u64 start, u32 length, u32 first) {
    const DeviceTable &table = p.tables[index];
    Vec4 sum = zeros();
    for (u32 begin = 0; begin < length; begin += AHEAD) {
        u64 at = (start + begin) * p.features + p.columns[index].feature;
        u32 ids[AHEAD];
        Vec4 rows[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            ids[i] = begin + i < length ? __ldg(p.ids + at + i * p.features) : 0;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            rows[i] = zeros();
            if (begin + i < length && in_table(table, p.record, at + i * p.features, ids[i])) {
                rows[i] = row_vec4<T>(table, ids[i], first);
            }
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                sum.numbers[e] += rows[i].numbers[e];
            }
        }
    }
    return sum;
}

__device__ __forceinline__ Vec4 sum_any_rows(const LookupParams &p, u32 index, u64 start, u32 length, u32 first) {
    switch (p.tables[index].storage) {
    case STORED_F32:
        return sum_rows<f32>(p, index, start, length, first);
    case STORED_F16:
        return sum_rows<f16>(p, index, start, length, first);
    case STORED_BF16:
        return sum_rows<bf16>(p, index, start, length, first);
    default:
        return sum_rows<i8>(p, index, start, length, first);
    }
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
        Vec4 sum = sum_any_rows(p, index, piece.history_start, piece.length, first);
        if (piece.slot != NONE) {
            store_vec4(p.partial + COLUMNS * ((u64)piece.slot * p.vec4s + vec4), sum, COLUMNS);
            continue;
        }
        if (p.mean) {
            divide(sum, piece.length);
        }
        write(p, index, piece.user, first, sum);
    }
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
        if (p.mean) {
            divide(sum, tile.history_end - tile.history_start);
        }
        u32 index = table_of(p.tables, p.count, vec4);
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
