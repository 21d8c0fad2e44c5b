// Search among behaviours: the K with the highest scores for each candidate (scores: scores.cuh), by descending score, then
// ascending position, NaN last. Scores never reach device memory: decoupled_search keeps the best of a span (selection/best.cuh),
// decoupled_select selects among the spans (selection/select.cuh).
// Variants: 16, 8, 4 or 2 candidates, which share 4096 entries: more candidates for smaller K.
#include "decoupled/scores.cuh"
#include "selection/best.cuh"
#include "selection/select.cuh"

enum : u32 {
    // Over all lists of a block.
    ENTRIES = 4096,
};

struct DecoupledSearchParams {
    const Piece *pieces;
    KeptLists kept;
    Scoring scoring;
};

template <u32 CANDIDATES>
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

LAYOUT(decoupled_search_16, sizeof(Lists<16, ENTRIES>), stage_bytes(1, 16), stage_bytes(3, 16), stage_bytes(40, 16));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_16(const DecoupledSearchParams p) { search<16>(p); }
LAYOUT(decoupled_search_8, sizeof(Lists<8, ENTRIES>), stage_bytes(1, 8), stage_bytes(3, 8), stage_bytes(40, 8));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_8(const DecoupledSearchParams p) { search<8>(p); }
LAYOUT(decoupled_search_4, sizeof(Lists<4, ENTRIES>), stage_bytes(1, 4), stage_bytes(3, 4), stage_bytes(40, 4));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_4(const DecoupledSearchParams p) { search<4>(p); }
LAYOUT(decoupled_search_2, sizeof(Lists<2, ENTRIES>), stage_bytes(1, 2), stage_bytes(3, 2), stage_bytes(40, 2));
extern "C" __global__ void __launch_bounds__(THREADS, 4) decoupled_search_2(const DecoupledSearchParams p) { search<2>(p); }

extern "C" __global__ void __launch_bounds__(256) decoupled_select(const SelectParams p) {
    __shared__ Selecting<256> s;
    select(s, p);
}
