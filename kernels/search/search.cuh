// Search among rows: the K behaviours with the highest scores for each candidate, by descending score, then ascending position,
// NaN last:
//
//     dot:      score[m,l] = scale · ⟨q_m, k_l⟩ + bias_l
//     cosine:   score[m,l] = ⟨q_m, k_l⟩ / (max(‖q_m‖, 1e-12) · max(‖k_l‖, 1e-12));   a k_l of zeros is never kept
//     Hamming:  score[m,l] = bits − (number of bits in which q_m and k_l differ)
//
// A block takes a tile of candidates and a span of their user's history (selection/best.cuh); scores stay in registers. Rows come
// to shared memory as they are stored, 256 behaviours and at most 64 bytes of each at a time, the next while these are multiplied:
// asynchronously where rows are whole vectors of 16 bytes, otherwise through registers. Shared memory holds them by vector,
// [vectors, 256 + padding], so that the threads of a warp, one behaviour each, read adjacent vectors. A thread scores two
// behaviours with all candidates of the tile: a load of a candidate's quad serves two behaviours, one of a behaviour's vector all
// candidates. Candidates are in shared memory as the products take them (rows.cuh), for a cosine with a length of 1.
//
// Variants: 16 or 4 candidates share 4096 entries, for K of up to 102 and 716: a list has K and a quarter more after it is cut, and
// room for an entry per thread before. One candidate has 8192 entries, for K of up to 4096: with its stage that is nearly the
// 99 KiB that a block may have on sm_86, sm_89 and sm_120. Lists in shared memory that are cut rarely were preferred to runs
// sorted in device memory: entries that a floor rejects cost a comparison, and nothing but K and a quarter of a span is written.
//
// Wide variants, for rows of more than 4096 numbers: products of 4096 columns are added up, and then the sums of these blocks, so that
// rounding errors do not grow with the width.
#pragma once
#include "search/rows.cuh"

enum : u32 {
    // Vectors of a row in shared memory at a time (double-buffered), and quads of a candidate.
    STAGED_VECTORS = 4,
    STAGED_QUADS = 32,
    // Columns of a block of sums, in wide variants.
    BLOCK_COLUMNS = 4096,
};

// What a block keeps in shared memory before its stage.
template <u32 CANDIDATES, u32 ENTRIES>
struct alignas(16) Kept {
    Lists<CANDIDATES, ENTRIES> lists;
    // The factors of candidates.
    float shrinks[CANDIDATES];
    float inverses[CANDIDATES];
};

// Where rows and candidates are staged.
template <typename Quad>
struct Stage {
    // [2, columns, stride] and [STAGED_QUADS, candidates + 1].
    Vector *rows;
    Quad *queries;
    // Vectors per row that fit, and the distance between two vectors of a row.
    u32 columns, stride;
    // The buffer of rows that is ready or being filled.
    u32 turn;
};

// The adjacent threads that stage so many vectors of a row.
__device__ __forceinline__ constexpr u32 staging_lanes(u32 vectors) { return vectors > 2 ? 4 : vectors; }

// The padding lets eight threads that write whole rows access every bank.
__device__ __forceinline__ constexpr u32 stage_stride(u32 columns) { return BEHAVIOURS + 8 / staging_lanes(columns); }

// Bytes of shared memory of a stage.
__device__ constexpr u32 stage_bytes(u32 vectors, u32 quads, u32 candidates) {
    u32 columns = vectors < STAGED_VECTORS ? vectors : STAGED_VECTORS, staged = quads < STAGED_QUADS ? quads : STAGED_QUADS;
    return (2 * columns * stage_stride(columns) + staged * (candidates + 1)) * sizeof(Vector);
}

template <typename Quad>
__device__ __forceinline__ Stage<Quad> stage_at(void *shared, u32 vectors) {
    u32 columns = min((u32)STAGED_VECTORS, vectors), stride = stage_stride(columns);
    Vector *rows = (Vector *)shared;
    return Stage<Quad>{rows, (Quad *)(rows + 2 * columns * stride), columns, stride, 0};
}

