// Embedding tables of any mix of storage types, and their rows, four numbers at a time.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    // Tables that the parameters of a launch have room for.
    MOST_TABLES = 32,
    COLUMNS = 4,
};

enum Storage : u32 { STORED_F32, STORED_F16, STORED_BF16, STORED_INT8 };

struct DeviceTable {
    const void *data;
    // Of each row of codes: value = scale · code + offset.
    const float *scale, *offset;
    u64 rows;
    u32 width;
    u32 storage;
    // Rows can be read four numbers at a time.
    u32 vectors;
    // Fours of numbers that a row of the tables before it has.
    u32 first_vec4;
};
static_assert(sizeof(DeviceTable) == 48, "src/cuda/lookup.rs mirrors it");

// Aligned, so that shared memory takes it whole.
struct alignas(16) Vec4 {
    float numbers[COLUMNS];
};

__device__ __forceinline__ Vec4 zeros() { return Vec4{{0.0f, 0.0f, 0.0f, 0.0f}}; }

__device__ __forceinline__ Vec4 as_vec4(float4 vec4) { return Vec4{{vec4.x, vec4.y, vec4.z, vec4.w}}; }

// In shared memory, or of this launch's own in global memory.
__device__ __forceinline__ Vec4 get_vec4(const Vec4 *from) { return as_vec4(*(const float4 *)from); }

__device__ __forceinline__ void put_vec4(Vec4 *to, const Vec4 &vec4) {
    *(float4 *)to = make_float4(vec4.numbers[0], vec4.numbers[1], vec4.numbers[2], vec4.numbers[3]);
}

__device__ __forceinline__ float widen(i8 code) { return (float)code; }

// The four numbers at an aligned address.
template <typename T>
__device__ __forceinline__ Vec4 load_vec4(const T *from) {
    Vec4 out;
    if constexpr (sizeof(T) == 4) {
        out = as_vec4(__ldg((const float4 *)from));
    } else if constexpr (sizeof(T) == 2) {
        uint2 pairs = __ldg((const uint2 *)from);
        widen_pair<T>(pairs.x, out.numbers);
        widen_pair<T>(pairs.y, out.numbers + 2);
    } else {
        u32 word = __ldg((const u32 *)from);
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            out.numbers[e] = widen((i8)(word >> 8 * e));
        }
    }
    return out;
}

// Four numbers of a row of a table that stores T's, from a column on; zeros behind the row's end.
template <typename T>
__device__ __forceinline__ Vec4 row_vec4(const DeviceTable &table, u32 id, u32 column) {
    const T *from = (const T *)table.data + (u64)id * table.width + column;
    Vec4 out = zeros();
    if (table.vectors) {
        out = load_vec4(from);
    } else {
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            if (column + e < table.width) {
                out.numbers[e] = widen(from[e]);
            }
        }
    }
    if constexpr (sizeof(T) == 1) {
        float scale = __ldg(table.scale + id), offset = __ldg(table.offset + id);
#pragma unroll
        for (u32 e = 0; e < COLUMNS; e++) {
            if (column + e < table.width) {
                out.numbers[e] = fma(scale, out.numbers[e], offset);
            }
        }
    }
    return out;
}

// As row_four, of any table.
__device__ __forceinline__ Vec4 any_row_vec4(const DeviceTable &table, u32 id, u32 column) {
    switch (table.storage) {
    case STORED_F32:
        return row_vec4<f32>(table, id, column);
    case STORED_F16:
        return row_vec4<f16>(table, id, column);
    case STORED_BF16:
        return row_vec4<bf16>(table, id, column);
    default:
        return row_vec4<i8>(table, id, column);
    }
}

// Writes the numbers that there are in the `left` columns from `to` on.
__device__ __forceinline__ void store_vec4(float *to, const Vec4 &vec4, u32 left) {
    if (left >= COLUMNS && (u64)to % sizeof(Vec4) == 0) {
        put_vec4((Vec4 *)to, vec4);
        return;
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        if (e < left) {
            to[e] = vec4.numbers[e];
        }
    }
}

// The table that a four of numbers of the rows side by side is of.
__device__ __forceinline__ u32 table_of(const DeviceTable *tables, u32 count, u32 vec4) {
    u32 index = 0;
    while (index + 1 < count && vec4 >= tables[index + 1].first_vec4) {
        index++;
    }
    return index;
}

// Whether an id has a row. The place of one that has none is noted, where there is a record.
__device__ __forceinline__ bool in_table(const DeviceTable &table, u64 *record, u64 at, u32 id) {
    if (id < table.rows) {
        return true;
    }
    if (record) {
        report_bad_id(record, at, id);
    }
    return false;
}
