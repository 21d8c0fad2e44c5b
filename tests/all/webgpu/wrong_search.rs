//! Shaders of search that are wrong on purpose.

use longseq::{SearchScore, Wgpu};
use longseq_check::decoupled::DecoupledCase;
use longseq_check::search::{Compared, SearchCase, adds_up_a_wide_row};

use super::wrong_shaders::{Twin, twin, twin_that};

/// More than a piece of behaviours, and more than a tile of candidates.
fn cosine() -> SearchCase {
    SearchCase { histories: vec![3000, 5], targets: vec![13, 2], width: 6, ..Default::default() }
}

/// Dot products with a bias.
fn dot() -> SearchCase {
    SearchCase { score: SearchScore::Dot { scale: 0.3 }, bias: true, ..cosine() }
}

/// More kept than workgroup memory holds.
fn many() -> SearchCase {
    SearchCase { histories: vec![10_000], targets: vec![2], top_k: 1100, width: 2, ..cosine() }
}

pub(super) fn twins() -> Vec<Twin> {
    [rows(), words(), lists()].into_iter().flatten().collect()
}

fn rows() -> Vec<Twin> {
    let (cosine, dot) = (cosine(), dot());
    let int8 = SearchCase { stored: Compared::Int8, ..dot.clone() };
    let codes = SearchCase { stored: Compared::Codes, ..cosine.clone() };
    let wide = SearchCase { histories: vec![9], targets: vec![6], width: 9000, top_k: 4, ..dot.clone() };
    let wide_cosine = SearchCase { score: SearchScore::Cosine, bias: false, ..wide.clone() };
    vec![
        // A neighbour's product; the factors of another vec4 of candidates; a row's length left out.
        twin(&dot, "search/rows", "s.b2 += key2 * b;", "s.b2 += key1 * b;"),
        twin(&cosine, "search/rows", "let fb = factors_at(matrix + 1u);", "let fb = factors_at(matrix);"),
        twin(&cosine, "search/rows", "s.a1 = fa * (factor.y * s.a1);", "s.a1 = fa * s.a1;"),
        // Rows of zeros kept; the bias of another row; offsets left out.
        twin(
            &codes,
            "search/rows",
            "keys.allowed = bits_of_behaviours(",
            "keys.allowed |= bits_of_behaviours(",
        ),
        twin(&dot, "search/rows", "s.a3 = added(s.a3, l.w);", "s.a3 = added(s.a3, l.z);"),
        twin(&int8, "search/rows", "* codes + offset[params.offset_base + l];", "* codes;"),
        // Numbers left out of the length; rows of zeros that have one.
        twin(&cosine, "search/lengths", "(squares.z + squares.w)", "squares.z"),
        twin(&codes, "search/lengths", "if most == 0u {", "if most == 1u {"),
        // Of a wide row: the first block left out; of a length, all but the last.
        twin(&wide, "search/rows", "s.a0 += more.a0;", "s.a0 = more.a0;"),
        twin(&wide_cosine, "search/lengths", "squares += part;", "squares = part;"),
        // The scale left out; the rows of another candidate.
        twin(&dot, "search/pack_rows", "vec2<f32>(1.0, params.factor)", "vec2<f32>(1.0, 1.0)"),
        twin(&int8, "search/pack_rows", "rows_of_tile.y + r;", "rows_of_tile.y + (r ^ 1u);"),
    ]
}

fn words() -> Vec<Twin> {
    let hamming = SearchCase { score: SearchScore::Hamming, width: 70, ..cosine() };
    let keys = SearchCase { score: SearchScore::Match, ..cosine() };
    vec![
        // Bits past the width counted, of behaviours and of candidates; keys that differ kept; the oldest kept.
        twin(
            &hamming,
            "search/words",
            "let mask = select(0xffffffffu, params.last_mask,",
            "let mask = select(0xffffffffu, 0xffffffffu,",
        ),
        twin(&keys, "search/words", "| (equal(d.a2) << 8u)", "| 0x0f00u"),
        twin(&keys, "search/words", "row = span.x + (span.y - 1u) - row;", ""),
        twin(&hamming, "search/pack_words", "params.last_mask, w + 1u", "0xffffffffu, w + 1u"),
        // The bits of another row; a projection of another sign.
        twin(
            &hamming,
            "search/pack_signs",
            "packed_words[2u * (i + 4u) + word]",
            "packed_words[2u * i + word]",
        ),
        twin(&hamming, "search/pack_signs", "if low[i] > 0.0", "if low[i] < 0.0"),
    ]
}

fn lists() -> Vec<Twin> {
    let (many, cosine) = (many(), cosine());
    let keys = SearchCase { score: SearchScore::Match, ..cosine.clone() };
    let tables =
        DecoupledCase { histories: vec![10_000], targets: vec![2], top_k: 1100, ..Default::default() };
    vec![
        // Rows of tables, which are gathered: the first for all; new entries that replace the kept ones.
        twin(
            &tables,
            "decoupled/search",
            "return table0_vec4(place, left);",
            "return table0_vec4(0u, left);",
        ),
        twin(&tables, "decoupled/search", "next_kept++;", "next_kept += 2u;"),
        // New entries that replace the kept ones; a merge that begins at the wrong entry; what the other buffer holds; the
        // threshold of another entry.
        twin(&many, "search/rows", "next_kept++;", "next_kept += 2u;"),
        twin(&many, "search/rows", "low = middle + 1u;", "low = middle + 2u;"),
        twin(
            &many,
            "search/rows",
            "        } else if kept_in_spare == 1u {",
            "        } else if kept_in_spare == 0u {",
        ),
        twin(
            &many,
            "search/rows",
            "list_threshold[0] = kept_entry(top_k - 1u);",
            "list_threshold[0] = kept_entry(0u);",
        ),
        // Places that two lists share; empty places that nobody writes; the rows of a search from the end.
        twin(&cosine, "selection/combine", "rank += better_entries(slot, list, entry);", "rank += 0u;"),
        twin(&keys, "selection/combine", "if place >= total {", "if place > total {"),
        twin(&keys, "selection/combine", "params.reversed == 1u", "false"),
    ]
}

/// Sums of wide rows that are one chain of each of four, which random numbers do not show.
#[test]
fn chains_of_wide_rows_are_caught() {
    let passes = |gpu: &Wgpu| adds_up_a_wide_row(gpu, 100_000, 1);
    let [right, wrong] = ["const BLOCK_COLUMNS: u32 = 4096u;", "const BLOCK_COLUMNS: u32 = 1048576u;"];
    Twin::assert_caught([&twin_that(passes, "search/rows", right, wrong)]);
}

#[test]
fn wrong_search_is_caught() {
    Twin::assert_caught(&twins());
}
