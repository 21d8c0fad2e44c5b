// Scores of a tile of candidates with a span of a history, from attention tables of any storage type:
//
//     score[m,l] = factor · Σ_f ⟨scale_f · A_f[target_ids[m,f]], A_f[ids[l,f]]⟩
//
// Rows are gathered by id into shared memory, 256 behaviours and at most 16 of their numbers at a time, the next while these
// are multiplied: f32 by asynchronous copies, other storage types widened to f32 through registers. Adjacent threads read
// adjacent numbers of a row. Shared memory holds them by vec4, [vec4s, 256 + padding], so that the threads of a warp, one
// behaviour each, read adjacent vec4s. A thread scores two behaviours with all candidates of the tile, in registers: a load of
// a query's vec4 serves two behaviours, one of a behaviour's vec4 serves all candidates. Queries are scaled when they are
// read, by no more than 1: a row times a larger scale could leave the range of f32. All in f32, with fused multiply-adds.
#pragma once
#include "selection/block.cuh"
#include "shared/tables.cuh"

enum : u32 {
    // Vec4s in shared memory at a time: of a row (double-buffered), and of a query.
    STAGED_VEC4S = 4,
    QUERY_VEC4S = 32,
    // Rows that a thread has in flight.
    ROWS_AHEAD = 4,
};

struct Scoring {
    const u32 *ids, *target_ids;
    // Records for ids outside their tables; null: not reported.
    u64 *record, *target_record;
    u32 features;
    // Vec4s per concatenated row of all tables.
    u32 vec4s;
    DeviceTable tables[MOST_TABLES];
    float scales[MOST_TABLES];
    float factor;
    u32 unused;
};

// Where rows and queries are staged.
struct Stage {
    // [2, columns, stride] and [QUERY_VEC4S, candidates + 1].
    Vec4 *rows, *queries;
    // Vec4s per row that fit, and the distance between two vec4s of a row.
    u32 columns, stride;
    // The buffer of rows that is ready or being filled.
    u32 turn;
};

// The adjacent threads that stage so many vec4s of a row. With as many, each stages a multiple of ROWS_AHEAD rows.
__device__ __forceinline__ constexpr u32 staging_lanes(u32 vec4s) { return vec4s > 2 ? 4 : 2; }

static_assert(BEHAVIOURS / (THREADS / 2) % ROWS_AHEAD == 0 && BEHAVIOURS / (THREADS / 4) % ROWS_AHEAD == 0, "");

// Bytes of shared memory of a stage.
__device__ constexpr u32 stage_bytes(u32 vec4s, u32 candidates) {
    u32 columns = vec4s < STAGED_VEC4S ? vec4s : STAGED_VEC4S, queries = vec4s < QUERY_VEC4S ? vec4s : QUERY_VEC4S;
    u32 stride = BEHAVIOURS + 8 / staging_lanes(columns);
    return (2 * columns * stride + queries * (candidates + 1)) * sizeof(Vec4);
}

// The padding after the 256 vec4s of a column lets eight threads that write whole rows access every bank.
__device__ __forceinline__ Stage stage_at(void *shared, const Scoring &p) {
    u32 columns = min((u32)STAGED_VEC4S, p.vec4s), stride = BEHAVIOURS + 8 / staging_lanes(columns);
    Vec4 *rows = (Vec4 *)shared;
    return Stage{rows, rows + 2 * columns * stride, columns, stride, 0};
}

// A vec4 of the row of an id; zeros for an id outside its table.
__device__ __forceinline__ Vec4 scored_vec4(const Scoring &p, const u32 *ids, u64 *record, u64 row, u32 vec4, u32 &table) {
    table = table_of(p.tables, p.features, vec4);
    const DeviceTable &from = p.tables[table];
    u64 at = row * p.features + table;
    u32 id = __ldg(ids + at);
    return in_table(from, record, at, id) ? any_row_vec4(from, id, COLUMNS * (vec4 - from.first_vec4)) : zeros();
}

// Reads the ids of the rows row, row + rows, … of BEHAVIOURS, and calls `put` with each and whether the row exists: not
// from `length` on, nor for an id outside the table, which is reported. `ids` begins at row 0; rows are `features`
// apart.
template <typename Put>
__device__ __forceinline__ void gather(
    const Scoring &p, const DeviceTable &table, const u32 *ids, u32 row, u32 rows, u32 length, Put put) {
    const u64 table_rows = table.rows;
    for (; row < BEHAVIOURS; row += ROWS_AHEAD * rows) {
        u32 id[ROWS_AHEAD];
        bool all = true;
#pragma unroll
        for (u32 i = 0; i < ROWS_AHEAD; i++) {
            // Past the end the last id is read again, and unused.
            id[i] = __ldg(ids + (u64)min(row + i * rows, length - 1) * p.features);
        }
#pragma unroll
        for (u32 i = 0; i < ROWS_AHEAD; i++) {
            bool inside = id[i] < table_rows;
            all = all & inside;
            put(row + i * rows, id[i], inside & (row + i * rows < length));
        }
        if (!all && p.record) {
            for (u32 place = row; place < min(row + ROWS_AHEAD * rows, length); place += rows) {
                u64 behind = (u64)place * p.features;
                in_table(table, p.record, ids - p.ids + behind, ids[behind]);
            }
        }
    }
}

