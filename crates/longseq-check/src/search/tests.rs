//! Search on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::hostile::*;
use super::orders::*;
use super::wide::*;
use super::{Compared, SearchCase};
use crate::case::{Rules, assert_check, check};
use crate::compare::{Bound, compare, compare_exact};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("search":
    matches_eta,
    matches_muse,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_a_bias,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_when_every_score_ties,
    matches_reference_on_a_long_history,
    finds_the_best_in_any_order,
    finds_the_newest_in_any_order,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    sorts_nan_last,
    takes_rows_near_the_limits,
    takes_int8_rows_with_any_scale,
    adds_up_wide_rows_by_blocks,
    keeps_no_rows_of_zeros,
    keeps_the_newest_of_a_key,
    ignores_bits_past_the_width,
    packs_exact_zeros_to_zero,
    names_limits_before_it_allocates,
    takes_batches_of_nobody,
    refuses_what_a_score_does_not_take,
    matches_reference_on_the_small_named_cases,
);

/// Every score; of rows in every storage.
fn scores() -> Vec<(SearchScore, Compared)> {
    let dot = SearchScore::Dot { scale: 0.3 };
    let mut scores: Vec<_> = Compared::ALL.into_iter().map(|stored| (dot, stored)).collect();
    scores.extend(Compared::WITH_COSINES.into_iter().map(|stored| (SearchScore::Cosine, stored)));
    let floats = [Compared::F32, Compared::F16, Compared::Bf16];
    scores.extend(floats.into_iter().map(|stored| (SearchScore::Hamming, stored)));
    scores.push((SearchScore::Match, Compared::F32));
    scores
}

/// ETA's hash and its nearest behaviours, by FuxiCTR.
fn matches_eta<B: Backend>(backend: &B, _: Rules) {
    let golden = Golden::load("eta_b32_k10");
    let (bits, k, missing) = (golden.number("bits"), golden.number("k"), golden.number("missing"));
    let signs = Signs::new(golden.shape("history")[1], bits);
    let run = || -> Result<(Vec<f32>, Vec<u32>)> {
        let upload = |name: &str| backend.upload(&golden.f32(name));
        let (history, targets, rotations) = (upload("history")?, upload("targets")?, upload("rotations")?);
        let pack = |rows| backend.pack_signs(&signs, backend.view(rows), backend.view(&rotations));
        let (keys, queries) = (pack(&history)?, pack(&targets)?);
        let batch = backend
            .batch(&golden.jagged("offsets", "history"), &golden.jagged("target_offsets", "targets"))?;
        let inputs = SimilarityInputs::new(
            SearchRows::Signs(backend.view(&queries)),
            SearchRows::Signs(backend.view(&keys)),
        );
        let kept = backend.search(&Search::hamming(bits).with_top_k(k), &batch, inputs)?;
        Ok((backend.download(backend.view(&kept.scores))?, backend.download(backend.view(&kept.counts))?))
    };
    let (scores, counts) = run().expect("valid calls");
    let distances: Vec<f32> = scores
        .iter()
        .map(|&score| if score == f32::NEG_INFINITY { missing as f32 } else { bits as f32 - score })
        .collect();
    compare_exact("distances", &distances, &golden.f32("top_distances")).unwrap();
    assert!(counts.iter().any(|&count| count as usize == k));
}

