//! Attention over a selection and histograms of similarities on every backend: a grid of cases, random cases, and faults that must be
//! caught.

use longseq::*;
use proptest::prelude::*;

use super::hostile::*;
use super::muse::matches_muse;
use super::two_stages::{matches_sim, matches_twin};
use super::{Choice, HistogramCase, Mix, SelectedCase};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;
use crate::search::{Compared, NewestCase, SearchCase};
use crate::target_attention::Bias;

list_tests!("selected":
    matches_published_attention,
    matches_muse,
    matches_twin,
    matches_sim,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    attends_to_what_a_search_kept,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    takes_finite_masks_for_scores,
    leaves_terms_out,
    weighs_values_near_the_limits,
    reads_views_at_any_offset,
    finds_positions_and_counts_outside,
    takes_batches_of_nobody,
    refuses_what_does_not_fit,
    counts_similarities,
    counts_edges_and_unusual_numbers,
    counts_random_similarities,
    counts_the_newest,
    counts_the_newest_of_random_batches,
    matches_reference_on_the_small_named_cases,
);

pub(super) const MIXES: [Mix; 7] = [
    Mix::None,
    Mix::Normal,
    Mix::All([0.0, 1.0, 0.0]),
    Mix::All([1.0, 1.0, 1.0]),
    Mix::All([-0.5, 0.0, 2.0]),
    Mix::All([0.0, 0.0, 1.5]),
    Mix::All([0.0; 3]),
];

