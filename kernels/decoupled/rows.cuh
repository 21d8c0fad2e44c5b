// The representation rows that weighted sums read: [R_1[ids[l,1]] ‖ … ‖ R_F[ids[l,F]]], and where the sums go.
#pragma once
#include "shared/tables.cuh"

enum : u32 {
    ROW_THREADS = 128,
    // Vec4s that a block sums at a time: the width of a warp.
    ROW_VEC4S = WARP,
    // Rows that a thread has in flight.
    AHEAD = 4,
};

struct Rows {
    const u32 *ids;
    // Sums are multiplied by the rows of these ids; null: they are not.
    const u32 *target_ids;
    float *out;
    u64 out_width;
    u32 features;
    // The tables of this launch: features first_feature, first_feature + 1, …
    u32 first_feature, count;
    // Vec4s per concatenated row of these tables.
    u32 vec4s;
    DeviceTable tables[MOST_TABLES];
    // The first column of each table in a row of the output.
    u32 first_columns[MOST_TABLES];
};

// The vec4 that a thread sums, of one table.
struct Slice {
    u32 table, first_column;
    bool there;
};

__device__ __forceinline__ Slice slice_of(const Rows &p, u32 vec4) {
    u32 table = table_of(p.tables, p.count, min(vec4, p.vec4s - 1));
    return Slice{table, COLUMNS * (vec4 - p.tables[table].first_vec4), vec4 < p.vec4s};
}

__device__ __forceinline__ u32 id_of(const Rows &p, const u32 *ids, const Slice &slice, u64 row) {
    return __ldg(ids + row * p.features + p.first_feature + slice.table);
}

// Zeros for an id outside the table: another kernel reports those.
__device__ __forceinline__ Vec4 vec4_of(const Rows &p, const Slice &slice, u32 id) {
    const DeviceTable &table = p.tables[slice.table];
    return id < table.rows ? any_row_vec4(table, id, slice.first_column) : zeros();
}

// Writes the sums of candidate m.
__device__ __forceinline__ void write_sums(const Rows &p, const Slice &slice, u64 m, Vec4 sums) {
    if (p.target_ids) {
        Vec4 target = vec4_of(p, slice, id_of(p, p.target_ids, slice, m));
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            sums.numbers[e] *= target.numbers[e];
        }
    }
    float *to = p.out + m * p.out_width + p.first_columns[slice.table] + slice.first_column;
    store_vec4(to, sums, p.tables[slice.table].width - slice.first_column);
}

// The adjacent threads that share the vec4s of a row: a power of two, at most a warp.
__device__ __forceinline__ u32 lanes_of(u32 vec4s) {
    return vec4s >= ROW_VEC4S ? (u32)ROW_VEC4S : 1u << (vec4s > 1 ? 32 - __clz(vec4s - 1) : 0);
}