// Starts loading `count` vectors from `first` on, of `length` behaviours (at least one) from `start` on, padded with zeros.
template <typename Row>
__device__ __forceinline__ void stage_rows(
    const SearchParams &p, const Stage<typename Row::Quad> &stage, u64 start, u32 length, u32 first, u32 count) {
    const u32 lanes = staging_lanes(count), rows = THREADS / lanes, lane = threadIdx.x % lanes;
    if (lane >= count) {
        return;
    }
    u32 row = threadIdx.x / lanes;
    const u8 *from = (const u8 *)p.keys + (start + row) * p.row_bytes;
    Vector *to = stage.rows + (stage.turn * stage.columns + lane) * stage.stride + row;
    const u64 step = (u64)rows * p.row_bytes;
    const u32 at = 16 * (first + lane);
    if (p.access == VECTORS) {
        u32 address = shared_address(to);
        from += at;
#pragma unroll 2
        for (; row < BEHAVIOURS; row += rows) {
            copy_async(address, from, row < length ? 16 : 0);
            address += rows * sizeof(Vector);
            from += step;
        }
        return;
    }
    for (; row < BEHAVIOURS; row += rows) {
        const bool words = p.access == WORDS;
        Vector value = {};
        if (row < length) {
            loose_words<Row::NUMBER_BYTES, 4>(value.words, from, at, p.row_bytes, words);
        }
        store_vector(to, value);
        to += rows;
        from += step;
    }
}

// Starts loading the first vectors of the behaviours from `begin` on.
template <typename Row>
__device__ __forceinline__ void send_first(
    const SearchParams &p, const Stage<typename Row::Quad> &stage, const Piece &piece, u32 begin) {
    if (begin < piece.length) {
        stage_rows<Row>(p, stage, piece.history_start + begin, piece.length - begin, 0, stage.columns);
    }
    copy_commit();
}

__device__ __forceinline__ void put_quad(Vec4 *to, const Vec4 &quad) { put_vec4(to, quad); }
__device__ __forceinline__ void put_quad(Vector *to, const Vector &quad) { store_vector(to, quad); }
__device__ __forceinline__ Vec4 get_quad(const Vec4 *from) { return get_vec4(from); }
__device__ __forceinline__ Vector get_quad(const Vector *from) { return read_vector(from); }

// Stages `count` quads of the candidates from `first` on.
template <typename Row, u32 CANDIDATES>
__device__ __forceinline__ void stage_queries(
    const SearchParams &p, const Stage<typename Row::Quad> &stage, const float *shrinks, const float *inverses,
    const Piece &piece, u32 first, u32 count) {
    for (u32 i = threadIdx.x; i < CANDIDATES * count; i += THREADS) {
        u32 row = i / count, quad = i % count;
        typename Row::Quad value = {};
        if (row < piece.rows) {
            u64 m = piece.first_target + piece.first_row + row;
            value = Row::query(p, m, first + quad, shrinks[row], inverses[row]);
        }
        put_quad(stage.queries + quad * (CANDIDATES + 1) + row, value);
    }
}

// Adds the products of the staged vectors from `first` on.
template <typename Row, u32 CANDIDATES>
__device__ __forceinline__ void add_products(
    const SearchParams &p, typename Row::Sum (*sums)[OWN], Row *own, const Vector *rows, const typename Row::Quad *queries,
    u32 stride, u32 first, u32 count) {
    rows += threadIdx.x;
    // Unrolling would take registers that the candidates need.
#pragma unroll 1
    for (u32 vector = first; vector < first + count; vector++) {
        Vector read[OWN];
        float squares[OWN];
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            read[o] = read_vector(rows + o * THREADS);
            squares[o] = 0.0f;
        }
#pragma unroll
        for (u32 part = 0; part < Row::QUADS; part++) {
            typename Row::Quad quads[OWN];
#pragma unroll
            for (u32 o = 0; o < OWN; o++) {
                quads[o] = own[o].quad(read[o], part, p.width - vector * Row::PER);
                if (p.cosine) {
                    own[o].measure(quads[o], squares[o]);
                }
            }
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                auto query = get_quad(queries + c);
#pragma unroll
                for (u32 o = 0; o < OWN; o++) {
                    sums[c][o] = Row::add(sums[c][o], query, quads[o]);
                }
            }
            queries += CANDIDATES + 1;
        }
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            own[o].measured(squares[o]);
        }
        rows += stride;
    }
}