pub(super) fn shape(histories: &[usize], targets: &[usize]) -> SelectedCase {
    SelectedCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

/// A selection of every behaviour, newest first: positions, of as many slots as the longest history has, and counts.
pub(super) fn everything(histories: &Jagged, targets: &Jagged) -> (Vec<u32>, Vec<u32>) {
    let top_k = histories.max_length();
    let (mut positions, mut counts) = (vec![EMPTY_SLOT; targets.rows() * top_k], vec![0; targets.rows()]);
    for (history, targets) in histories.ranges().zip(targets.ranges()) {
        for m in targets {
            counts[m] = history.len() as u32;
            let slots = positions[m * top_k..].iter_mut().take(history.len());
            slots.enumerate().for_each(|(slot, position)| *position = (history.len() - 1 - slot) as u32);
        }
    }
    (positions, counts)
}

/// Over a selection of everything it is target attention, of which there are published results.
fn matches_published_attention<B: Backend>(backend: &B, rules: Rules) {
    for name in ["jagged_attention_d16_t4", "jagged_attention_d64_t9"] {
        let golden = Golden::load(name);
        let (histories, targets) =
            (golden.jagged("offsets", "key"), golden.jagged("target_offsets", "query"));
        let top_k = histories.max_length();
        let op = SelectedAttention::new(golden.shape("key")[1]).with_top_k(top_k);
        let (positions, counts) = everything(&histories, &targets);
        let run = || -> Result<Vec<f32>> {
            let upload = |name: &str| backend.upload(&golden.f32(name));
            let (queries, keys, values) = (upload("query")?, upload("key")?, upload("value")?);
            let similarities = backend.zeros::<f32>(positions.len())?;
            let (positions, counts) = (backend.upload(&positions)?, backend.upload(&counts)?);
            let kept =
                Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
            let inputs = SelectedAttentionInputs::new(backend.view(&queries), backend.view(&keys), kept)
                .with_values(backend.view(&values));
            let out = backend.selected_attention(&op, &backend.batch(&histories, &targets)?, inputs)?;
            backend.download(backend.view(&out))
        };
        let expected = golden.f64("out");
        compare("out", &run().expect("a valid call"), &expected, &golden::bound(&expected), rules).unwrap();
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for (width, value_width) in [
        (1, Some(1)),
        (3, Some(5)),
        (7, None),
        (16, Some(64)),
        (33, Some(31)),
        (64, None),
        (80, Some(48)),
        (128, Some(16)),
        (300, None),
    ] {
        let case = SelectedCase { width, value_width, ..shape(&[70, 3], &[4, 18]) };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_with_every_mix<B: Backend>(backend: &B, rules: Rules) {
    for mix in MIXES {
        for (heads, value_width) in [(1, Some(24)), (2, None)] {
            for some_removed in [false, true] {
                let case =
                    SelectedCase { mix, heads, value_width, some_removed, ..shape(&[40, 0, 9], &[3, 2, 17]) };
                assert_check(&case, backend, rules);
            }
        }
    }
}

fn matches_reference_with_grouped_heads<B: Backend>(backend: &B, rules: Rules) {
    for (heads, kv_heads) in [(2, 1), (2, 2), (4, 2), (6, 3), (8, 1)] {
        for value_width in [Some(12), None] {
            let case = SelectedCase { heads, kv_heads, value_width, ..shape(&[50, 0, 33], &[3, 1, 9]) };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_a_bias<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::Normal, Bias::Mask] {
        for mix in MIXES {
            let (heads, kv_heads) = (4, 2);
            let case = SelectedCase { bias, mix, heads, kv_heads, ..shape(&[7, 50, 1], &[2, 3, 1]) };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, value_width) in [(64, None), (16, Some(16)), (5, Some(3))] {
            for mix in [Mix::None, Mix::Normal, Mix::All([0.0, 1.0, 0.0])] {
                let case = SelectedCase {
                    dtype,
                    width,
                    value_width,
                    mix,
                    heads: 2,
                    top_k: 40,
                    ..shape(&[300, 0, 17], &[5, 2, 20])
                };
                assert_check(&case, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        for mix in MIXES {
            assert_check(&SelectedCase { data, mix, ..shape(&[90, 2], &[3, 4]) }, backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 15, 16, 17, 64, 255, 256, 257, 1000, 4096] {
        for choice in [Choice::Some, Choice::Oldest, Choice::Same] {
            let case = SelectedCase {
                top_k,
                choice,
                width: 8,
                value_width: None,
                ..shape(&[300, 0, 4500], &[3, 1, 2])
            };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    let case = SelectedCase { top_k: 50, ..shape(&[20, long, 0, 5], &[2, 40, 1, 3]) };
    assert_check(&case, backend, rules);
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    pub(super) fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        (heads, kv_heads) in prop::sample::select(vec![(1, 1), (2, 1), (4, 2), (3, 3)]),
        width in 1usize..70,
        value_width in prop::option::of(1usize..70),
        scale in prop::option::of(-1.0f32..1.0),
        top_k in 1usize..80,
        choice in prop::sample::select(vec![Choice::Some, Choice::Oldest, Choice::Same]),
        mix in prop::sample::select(MIXES.to_vec()),
        bias in prop::sample::select(vec![Bias::None, Bias::Normal, Bias::Mask]),
        some_removed in any::<bool>(),
    ) -> SelectedCase {
        let (histories, targets) = requests.into_iter().unzip();
        SelectedCase {
            seed, dtype, histories, targets, tail, heads, kv_heads, width, value_width, scale, top_k, choice,
            mix, bias, some_removed, ..Default::default()
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(96), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for mix in MIXES {
        let case = SelectedCase { mix, nan: Some(4), heads: 2, ..shape(&[40, 9, 30], &[3, 20, 2]) };
        assert_check(&case, backend, rules);
    }
}

fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for dtype in [DType::F32, DType::Bf16] {
        for held in [f32::NAN, f32::INFINITY] {
            for value_width in [Some(24), None] {
                for mix in MIXES {
                    let (removed, bias) = (Some(held), Bias::Mask);
                    let shape = shape(&[9, 140, 65], &[2, 3, 1]);
                    let case = SelectedCase { dtype, value_width, mix, removed, bias, heads: 2, ..shape };
                    assert_check(&case, backend, rules);
                }
            }
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let case = SelectedCase { tail: 5, bias: Bias::Normal, heads: 2, ..shape(&[40, 9], &[3, 20]) };
    assert_check(&case, backend, rules);
}

fn takes_finite_masks_for_scores<B: Backend>(backend: &B, rules: Rules) {
    for mask in [f32::MIN, f32::MAX] {
        let all = SelectedCase { bias: Bias::All(mask), mix: Mix::None, ..shape(&[9, 500], &[2, 3]) };
        assert_check(&all, backend, rules);
    }
    let masked = SelectedCase { bias: Bias::MaskWith(f32::MIN), mix: Mix::None, ..shape(&[9, 70], &[2, 3]) };
    assert_check(&masked, backend, rules);
}

fn counts_similarities<B: Backend>(backend: &B, rules: Rules) {
    for steps in [1, 2, 10, 31, 64, 500, SimilarityHistogram::MAX_STEPS] {
        for (top_k, targets) in [(1, vec![3]), (50, vec![5, 0, 130]), (4096, vec![2, 1])] {
            assert_check(&HistogramCase { steps, top_k, targets, ..Default::default() }, backend, rules);
        }
    }
    assert_check(&HistogramCase { targets: vec![], ..Default::default() }, backend, rules);
    assert_check(&HistogramCase { targets: vec![7, 2], tail: 5, ..Default::default() }, backend, rules);
}

fn counts_edges_and_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for steps in [1, 3, 10, 100] {
        for unusual in [false, rules.nan] {
            let case = HistogramCase { steps, unusual, edges: true, top_k: 300, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

prop_compose! {
    fn any_histogram()(
        seed in any::<u64>(),
        targets in prop::collection::vec(0usize..40, 0..6),
        tail in 0usize..3,
        steps in 1usize..200,
        top_k in 1usize..80,
        edges in any::<bool>(),
    ) -> HistogramCase {
        HistogramCase { seed, targets, tail, steps, top_k, edges, unusual: false }
    }
}

fn counts_random_similarities<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_histogram())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Every score that is a similarity, in every storage.
fn similarities() -> Vec<(SearchScore, Compared)> {
    let dot = SearchScore::Dot { scale: 0.05 };
    let dots = Compared::ALL.into_iter().map(|stored| (dot, stored));
    dots.chain(Compared::WITH_COSINES.into_iter().map(|stored| (SearchScore::Cosine, stored))).collect()
}

fn counts_the_newest<B: Backend>(backend: &B, rules: Rules) {
    for (score, stored) in similarities() {
        for (top_k, steps, width) in [(1, 1, 3), (50, 10, 16), (200, 40, 33)] {
            let histories = vec![0, 1, 49, 50, 51, 300, 0];
            let targets = vec![2, 1, 0, 5, 16, 70, 1];
            let bias = score != SearchScore::Cosine;
            let tail = 2;
            let search = SearchCase {
                score,
                stored,
                top_k,
                width,
                histories,
                targets,
                bias,
                tail,
                ..Default::default()
            };
            assert_check(&NewestCase { search, steps }, backend, rules);
        }
    }
}

prop_compose! {
    fn any_newest()(
        seed in any::<u64>(),
        (score, stored) in prop::sample::select(similarities()),
        requests in prop::collection::vec((0usize..150, 0usize..20), 0..6),
        tail in 0usize..3,
        width in 1usize..80,
        top_k in 1usize..60,
        steps in 1usize..100,
        (bias, zeros, repeated) in any::<(bool, bool, bool)>(),
    ) -> NewestCase {
        let (histories, targets) = requests.into_iter().unzip();
        let (bias, data) = (bias && score != SearchScore::Cosine, Data::Normal);
        let search = SearchCase {
            seed, score, stored, data, histories, targets, tail, width, top_k, bias, zeros, repeated,
        };
        NewestCase { search, steps }
    }
}

fn counts_the_newest_of_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_newest())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("selected", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = shape(&[60, 40], &[3, 4]);
    let grouped = SelectedCase { heads: 4, kv_heads: 2, bias: Bias::Normal, ..plain.clone() };
    let product = SelectedCase { mix: Mix::All([0.5, 0.0, 1.0]), ..plain.clone() };
    let short = SelectedCase { histories: vec![5, 4], mix: Mix::None, ..plain.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::BiasIgnored, &grouped),
        (Fault::SimilaritiesIgnored, &plain),
        (Fault::SimilaritiesIgnored, &product),
        (Fault::ProductDropped, &product),
        (Fault::EmptySlotsCount, &short),
        (Fault::LseInBits, &plain),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
    let counted = HistogramCase { edges: true, ..Default::default() };
    for fault in [Fault::BinsRoundedDown, Fault::EmptySlotsCount] {
        assert_check(&counted, &cpu(), Rules::IEEE);
        assert!(check(&counted, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    for fault in [Fault::OldestCount, Fault::HistoryShifted] {
        let (histories, targets) = (vec![60, 40], vec![3, 4]);
        let search = SearchCase { histories, targets, ..Default::default() };
        let case = NewestCase { search, ..Default::default() };
        assert_check(&case, &cpu(), Rules::IEEE);
        assert!(check(&case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
