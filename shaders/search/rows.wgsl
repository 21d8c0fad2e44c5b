// Scores behaviours by their rows of numbers, for a search that keeps the best K of each candidate.
//
//     dot:     score[m,l] = factor[m] · ⟨q_m, k_l⟩ + bias[l]                           factor[m] is the scale
//     cosine:  score[m,l] = factor[m] · (factor[l] · ⟨2^i q_m, 2^j k_l⟩)               a k_l of zeros is never kept
//
// Scores: search/row_scores.wgsl. Products of 8-bit codes are integers, and so are their sums up to 2^24: of rows of up to
// 1024 codes they are exact. Pieces, threads and lists: selection/pieces.wgsl. Variants: those of the lists; COSINE.

struct SearchRowsParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first row of the bindings.
    first_history: u32,
    top_k: u32,
    // The first slot of the tiles with one piece.
    first_whole: u32,
    width: u32,
    rows_base: u32,
    scale_base: u32,
    offset_base: u32,
    bias_base: u32,
    has_bias: u32,
}
@group(0) @binding(0) var<uniform> params: SearchRowsParams;

fn keys_of_rows(row: vec4<u32>, tile: u32) -> Keys {
    let l = row - params.first_history;
    let scales = scales_of(l);
    var keys = keys_of(scores_of_rows(l, scales, tile));
    if COSINE == 1u {
        keys.allowed = bits_of_behaviours(scales.powers > vec4<f32>());
    }
    return keys;
}