// Adds the sums of a block of columns to those of all, and begins anew.
template <typename Row, u32 CANDIDATES>
__device__ __forceinline__ void close_block(typename Row::Sum (*totals)[OWN], typename Row::Sum (*sums)[OWN]) {
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            totals[c][o] += sums[c][o];
            sums[c][o] = 0;
        }
    }
}

// Adds the products of whole rows of the behaviours `begin + own · THREADS + thread` of a piece, whose first vectors are being
// loaded, with all candidates of its tile, and starts loading the next behaviours.
template <typename Row, u32 CANDIDATES, u32 ENTRIES, bool WIDE>
__device__ __forceinline__ void add_rows(
    const SearchParams &p, typename Row::Sum (*sums)[OWN], Row *own, const Kept<CANDIDATES, ENTRIES> &kept,
    Stage<typename Row::Quad> &stage, const Piece &piece, u32 begin) {
    constexpr u32 QUERY_VECTORS = STAGED_QUADS / Row::QUADS, BLOCK_VECTORS = BLOCK_COLUMNS / Row::PER;
    // Of the blocks so far.
    typename Row::Sum totals[WIDE ? CANDIDATES : 1][OWN] = {};
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        u32 behaviour = begin + o * THREADS + threadIdx.x;
        own[o].begin(p.key_scales, p.key_offsets, piece.history_start + behaviour, behaviour < piece.length);
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            sums[c][o] = 0;
        }
    }
    for (u32 first = 0; first < p.vectors; first += STAGED_VECTORS) {
        // Candidates that fit stay.
        if (first % QUERY_VECTORS == 0 && (begin == 0 || p.vectors > QUERY_VECTORS)) {
            // Other threads may still read what is overwritten, or write the factors.
            __syncthreads();
            u32 count = Row::QUADS * min(QUERY_VECTORS, p.vectors - first);
            stage_queries<Row, CANDIDATES>(p, stage, kept.shrinks, kept.inverses, piece, Row::QUADS * first, count);
        }
        copy_wait<0>();
        __syncthreads();
        const Vector *rows = stage.rows + stage.turn * stage.columns * stage.stride;
        stage.turn ^= 1;
        u32 next = first + STAGED_VECTORS, next_begin = begin;
        if (next >= p.vectors) {
            next = 0;
            next_begin += BEHAVIOURS;
        }
        if (next_begin < piece.length) {
            u32 count = min((u32)STAGED_VECTORS, p.vectors - next);
            stage_rows<Row>(p, stage, piece.history_start + next_begin, piece.length - next_begin, next, count);
            copy_commit();
        }
        const auto *queries = stage.queries + first % QUERY_VECTORS * Row::QUADS * (CANDIDATES + 1);
        u32 count = min((u32)STAGED_VECTORS, p.vectors - first);
        add_products<Row, CANDIDATES>(p, sums, own, rows, queries, stage.stride, first, count);
        if constexpr (WIDE) {
            if ((first + STAGED_VECTORS) % BLOCK_VECTORS == 0) {
                close_block<Row, CANDIDATES>(totals, sums);
            }
        }
    }
    if constexpr (WIDE) {
        close_block<Row, CANDIDATES>(totals, sums);
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
#pragma unroll
            for (u32 o = 0; o < OWN; o++) {
                sums[c][o] = totals[c][o];
            }
        }
    }
}

// Whether squares of rows leave the range of f32 in any thread: then these rows shrink, and loading begins anew. All threads
// call it together.
template <typename Row>
__device__ __forceinline__ bool shrinks_any(
    const SearchParams &p, Row *own, const Stage<typename Row::Quad> &stage, const Piece &piece, u32 begin) {
    bool any = false;
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        bool large = !is_finite(own[o].square.value());
        own[o].shrink = large ? shrunk() : 1.0f;
        any |= large;
    }
    if (!__syncthreads_or(any)) {
        return false;
    }
    // What is being loaded is overwritten.
    copy_wait<0>();
    __syncthreads();
    send_first<Row>(p, stage, piece, begin);
    return true;
}

// Scores behaviours with all candidates, and returns a bit for each own one that is never kept.
template <typename Row, u32 CANDIDATES, u32 ENTRIES, bool WIDE>
__device__ __forceinline__ u32 score(
    const SearchParams &p, float (*scores)[OWN], const Kept<CANDIDATES, ENTRIES> &kept, Stage<typename Row::Quad> &stage,
    const Piece &piece, u32 begin) {
    typename Row::Sum sums[CANDIDATES][OWN];
    Row own[OWN];
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        own[o].shrink = 1.0f;
    }
