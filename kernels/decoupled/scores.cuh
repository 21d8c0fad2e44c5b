// Scores of a tile of candidates with a part of a history, from attention tables of any storage:
//
//     score[m,l] = Σ_f scale_f · ⟨A_f[target_ids[m,f]], A_f[ids[l,f]]⟩
//
// Rows are gathered by id into shared memory, 256 behaviours and at most 16 of their numbers at a time, the next while
// these are multiplied: f32 by copies beside the program, other storage as f32 by way of registers. Neighbouring threads
// read neighbouring numbers of a row. There they lie by fours of numbers, [fours, 256 + padding], so that the threads of
// a warp, each with a behaviour of its own, read neighbouring fours. A thread scores two behaviours with all candidates
// of the tile, in registers: a load of a query's four numbers serves two behaviours, one of a behaviour's all
// candidates. Queries are scaled when they are read. All in f32, with fused multiply-adds.
#pragma once
#include "shared/tables.cuh"

enum : u32 {
    THREADS = 128,
    WARPS = THREADS / WARP,
    // Behaviours of a thread, and of a block, at a time.
    OWN = 2,
    BEHAVIOURS = OWN * THREADS,
    // Fours of numbers that are in shared memory at a time: of a row, twice, and of a query.
    FOURS = 4,
    QUERY_FOURS = 32,
    // Rows that a thread has on their way.
    ROWS_AHEAD = 4,
};

struct Scoring {
    const u32 *ids, *target_ids;
    // For ids outside their tables; null: nobody asks.
    u64 *record, *target_record;
    u32 features;
    // Fours of numbers of a row of all tables.
    u32 fours;
    Table tables[MOST_TABLES];
    float scales[MOST_TABLES];
};

// Where rows and queries are staged.
struct Stage {
    // [2, columns, stride] and [QUERY_FOURS, candidates + 1].
    Four *rows, *queries;
    // Fours of a row that there is room for, and what is behind each column of them.
    u32 columns, stride;
    // Which of the two rows are in, or on their way to.
    u32 turn;
};

// Threads side by side over so many fours. With as many, each stages a multiple of ROWS_AHEAD rows.
__device__ __forceinline__ u32 staging_lanes(u32 fours) { return fours > 2 ? 4 : 2; }

static_assert(BEHAVIOURS / (THREADS / 2) % ROWS_AHEAD == 0 && BEHAVIOURS / (THREADS / 4) % ROWS_AHEAD == 0, "");

// The padding behind a column's 256 fours lets eight threads that write whole rows meet every bank.
__device__ __forceinline__ Stage stage_at(void *shared, const Scoring &p) {
    u32 columns = min((u32)FOURS, p.fours), stride = BEHAVIOURS + 8 / staging_lanes(columns);
    Four *rows = (Four *)shared;
    return Stage{rows, rows + 2 * columns * stride, columns, stride, 0};
}

// Four numbers of the row of an id; zeros for one outside its table.
__device__ __forceinline__ Four scored_four(const Scoring &p, const u32 *ids, u64 *record, u64 row, u32 four, u32 &table) {
    table = table_of(p.tables, p.features, four);
    const Table &from = p.tables[table];
    u64 at = row * p.features + table;
    u32 id = __ldg(ids + at);
    return known(from, record, at, id) ? any_row_four(from, id, COLUMNS * (four - from.first_four)) : zeros();
}

// Reads the ids of the rows row, row + rows, … of BEHAVIOURS and gives them to `put`, with whether there is a row: not
// from `length` on, nor for an id outside the table, which is noted. `ids`: of row 0, each `features` before the next.
template <typename Put>
__device__ __forceinline__ void gather(
    const Scoring &p, const Table &table, const u32 *ids, u32 row, u32 rows, u32 length, Put put) {
    const u64 table_rows = table.rows;
    for (; row < BEHAVIOURS; row += ROWS_AHEAD * rows) {
        u32 id[ROWS_AHEAD];
        bool all = true;
#pragma unroll
        for (u32 i = 0; i < ROWS_AHEAD; i++) {
            // Behind the end the last one's again, for nothing.
            id[i] = __ldg(ids + (u64)min(row + i * rows, length - 1) * p.features);
        }
#pragma unroll
        for (u32 i = 0; i < ROWS_AHEAD; i++) {
            bool in_table = id[i] < table_rows;
            all = all & in_table;
            put(row + i * rows, id[i], in_table & (row + i * rows < length));
        }
        if (!all && p.record) {
            for (u32 place = row; place < min(row + ROWS_AHEAD * rows, length); place += rows) {
                u64 behind = (u64)place * p.features;
                known(table, p.record, ids - p.ids + behind, ids[behind]);
            }
        }
    }
}

