// Scores of a tile of candidates with a part of a history, from attention tables of any storage:
//
//     score[m,l] = Σ_f scale_f · ⟨A_f[target_ids[m,f]], A_f[ids[l,f]]⟩
//
// Rows are gathered by id into shared memory, 256 behaviours and at most 32 of their numbers at a time; neighbouring
// threads read neighbouring numbers of a row. There they lie by fours of numbers, [fours, 256 + padding], so that the
// threads of a warp, each with a behaviour of its own, read neighbouring fours. A thread scores two behaviours with all
// candidates of the tile, in registers: a load of a query's four numbers serves two behaviours, one of a behaviour's
// all candidates. Queries are scaled when they are read. All in f32, with fused multiply-adds.
#pragma once
#include "tables.cuh"

enum : u32 {
    THREADS = 128,
    WARPS = THREADS / WARP,
    // Behaviours of a thread, and of a block, at a time.
    OWN = 2,
    BEHAVIOURS = OWN * THREADS,
    // Fours of numbers of a row that are in shared memory at a time.
    FOURS = 8,
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
    // [FOURS, stride] and [FOURS, candidates].
    Four *rows, *queries;
    u32 stride;
};

// What is behind the 256 fours of a column, so that a warp that writes whole rows meets every bank: `fours` columns,
// 8 / fours rows at a time.
__device__ __forceinline__ u32 padding(u32 fours) {
    return fours == 2 ? 4 : fours == 4 ? 2 : fours % 2 ? fours : 1;
}

// Four numbers of the row of an id; zeros for one outside its table.
__device__ __forceinline__ Four scored_four(const Scoring &p, const u32 *ids, u64 *record, u64 row, u32 four, u32 &table) {
    table = table_of(p.tables, p.features, four);
    const Table &from = p.tables[table];
    u64 at = row * p.features + table;
    u32 id = __ldg(ids + at);
    return known(from, record, at, id) ? any_row_four(from, id, COLUMNS * (four - from.first_four)) : zeros();
}

__device__ __forceinline__ void put_four(Four *to, const Four &four) { store_vector(to, narrow_vector<f32>(four.numbers)); }

__device__ __forceinline__ Four get_four(const Four *from) {
    Four out;
    widen_vector<f32>(read_vector(from), out.numbers);
    return out;
}

// `count` fours from `first` on, of each of `length` behaviours; zeros behind them.
__device__ __forceinline__ void stage_rows(const Scoring &p, const Stage &stage, u64 start, u32 length, u32 first, u32 count) {
    u32 row = threadIdx.x / count, four = threadIdx.x % count;
    // A step of all threads on, without a division.
    const u32 rows = THREADS / count, fours = THREADS % count;
    while (row < BEHAVIOURS) {
        u32 table;
        Four value = row < length ? scored_four(p, p.ids, p.record, start + row, first + four, table) : zeros();
        put_four(stage.rows + four * stage.stride + row, value);
        row += rows;
        four += fours;
        if (four >= count) {
            four -= count;
            row++;
        }
    }
}

// The same of the candidates, scaled.
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
        put_four(stage.queries + four * CANDIDATES + row, value);
    }
}

template <u32 CANDIDATES>
__device__ __forceinline__ void add_products(float (*scores)[OWN], const Stage &stage, u32 count) {
    // More at a time would take registers that candidates need.
#pragma unroll 1
    for (u32 four = 0; four < count; four++) {
        Four rows[OWN];
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            rows[own] = get_four(stage.rows + four * stage.stride + own * THREADS + threadIdx.x);
        }
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            Four query = get_four(stage.queries + four * CANDIDATES + c);
#pragma unroll
            for (u32 own = 0; own < OWN; own++) {
#pragma unroll
                for (u32 e = 0; e < COLUMNS; e++) {
                    scores[c][own] = fma(query.numbers[e], rows[own].numbers[e], scores[c][own]);
                }
            }
        }
    }
}

// Of the behaviours `begin + own · THREADS + thread` of a piece, with all candidates of its tile. All threads call it
// together; what was staged may be overwritten after the next barrier.
template <u32 CANDIDATES>
__device__ __forceinline__ void score(float (*scores)[OWN], const Scoring &p, const Stage &stage, const Piece &piece, u32 begin) {
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
        for (u32 own = 0; own < OWN; own++) {
            scores[c][own] = 0.0f;
        }
    }
    for (u32 first = 0; first < p.fours; first += FOURS) {
        u32 count = min((u32)FOURS, p.fours - first);
        // Before overwriting what others may still read.
        __syncthreads();
        // Queries that fit stay.
        if (begin == 0 || p.fours > FOURS) {
            stage_queries<CANDIDATES>(p, stage, piece.first_target + piece.first_row, piece.rows, first, count);
        }
        stage_rows(p, stage, piece.history_start + begin, piece.length - begin, first, count);
        __syncthreads();
        add_products<CANDIDATES>(scores, stage, count);
    }
}
