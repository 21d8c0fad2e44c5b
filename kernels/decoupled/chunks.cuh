// Chunks of behaviours and their spans and tiles, which the kernels of gradients over all behaviours share.
#pragma once
#include "shared/common.cuh"

enum : u32 {
    THREADS = 128,
    // Candidates of a tile, and the behaviours that a block takes at a time.
    CANDIDATES = 16,
    BEHAVIOURS = 64,
    // The most behaviours of a span.
    SPAN = 256,
    // Columns that are staged in shared memory at a time.
    STAGED = 32,
    // Adjacent threads have different behaviours, or columns.
    LANES = 16,
    OWN_BEHAVIOURS = BEHAVIOURS / LANES,
    OWN_CANDIDATES = CANDIDATES / (THREADS / LANES),
    // Columns of a block that sums over candidates, and of one that sums over behaviours.
    BEHAVIOUR_COLUMNS = 32,
    CANDIDATE_COLUMNS = 64,
    OWN_COLUMNS = 4,
};

// Behaviours of one user.
struct DecoupledSpan {
    // The first, counted from that of the chunk.
    u32 row, rows;
    u32 first_target, targets;
    // Where its pairs [targets, rows], and its partial results [targets], begin.
    u32 pairs, partial;
};

// A span, and some candidates: the first counted from the user's first.
struct DecoupledTile {
    u32 span, first_row;
};

// Up to 16 candidates whose partial results, one for each span of a chunk, are added up.
struct DecoupledMerge {
    u32 first_target, rows;
    // The first of the first span; from a span to the next.
    u32 partial, step;
    u32 spans;
};

// Of a candidate: `sum` is 0 where nothing is left.
struct alignas(16) State {
    float max, sum, mean;
    u32 unused;
};
