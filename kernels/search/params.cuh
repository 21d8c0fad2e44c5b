// What the kernels that search among rows take.
#pragma once
#include "selection/best.cuh"
#include "shared/loose.cuh"

struct SearchParams {
    const Piece *pieces;
    KeptLists kept;
    const void *queries;
    const void *keys;
    // Of 8-bit rows, one per row: value = scale · code + offset; null: codes are the values.
    const float *query_scales;
    const float *query_offsets;
    const float *key_scales;
    const float *key_offsets;
    // Added to the scores of a behaviour; null: nothing is.
    const float *bias;
    // The factor on dot products.
    float scale;
    u32 cosine;
    // Numbers, or bits, of a row; its bytes; and the vectors of 16 bytes that hold it.
    u32 width;
    u32 row_bytes;
    u32 vectors;
    // How rows of behaviours can be read. Rows of candidates are read by words, unless this says numbers.
    u32 access;
};