#pragma unroll 1
    for (bool again = false;; again = true) {
        add_rows<Row, CANDIDATES, ENTRIES, WIDE>(p, sums, own, kept, stage, piece, begin);
        if constexpr (Row::MAY_SHRINK != 0) {
            if (p.cosine && !again && shrinks_any<Row>(p, own, stage, piece, begin)) {
                continue;
            }
        }
        break;
    }
    u32 removed = 0;
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        u32 behaviour = begin + o * THREADS + threadIdx.x;
        bool biased = p.bias && behaviour < piece.length;
        float bias = biased ? __ldg(p.bias + piece.history_start + behaviour) : 0.0f;
        float factor = p.cosine ? own[o].inverse() : p.scale;
        removed |= (p.cosine && own[o].is_zero() ? 1u : 0u) << o;
#pragma unroll
        for (u32 c = 0; c < CANDIDATES; c++) {
            scores[c][o] = Row::score(sums[c][o], kept.inverses[c], factor, bias, p.width);
        }
    }
    return removed;
}

template <typename Row, u32 CANDIDATES, u32 ENTRIES, bool WIDE = false>
__device__ __forceinline__ void search(const SearchParams &p) {
    auto &kept = *(Kept<CANDIDATES, ENTRIES> *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x];
    auto stage = stage_at<typename Row::Quad>(&kept + 1, p.vectors);
    send_first<Row>(p, stage, piece, 0);
    for (u32 c = threadIdx.x / WARP; c < CANDIDATES; c += WARPS) {
        float shrink = 1.0f, inverse = 1.0f;
        if (p.cosine && c < piece.rows) {
            Row::direction(p, piece.first_target + piece.first_row + c, shrink, inverse);
        }
        if (threadIdx.x % WARP == 0) {
            kept.shrinks[c] = shrink;
            kept.inverses[c] = inverse;
        }
    }
    keep_best(p.kept, piece, kept.lists, [&](float (*scores)[OWN], u32 begin) {
        return score<Row, CANDIDATES, ENTRIES, WIDE>(p, scores, kept, stage, piece, begin);
    });
}

// Three blocks per multiprocessor: without the bound, ptxas aims at more on some devices, and spills.
// The kernels of a storage, with their numbers of candidates and entries, and what the host knows of their shared memory.
#define VARIANT(NAME, ROW, CANDIDATES, ENTRIES)                                                                     \
    LAYOUT(search_##NAME##_##CANDIDATES, sizeof(Kept<CANDIDATES, ENTRIES>), stage_bytes(1, ROW::QUADS, CANDIDATES), \
           stage_bytes(3, 3 * ROW::QUADS, CANDIDATES), stage_bytes(40, 40 * ROW::QUADS, CANDIDATES));               \
    extern "C" __global__ void __launch_bounds__(THREADS, 3) search_##NAME##_##CANDIDATES(const SearchParams p) {   \
        search<ROW, CANDIDATES, ENTRIES>(p);                                                                        \
    }
#define VARIANTS(NAME, ROW)      \
    VARIANT(NAME, ROW, 16, 4096) \
    VARIANT(NAME, ROW, 4, 4096)  \
    VARIANT(NAME, ROW, 1, 8192)

// The same for wide rows; two blocks per multiprocessor, because of the registers for two sets of sums.
#define WIDE_VARIANT(NAME, ROW, CANDIDATES, ENTRIES)                                                                     \
    LAYOUT(search_##NAME##_wide_##CANDIDATES, sizeof(Kept<CANDIDATES, ENTRIES>), stage_bytes(1, ROW::QUADS, CANDIDATES), \
           stage_bytes(3, 3 * ROW::QUADS, CANDIDATES), stage_bytes(40, 40 * ROW::QUADS, CANDIDATES));                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) search_##NAME##_wide_##CANDIDATES(const SearchParams p) {   \
        search<ROW, CANDIDATES, ENTRIES, true>(p);                                                                       \
    }
#define WIDE_VARIANTS(NAME, ROW)      \
    WIDE_VARIANT(NAME, ROW, 16, 4096) \
    WIDE_VARIANT(NAME, ROW, 4, 4096)  \
    WIDE_VARIANT(NAME, ROW, 1, 8192)
