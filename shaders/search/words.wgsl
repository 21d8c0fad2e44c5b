// Scores behaviours by words, for a search that keeps the best K of each candidate.
//
//     Hamming:  score[m,l] = bits - (number of bits in which q_m and k_l differ)
//     MATCH:    score[m,l] = 1 of one word that is equal; any other is never kept. Of equal words the newest are kept.
//
// Candidates were packed by search/pack_words.wgsl, without the bits past the width; rows of behaviours are read in
// place. Bits are counted in integers. Pieces, threads and lists: selection/pieces.wgsl. Variants: those of the lists;
// MATCH.

struct SearchWordsParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first row of the binding.
    first_history: u32,
    top_k: u32,
    // The first slot of the tiles with one piece.
    first_whole: u32,
    // The words of a row, its bits, and those of its last word.
    words: u32,
    bits: u32,
    last_mask: u32,
    rows_base: u32,
}
@group(0) @binding(0) var<uniform> params: SearchWordsParams;

// Differing bits of 4 behaviours (0..3) and candidates 0..3 (a) and 4..7 (b).
struct Differing {
    a0: vec4<u32>, a1: vec4<u32>, a2: vec4<u32>, a3: vec4<u32>,
    b0: vec4<u32>, b1: vec4<u32>, b2: vec4<u32>, b3: vec4<u32>,
}

fn differing_bits(word: u32, candidates: vec4<u32>) -> vec4<u32> {
    return countOneBits(vec4<u32>(word) ^ candidates);
}

fn score_of(differing: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(params.bits - differing);
}

fn equal(differing: vec4<u32>) -> u32 {
    return bits_of(differing == vec4<u32>());
}

fn keys_of_rows(row: vec4<u32>, tile: u32) -> Keys {
    let first = params.rows_base + (row - params.first_history) * params.words;
    var query = tile * params.words * GROUP4;
    var d = Differing();
    for (var w = 0u; w < params.words; w++) {
        let mask = select(0xffffffffu, params.last_mask, w + 1u == params.words);
        let key = vec4<u32>(mask) & vec4<u32>(
            rows_at(first.x + w), rows_at(first.y + w), rows_at(first.z + w), rows_at(first.w + w));
        let a = queries[query];
        d.a0 += differing_bits(key.x, a); d.a1 += differing_bits(key.y, a);
        d.a2 += differing_bits(key.z, a); d.a3 += differing_bits(key.w, a);
        if GROUP4 > 1u {
            let b = queries[query + 1u];
            d.b0 += differing_bits(key.x, b); d.b1 += differing_bits(key.y, b);
            d.b2 += differing_bits(key.z, b); d.b3 += differing_bits(key.w, b);
        }
        query += GROUP4;
    }
    var s = Scores();
    s.a0 = score_of(d.a0); s.a1 = score_of(d.a1); s.a2 = score_of(d.a2); s.a3 = score_of(d.a3);
    s.b0 = score_of(d.b0); s.b1 = score_of(d.b1); s.b2 = score_of(d.b2); s.b3 = score_of(d.b3);
    var keys = keys_of(s);
    if MATCH == 1u {
        keys.allowed = equal(d.a0) | (equal(d.a1) << 4u) | (equal(d.a2) << 8u) | (equal(d.a3) << 12u)
            | (equal(d.b0) << 16u) | (equal(d.b1) << 20u) | (equal(d.b2) << 24u) | (equal(d.b3) << 28u);
    }
    return keys;
}
