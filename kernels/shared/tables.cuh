// Embedding tables of any storage types, and their rows, a vec4 (four numbers) at a time.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    // The most tables in the parameters of a launch.
    MOST_TABLES = 32,
    // Numbers per vec4.
    COLUMNS = 4,
};

enum Storage : u32 {
    STORED_F32,
    STORED_F16,
    STORED_BF16,
    STORED_INT8
};

struct DeviceTable {
    const void *data;
    // For int8, per row: value = scale · code + offset.
    const float *scale, *offset;
    u64 rows;
    u32 width;
    u32 storage;
    // Whether rows can be read a vec4 at a time.
    u32 vectors;
    // Vec4s per row of the tables before this one.
    u32 first_vec4;
};
static_assert(sizeof(DeviceTable) == 48, "twin in src/cuda/tables.rs");

// Aligned, so that one access of shared memory moves it.
struct alignas(16) Vec4 {
    float numbers[COLUMNS];
};

__device__ __forceinline__ Vec4 zeros() { return Vec4{{0.0f, 0.0f, 0.0f, 0.0f}}; }

__device__ __forceinline__ Vec4 as_vec4(float4 vec4) { return Vec4{{vec4.x, vec4.y, vec4.z, vec4.w}}; }

// From shared memory, or global memory that this launch writes.
__device__ __forceinline__ Vec4 get_vec4(const Vec4 *from) { return as_vec4(*(const float4 *)from); }

__device__ __forceinline__ void put_vec4(Vec4 *to, const Vec4 &vec4) {
    *(float4 *)to = make_float4(vec4.numbers[0], vec4.numbers[1], vec4.numbers[2], vec4.numbers[3]);
}

__device__ __forceinline__ float widen(i8 code) { return (float)code; }

// The vec4 at an aligned address.
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

// The vec4 of a row that begins at `column`, for storage type T; zeros past the end of the row.
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

// As row_vec4, for any storage type.
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

// Writes the first `left` numbers of a vec4.
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

// The index of the table that owns this vec4 of the concatenated row.
__device__ __forceinline__ u32 table_of(const DeviceTable *tables, u32 count, u32 vec4) {
    u32 index = 0;
    while (index + 1 < count && vec4 >= tables[index + 1].first_vec4) {
        index++;
    }
    return index;
}

// Whether an id has a row; if not, its position is reported if there is a record.
__device__ __forceinline__ bool in_table(const DeviceTable &table, u64 *record, u64 at, u32 id) {
    if (id < table.rows) {
        return true;
    }
    if (record) {
        report_bad_id(record, at, id);
    }
    return false;
}