// The address `id` rows of `pitch` bytes after `from`: one instruction, where the compiler would emit three.
__device__ __forceinline__ const void *row_after(const void *from, u32 id, u32 pitch) {
    const void *out;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(out) : "r"(id), "r"(pitch), "l"(from));
    return out;
}

// Starts loading `count` vec4s from `first` on, of `length` behaviours (at least one) from `start` on, padded with
// zeros.
__device__ __forceinline__ void stage_rows(const Scoring &p, const Stage &stage, u64 start, u32 length, u32 first, u32 count) {
    const u32 lanes = staging_lanes(count), rows = THREADS / lanes;
    const u32 row = threadIdx.x / lanes, vec4 = threadIdx.x % lanes;
    if (vec4 >= count) {
        return;
    }
    const u32 index = table_of(p.tables, p.features, first + vec4);
    const DeviceTable &table = p.tables[index];
    const u32 column = COLUMNS * (first + vec4 - table.first_vec4);
    const u32 *ids = p.ids + start * p.features + index;
    Vec4 *to = stage.rows + (stage.turn * stage.columns + vec4) * stage.stride;
    if (table.storage == STORED_F32 && table.vectors) {
        const u32 address = shared_address(to), pitch = table.width * sizeof(f32);
        const f32 *data = (const f32 *)table.data + column;
        gather(p, table, ids, row, rows, length, [&](u32 place, u32 id, bool there) {
            copy_async(address + place * sizeof(Vec4), row_after(data, id, pitch), there ? sizeof(Vec4) : 0);
        });
    } else {
        gather(p, table, ids, row, rows, length, [&](u32 place, u32 id, bool there) {
            put_vec4(to + place, there ? any_row_vec4(table, id, column) : zeros());
        });
    }
}

// The same for the candidates, scaled, through registers.
template <u32 CANDIDATES>
__device__ __forceinline__ void stage_queries(const Scoring &p, const Stage &stage, u64 start, u32 length, u32 first, u32 count) {
    for (u32 i = threadIdx.x; i < CANDIDATES * count; i += THREADS) {
        u32 row = i / count, vec4 = i % count, table;
        Vec4 value = zeros();
        if (row < length) {
            value = scored_vec4(p, p.target_ids, p.target_record, start + row, first + vec4, table);
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                value.numbers[e] *= p.scales[table];
            }
        }
        put_vec4(stage.queries + vec4 * (CANDIDATES + 1) + row, value);
    }
}

template <u32 CANDIDATES>
__device__ __forceinline__ void add_products(float (*scores)[OWN], const Vec4 *rows, const Vec4 *queries, u32 stride, u32 count) {
    rows += threadIdx.x;
    // Unrolling would take registers that the candidates need.
#pragma unroll 1
    for (u32 vec4 = 0; vec4 < count; vec4++) {
        Vec4 own_rows[OWN];
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            own_rows[own] = get_vec4(rows + own * THREADS);
        }
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            Vec4 query = get_vec4(queries + c);
#pragma unroll
            for (u32 own = 0; own < OWN; own++) {
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    scores[c][own] = fma(query.numbers[e], own_rows[own].numbers[e], scores[c][own]);
                }
            }
        }
        rows += stride;
        queries += CANDIDATES + 1;
    }
}

// Starts loading the first rows of a piece, before it is scored.
__device__ __forceinline__ void send_first(const Scoring &p, const Stage &stage, const Piece &piece) {
    if (piece.length > 0) {
        stage_rows(p, stage, piece.history_start, piece.length, 0, stage.columns);
    }
    copy_commit();
}

// Scores the behaviours `begin + own · THREADS + thread` of a piece, whose first rows are being loaded, with all
// candidates of its tile, and starts loading the next behaviours. All threads call it together.
template <u32 CANDIDATES>
__device__ __forceinline__ void score(float (*scores)[OWN], const Scoring &p, Stage &stage, const Piece &piece, u32 begin) {
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            scores[c][own] = 0.0f;
        }
    }
    for (u32 first = 0; first < p.vec4s; first += STAGED_VEC4S) {
        // Queries that fit stay.
        if (first % QUERY_VEC4S == 0 && (begin == 0 || p.vec4s > QUERY_VEC4S)) {
            // Other threads may still read what is overwritten.
            __syncthreads();
            u32 count = min((u32)QUERY_VEC4S, p.vec4s - first);
            stage_queries<CANDIDATES>(p, stage, piece.first_target + piece.first_row, piece.rows, first, count);
        }
        copy_wait<0>();
        __syncthreads();
        const Vec4 *rows = stage.rows + stage.turn * stage.columns * stage.stride;
        stage.turn ^= 1;
        u32 next = first + STAGED_VEC4S, next_begin = begin;
        if (next >= p.vec4s) {
            next = 0;
            next_begin += BEHAVIOURS;
        }
        if (next_begin < piece.length) {
            u32 count = min((u32)STAGED_VEC4S, p.vec4s - next);
            stage_rows(p, stage, piece.history_start + next_begin, piece.length - next_begin, next, count);
            copy_commit();
        }
        const Vec4 *queries = stage.queries + first % QUERY_VEC4S * (CANDIDATES + 1);
        add_products<CANDIDATES>(scores, rows, queries, stage.stride, min((u32)STAGED_VEC4S, p.vec4s - first));
    }
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            scores[c][own] *= p.factor;
        }
    }
}