/// MUSE's first stage: cosines of 8-bit rows, of which rows of zeros are never kept (`tests/golden/formulas.py`).
fn matches_muse<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("muse_k8");
    let codes = |name: &str| golden.i64(name).into_iter().map(|code| code as i8).collect::<Vec<_>>();
    let run = || -> Result<(Vec<u32>, Vec<f32>, Vec<u32>)> {
        let (targets, history) = (backend.upload(&codes("target_codes"))?, backend.upload(&codes("codes"))?);
        let batch = backend
            .batch(&golden.jagged("offsets", "codes"), &golden.jagged("target_offsets", "target_codes"))?;
        let rows = |codes| SearchRows::Codes(backend.view(codes));
        let op = Search::cosine(golden.shape("codes")[1]).with_top_k(golden.number("k"));
        let kept = backend.search(&op, &batch, SimilarityInputs::new(rows(&targets), rows(&history)))?;
        Ok((
            backend.download(backend.view(&kept.positions))?,
            backend.download(backend.view(&kept.scores))?,
            backend.download(backend.view(&kept.counts))?,
        ))
    };
    let (positions, scores, counts) = run().expect("valid calls");
    compare_exact("positions", &positions, &golden.u32("positions")).unwrap();
    compare_exact("counts", &counts, &golden.u32("counts")).unwrap();
    let expected = golden.f64("similarities");
    compare("similarities", &scores, &expected, &Bound::uniform(golden::PEER, false), rules).unwrap();
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    for (score, stored) in scores() {
        let histories = vec![0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
        let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
        let case = SearchCase { score, stored, histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
        let nobody = SearchCase { histories: vec![], targets: vec![], ..case };
        assert_check(&nobody, backend, rules);
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for width in [1, 2, 3, 15, 31, 32, 33, 63, 64, 65, 128, 130, 256, 1000, 1025] {
        for (score, stored) in scores() {
            let (histories, targets) = (vec![70, 3], vec![4, 18]);
            let case = SearchCase { score, stored, width, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_a_bias<B: Backend>(backend: &B, rules: Rules) {
    for scale in [1.0, -0.125, 0.0] {
        for stored in Compared::ALL {
            let score = SearchScore::Dot { scale };
            let (histories, targets) = (vec![100, 0, 9], vec![5, 2, 20]);
            let case = SearchCase { score, stored, histories, targets, bias: true, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(1e-15), Data::Scaled(1e15)] {
        for score in [SearchScore::Dot { scale: 0.5 }, SearchScore::Cosine, SearchScore::Hamming] {
            for stored in [Compared::F32, Compared::F16, Compared::Bf16] {
                if stored == Compared::F16 && data == Data::Scaled(1e15) {
                    continue;
                }
                let (histories, targets) = (vec![80, 9], vec![5, 20]);
                assert_check(
                    &SearchCase { score, stored, data, histories, targets, ..Default::default() },
                    backend,
                    rules,
                );
            }
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 31, 64, 65, 1000, Search::MAX_TOP_K] {
        for score in [SearchScore::Cosine, SearchScore::Hamming, SearchScore::Match] {
            let (histories, targets) = (vec![300, 40, 4500], vec![3, 2, 1]);
            let stored = if score == SearchScore::Cosine { Compared::Codes } else { Compared::F32 };
            let case =
                SearchCase { score, stored, top_k, histories, targets, width: 8, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_when_every_score_ties<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Equal, Data::Zeros] {
        for score in [SearchScore::Dot { scale: 1.0 }, SearchScore::Cosine] {
            let (histories, targets) = (vec![300, 7], vec![3, 2]);
            let case = SearchCase { score, data, histories, targets, zeros: false, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    for (score, stored) in [
        (SearchScore::Cosine, Compared::Codes),
        (SearchScore::Dot { scale: 1.0 }, Compared::F32),
        (SearchScore::Hamming, Compared::F32),
        (SearchScore::Match, Compared::F32),
    ] {
        let (histories, targets) = (vec![20, long, 0, 5], vec![2, 2, 1, 3]);
        let case = SearchCase { score, stored, top_k: 50, histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        (score, stored) in prop::sample::select(scores()),
        requests in prop::collection::vec((0usize..150, 0usize..20), 0..6),
        tail in 0usize..3,
        width in 1usize..80,
        top_k in 1usize..60,
        (bias, zeros, repeated) in any::<(bool, bool, bool)>(),
    ) -> SearchCase {
        let (histories, targets) = requests.into_iter().unzip();
        let bias = bias && matches!(score, SearchScore::Dot { .. });
        let data = Data::Normal;
        SearchCase {
            seed, score, stored, data, histories, targets, tail, width, top_k, bias, zeros, repeated,
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(96), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    for (score, stored) in scores() {
        let (histories, targets) = (vec![40, 9], vec![3, 20]);
        let case = SearchCase { score, stored, tail: 5, histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("search", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let cosine = SearchCase {
        stored: Compared::Codes,
        histories: vec![60, 40],
        targets: vec![3, 4],
        ..Default::default()
    };
    let dot = SearchCase { score: SearchScore::Dot { scale: 0.3 }, bias: true, ..cosine.clone() };
    let floats = SearchCase { stored: Compared::F32, ..dot.clone() };
    let scaled = SearchCase { stored: Compared::Int8, ..dot.clone() };
    let hamming =
        SearchCase { score: SearchScore::Hamming, stored: Compared::F32, width: 40, ..cosine.clone() };
    let keys = SearchCase { score: SearchScore::Match, ..cosine.clone() };
    let many = SearchCase { histories: vec![700], targets: vec![2], top_k: 600, ..cosine.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &cosine),
        (Fault::HistoryShifted, &keys),
        (Fault::TiesReversed, &cosine),
        (Fault::TiesReversed, &keys),
        (Fault::TiesReversed, &hamming),
        (Fault::KeepsOneLess, &hamming),
        (Fault::KeepsAtMost(512), &many),
        (Fault::ScaleDropped, &dot),
        (Fault::BiasIgnored, &floats),
        (Fault::BiasIgnored, &scaled),
        (Fault::OffsetsIgnored, &scaled),
        (Fault::ZerosKept, &cosine),
        (Fault::QueryNotNormalised, &cosine),
        (Fault::PastBitsCounted, &hamming),
        (Fault::BitsReversed, &hamming),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
}