// The address `id` rows of `pitch` bytes after one: an instruction, where the compiler would take three.
__device__ __forceinline__ const void *row_after(const void *from, u32 id, u32 pitch) {
    const void *out;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(out) : "r"(id), "r"(pitch), "l"(from));
    return out;
}

// Sends for `count` fours from `first` on, of each of `length` behaviours from `start` on, at least one; zeros behind them.
__device__ __forceinline__ void stage_rows(const Scoring &p, const Stage &stage, u64 start, u32 length, u32 first, u32 count) {
    const u32 lanes = staging_lanes(count), rows = THREADS / lanes;
    const u32 row = threadIdx.x / lanes, four = threadIdx.x % lanes;
    if (four >= count) {
        return;
    }
    const u32 index = table_of(p.tables, p.features, first + four);
    const Table &table = p.tables[index];
    const u32 column = COLUMNS * (first + four - table.first_four);
    const u32 *ids = p.ids + start * p.features + index;
    Four *to = stage.rows + (stage.turn * stage.columns + four) * stage.stride;
    if (table.storage == STORED_F32 && table.vectors) {
        const u32 address = shared_address(to), pitch = table.width * sizeof(f32);
        const f32 *data = (const f32 *)table.data + column;
        gather(p, table, ids, row, rows, length, [&](u32 place, u32 id, bool there) {
            copy_async(address + place * sizeof(Four), row_after(data, id, pitch), there ? sizeof(Four) : 0);
        });
    } else {
        gather(p, table, ids, row, rows, length, [&](u32 place, u32 id, bool there) {
            put_four(to + place, there ? any_row_four(table, id, column) : zeros());
        });
    }
}

// The same of the candidates, scaled, in registers.
template <u32 CANDIDATES>
__device__ __forceinline__ void stage_queries(const Scoring &p, const Stage &stage, u64 start, u32 length, u32 first, u32 count) {
    for (u32 i = threadIdx.x; i < CANDIDATES * count; i += THREADS) {
        u32 row = i / count, four = i % count, table;
        Four value = zeros();
        if (row < length) {
            value = scored_four(p, p.target_ids, p.target_record, start + row, first + four, table);
#pragma unroll
            for (u32 e = 0; e < COLUMNS; e++) {
                value.numbers[e] *= p.scales[table];
            }
        }
        put_four(stage.queries + four * (CANDIDATES + 1) + row, value);
    }
}

template <u32 CANDIDATES>
__device__ __forceinline__ void add_products(float (*scores)[OWN], const Four *rows, const Four *queries, u32 stride, u32 count) {
    rows += threadIdx.x;
    // More at a time would take registers that candidates need.
#pragma unroll 1
    for (u32 four = 0; four < count; four++) {
        Four own_rows[OWN];
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            own_rows[own] = get_four(rows + own * THREADS);
        }
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            Four query = get_four(queries + c);
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

// Sends for the first rows of a piece, before it is scored.
__device__ __forceinline__ void send_first(const Scoring &p, const Stage &stage, const Piece &piece) {
    if (piece.length > 0) {
        stage_rows(p, stage, piece.history_start, piece.length, 0, stage.columns);
    }
    copy_commit();
}

// Of the behaviours `begin + own · THREADS + thread` of a piece, with all candidates of its tile, whose first rows have
// been sent for; sends for those of the next behaviours. All threads call it together.
template <u32 CANDIDATES>
__device__ __forceinline__ void score(float (*scores)[OWN], const Scoring &p, Stage &stage, const Piece &piece, u32 begin) {
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            scores[c][own] = 0.0f;
        }
    }
    for (u32 first = 0; first < p.fours; first += FOURS) {
        // Queries that fit stay.
        if (first % QUERY_FOURS == 0 && (begin == 0 || p.fours > QUERY_FOURS)) {
            // Before overwriting what others may still read.
            __syncthreads();
            u32 count = min((u32)QUERY_FOURS, p.fours - first);
            stage_queries<CANDIDATES>(p, stage, piece.first_target + piece.first_row, piece.rows, first, count);
        }
        copy_wait<0>();
        __syncthreads();
        const Four *rows = stage.rows + stage.turn * stage.columns * stage.stride;
        stage.turn ^= 1;
        u32 next = first + FOURS, next_begin = begin;
        if (next >= p.fours) {
            next = 0;
            next_begin += BEHAVIOURS;
        }
        if (next_begin < piece.length) {
            u32 count = min((u32)FOURS, p.fours - next);
            stage_rows(p, stage, piece.history_start + next_begin, piece.length - next_begin, next, count);
            copy_commit();
        }
        const Four *queries = stage.queries + first % QUERY_FOURS * (CANDIDATES + 1);
        add_products<CANDIDATES>(scores, rows, queries, stage.stride, min((u32)FOURS, p.fours - first));
    }
}
