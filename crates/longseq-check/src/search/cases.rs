//! Named searches.

use longseq::*;

use super::{Compared, SearchCase};
use crate::named::{AnyCase, Named};

/// A search of one user for 16 candidates.
fn search(
    name: &'static str,
    score: SearchScore,
    stored: Compared,
    (length, width): (usize, usize),
) -> Named {
    let (histories, targets) = (vec![length], vec![16]);
    let (zeros, repeated) = (false, false);
    let case = SearchCase {
        score,
        stored,
        histories,
        targets,
        width,
        top_k: 50,
        zeros,
        repeated,
        ..Default::default()
    };
    Named { name, operation: "search", case: AnyCase::Search(case) }
}

const DOT: SearchScore = SearchScore::Dot { scale: 1.0 };

/// What the benchmarks time.
pub(crate) fn benchmarks() -> Vec<Named> {
    let long = 100_000;
    vec![
        search("search_cosine_k50_l100000_a128_c16_int8", SearchScore::Cosine, Compared::Codes, (long, 128)),
        search("search_cosine_k50_l100000_a128_c16_f32", SearchScore::Cosine, Compared::F32, (long, 128)),
        search("search_dot_k50_l100000_a64_c16_bf16", DOT, Compared::Bf16, (long, 64)),
        search("search_hamming_k50_l100000_b256_c16", SearchScore::Hamming, Compared::F32, (long, 256)),
        search("search_match_k50_l100000_c16", SearchScore::Match, Compared::F32, (long, 1)),
    ]
}

/// The same kinds of work, small.
pub(crate) fn small() -> Vec<Named> {
    let short = 2000;
    vec![
        search("search_cosine_k50_l2000_a128_c16_int8", SearchScore::Cosine, Compared::Codes, (short, 128)),
        search("search_dot_k50_l2000_a64_c16_bf16", DOT, Compared::Bf16, (short, 64)),
        search("search_hamming_k50_l2000_b256_c16", SearchScore::Hamming, Compared::F32, (short, 256)),
        search("search_match_k50_l2000_c16", SearchScore::Match, Compared::F32, (short, 1)),
    ]
}
