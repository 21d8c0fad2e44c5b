// Embedding tables of any mix of storage types, and their rows, four numbers at a time.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    // Tables that the parameters of a launch have room for.
    MOST_TABLES = 32,
    COLUMNS = 4,
};

enum Storage : u32 { STORED_F32, STORED_F16, STORED_BF16, STORED_INT8 };

struct Table {
    const void *data;
    // Of each row of codes: value = scale · code + offset.
    const float *scale, *offset;
    u64 rows;
    u32 width;
    u32 storage;
    // Rows can be read four numbers at a time.
    u32 vectors;
    // Fours of numbers that a row of the tables before it has.
    u32 first_four;
};
static_assert(sizeof(Table) == 48, "src/cuda/lookup.rs mirrors it");

// Aligned, so that shared memory takes it whole.
struct alignas(16) Four {
    float numbers[COLUMNS];
};

__device__ __forceinline__ Four zeros() { return Four{{0.0f, 0.0f, 0.0f, 0.0f}}; }

__device__ __forceinline__ Four as_four(float4 four) { return Four{{four.x, four.y, four.z, four.w}}; }

// In shared memory, or of this launch's own in global memory.
__device__ __forceinline__ Four get_four(const Four *from) { return as_four(*(const float4 *)from); }

__device__ __forceinline__ void put_four(Four *to, const Four &four) {
    *(float4 *)to = make_float4(four.numbers[0], four.numbers[1], four.numbers[2], four.numbers[3]);
}

__device__ __forceinline__ float widen(i8 code) { return (float)code; }

// The four numbers at an aligned address.
template <typename T>
__device__ __forceinline__ Four load_four(const T *from) {
    Four out;
    if constexpr (sizeof(T) == 4) {
        out = as_four(__ldg((const float4 *)from));
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
__device__ __forceinline__ Four row_four(const Table &table, u32 id, u32 column) {
    const T *from = (const T *)table.data + (u64)id * table.width + column;
    Four out = zeros();
    if (table.vectors) {
        out = load_four(from);
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
__device__ __forceinline__ Four any_row_four(const Table &table, u32 id, u32 column) {
    switch (table.storage) {
    case STORED_F32:
        return row_four<f32>(table, id, column);
    case STORED_F16:
        return row_four<f16>(table, id, column);
    case STORED_BF16:
        return row_four<bf16>(table, id, column);
    default:
        return row_four<i8>(table, id, column);
    }
}

// Writes the numbers that there are in the `left` columns from `to` on.
__device__ __forceinline__ void store_four(float *to, const Four &four, u32 left) {
    if (left >= COLUMNS && (u64)to % sizeof(Four) == 0) {
        put_four((Four *)to, four);
        return;
    }
#pragma unroll
    for (u32 e = 0; e < COLUMNS; e++) {
        if (e < left) {
            to[e] = four.numbers[e];
        }
    }
}

// The table that a four of numbers of the rows side by side is of.
__device__ __forceinline__ u32 table_of(const Table *tables, u32 count, u32 four) {
    u32 index = 0;
    while (index + 1 < count && four >= tables[index + 1].first_four) {
        index++;
    }
    return index;
}

// Whether an id has a row. The place of one that has none is noted, where there is a record.
__device__ __forceinline__ bool known(const Table &table, u64 *record, u64 at, u32 id) {
    if (id < table.rows) {
        return true;
    }
    if (record) {
        report_bad_id(record, at, id);
    }
    return false;
}
