// Search among behaviours: the K with the highest scores for each candidate (scores: scores.cuh), by descending score, then
// ascending position, NaN last. Scores never reach device memory: decoupled_search keeps the best of a span (selection/best.cuh),
// the kernels of search/search.cu select among the spans.
// Variants: 16, 8, 4 or 2 candidates, which share 4096 entries: more candidates for smaller K. One with 8192, for the largest.
#include "decoupled/scores.cuh"
#include "selection/best.cuh"

struct DecoupledSearchParams {
    const Piece *pieces;
    KeptLists kept;
    Scoring scoring;
};

template <u32 CANDIDATES, u32 ENTRIES>
__device__ __forceinline__ void search(const DecoupledSearchParams &p) {
    auto &lists = *(Lists<CANDIDATES, ENTRIES> *)dynamic_shared;
    const Piece piece = p.pieces[blockIdx.x];
    Stage stage = stage_at(&lists + 1, p.scoring);
    send_first(p.scoring, stage, piece);
    keep_best(p.kept, piece, lists, [&](float (*scores)[OWN], u32 begin) {
        score<CANDIDATES>(scores, p.scoring, stage, piece, begin);
        return 0u;
    });
}

// The kernel of so many candidates and entries, and what the host knows of its shared memory.
#define VARIANT(CANDIDATES, ENTRIES)                                                                                        \
    LAYOUT(decoupled_search_##CANDIDATES, sizeof(Lists<CANDIDATES, ENTRIES>), stage_bytes(1, CANDIDATES),                   \
           stage_bytes(3, CANDIDATES), stage_bytes(40, CANDIDATES));                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_##CANDIDATES(const DecoupledSearchParams p) { \
        search<CANDIDATES, ENTRIES>(p);                                                                                     \
    }
VARIANT(16, 4096)
VARIANT(8, 4096)
VARIANT(4, 4096)
VARIANT(2, 4096)
VARIANT(1, 8192)
