//! Interest channels on every backend: independent results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::ChannelsCase;
use super::hostile::*;
use super::orders::*;
use crate::case::{Rules, assert_check, check};
use crate::compare::{compare, compare_exact};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("interest_channels":
    matches_independent_results,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_few_and_many_channels,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_axes_of_any_length,
    matches_reference_with_axes_near_each_other,
    matches_reference_with_zero_channels,
    matches_reference_on_a_long_history,
    keeps_the_best_in_any_order,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    keeps_nan_of_a_behaviour_to_its_user,
    ignores_rows_that_belong_to_nobody,
    names_the_candidate_whose_axes_depend_on_each_other,
    takes_the_first_of_equal_channels,
    refuses_what_does_not_fit,
    takes_parameters_of_any_size_for_nobody,
    matches_reference_on_the_small_named_cases,
);

pub(super) const AMONG: [KeptAmong; 2] = [KeptAmong::Routed, KeptAmong::All];

pub(super) fn shape(histories: &[usize], targets: &[usize]) -> ChannelsCase {
    ChannelsCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

/// The operation of the golden file in a form.
pub(super) fn golden_op(golden: &Golden, form: &str) -> InterestChannels {
    let among = if form.starts_with("routed") { KeptAmong::Routed } else { KeptAmong::All };
    InterestChannels::new(golden.shape("history")[1])
        .with_channels(golden.number("channels"))
        .with_top_k(golden.number("top_k"))
        .with_among(among)
        .with_normalise(form.ends_with("normalised"))
}

/// The forms of the golden file.
pub(super) const FORMS: [&str; 4] = ["routed", "routed_normalised", "all", "all_normalised"];

/// What an independent program computed in `f64`; no two scores that decide are near each other there.
fn matches_independent_results<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("interest_channels");
    for form in FORMS {
        let op = golden_op(&golden, form);
        let run = || -> Result<(Vec<f32>, Vec<u32>, Vec<u32>)> {
            let (axes, history) = (golden.f32("axes"), golden.f32("history"));
            let (axes, history) = (backend.upload(&axes)?, backend.upload(&history)?);
            let (histories, targets) =
                (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "axes"));
            let batch = backend.batch(&histories, &targets)?;
            let slots = targets.rows() * op.channels * op.top_k;
            let mut out = backend.zeros::<f32>(targets.rows() * op.channels * op.width)?;
            let (mut positions, mut scores) = (backend.zeros::<u32>(slots)?, backend.zeros::<f32>(slots)?);
            let mut counts = backend.zeros::<u32>(targets.rows() * op.channels)?;
            let kept = SelectionMut::new(
                backend.view_mut(&mut positions),
                backend.view_mut(&mut scores),
                backend.view_mut(&mut counts),
            );
            let inputs = InterestChannelsInputs::new(backend.view(&axes), backend.view(&history));
            let outputs = InterestChannelsOutputs::new(backend.view_mut(&mut out)).with_kept(kept);
            backend.interest_channels_into(&op, &batch, inputs, outputs)?;
            let out = backend.download(backend.view(&out))?;
            let positions = backend.download(backend.view(&positions))?;
            Ok((out, positions, backend.download(backend.view(&counts))?))
        };
        let (out, positions, counts) = run().expect("a valid call");
        let among = form.trim_end_matches("_normalised");
        compare_exact("positions", &positions, &golden.u32(&format!("positions_{among}"))).unwrap();
        compare_exact("counts", &counts, &golden.u32(&format!("counts_{among}"))).unwrap();
        let expected = golden.f64(&format!("out_{form}"));
        compare(form, &out, &expected, &golden::bound(&expected), rules).unwrap();
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for among in AMONG {
        for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
            assert_check(&ChannelsCase { among, ..case }, backend, rules);
        }
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for width in [4, 5, 7, 16, 31, 33, 40, 64, 80, 128, 300] {
        for normalise in [false, true] {
            for targets in [[4, 18], [1, 2]] {
                assert_check(&ChannelsCase { width, normalise, ..shape(&[70, 3], &targets) }, backend, rules);
            }
        }
    }
}

fn matches_reference_with_few_and_many_channels<B: Backend>(backend: &B, rules: Rules) {
    for channels in [1, 2, 3, 5, 15, 16, 17, 33, 70] {
        for among in AMONG {
            let case = shape(&[200, 0, 9], &[2, 2, 20]);
            let case = ChannelsCase { width: channels.max(20), channels, among, shared: 0.0, ..case };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 16, 17, 99, 100, 299, 300, 1000] {
        for among in AMONG {
            for normalise in [false, true] {
                let case = shape(&[300, 0, 9], &[3, 2, 20]);
                assert_check(&ChannelsCase { top_k, among, normalise, ..case }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [5, 16, 64] {
            for among in AMONG {
                let case = shape(&[300, 0, 17], &[5, 2, 20]);
                assert_check(&ChannelsCase { dtype, width, among, ..case }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        for among in AMONG {
            for normalise in [false, true] {
                let case = ChannelsCase { data, among, normalise, ..shape(&[90, 2], &[3, 4]) };
                assert_check(&case, backend, rules);
            }
        }
    }
}

/// The lengths of axes do not count.
fn matches_reference_with_axes_of_any_length<B: Backend>(backend: &B, rules: Rules) {
    for axes_scale in [1e-18, 1e-6, 1e6, 1e18] {
        assert_check(&ChannelsCase { axes_scale, ..shape(&[90, 2], &[3, 4]) }, backend, rules);
    }
}

fn matches_reference_with_axes_near_each_other<B: Backend>(backend: &B, rules: Rules) {
    for shared in [5.0, 30.0, 300.0] {
        assert_check(&ChannelsCase { shared, ..shape(&[90, 2], &[3, 4]) }, backend, rules);
    }
}

fn matches_reference_with_zero_channels<B: Backend>(backend: &B, rules: Rules) {
    for dependent in [0, 1, 3] {
        for among in AMONG {
            let case = shape(&[90, 2, 0], &[3, 4, 2]);
            let case = ChannelsCase { dependent: Some(dependent), among, ..case };
            assert_check(&case, backend, rules);
            assert_check(&ChannelsCase { data: Data::Zeros, ..case }, backend, rules);
        }
    }
    // No channel at all.
    let case = ChannelsCase { dependent: Some(0), channels: 1, ..shape(&[9], &[2]) };
    assert_check(&case, backend, rules);
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 50_000 };
    for (targets, among, top_k) in
        [([2, 2, 1, 3], AMONG[0], 100), ([1, 17, 1, 3], AMONG[1], 100), ([1, 2, 1, 3], AMONG[0], 60_000)]
    {
        let case = ChannelsCase { among, top_k, ..shape(&[20, long, 0, 5], &targets) };
        assert_check(&case, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    pub(super) fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..150, 0usize..20), 0..6),
        tail in 0usize..3,
        channels in 1usize..9,
        more in 0usize..60,
        top_k in 1usize..60,
        among in prop::sample::select(AMONG.to_vec()),
        normalise in any::<bool>(),
        shared in 0.0f32..2.0,
        dependent in prop::option::of(0usize..9),
    ) -> ChannelsCase {
        let (histories, targets) = requests.into_iter().unzip();
        // Axes in a space of as many dimensions may be near each other by chance.
        let width = channels + more + 3;
        ChannelsCase {
            seed, dtype, histories, targets, tail, width, channels, top_k, among, normalise, shared,
            dependent: dependent.filter(|&i| i < channels),
            ..Default::default()
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(96), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    for among in AMONG {
        let case = ChannelsCase { nan: Some(4), among, ..shape(&[40, 9, 30], &[3, 20, 2]) };
        assert_check(&case, backend, rules);
    }
}

fn keeps_nan_of_a_behaviour_to_its_user<B: Backend>(backend: &B, rules: Rules) {
    if rules.nan {
        for (among, top_k) in [(AMONG[0], 3), (AMONG[0], 40), (AMONG[1], 3), (AMONG[1], 40)] {
            for nan_behaviour in [Some(40), Some(47)] {
                let case = shape(&[40, 9, 30], &[3, 20, 2]);
                assert_check(&ChannelsCase { nan_behaviour, among, top_k, ..case }, backend, rules);
            }
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    for among in AMONG {
        assert_check(&ChannelsCase { tail: 5, among, ..shape(&[40, 9], &[3, 20]) }, backend, rules);
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("interest_channels", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = shape(&[60, 40], &[3, 4]);
    let all = ChannelsCase { among: KeptAmong::All, ..plain.clone() };
    let equal = ChannelsCase { data: Data::Equal, ..plain.clone() };
    let normalised = ChannelsCase { normalise: true, ..plain.clone() };
    // Enough are kept for behaviours of negative scores, which a channel of zeros would draw.
    let zeros = ChannelsCase { dependent: Some(1), top_k: 100, ..plain.clone() };
    // The plain computation that the faults are in is right without them: this one is of another stem.
    for case in [&plain, &all, &equal, &normalised, &zeros] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert_check(case, &Mutant(Fault::BiasIgnored), Rules::IEEE);
    }
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::AxesNotAtRightAngles, &plain),
        (Fault::AxesNotOfLengthOne, &plain),
        (Fault::SignsOfAxesFlipped, &plain),
        (Fault::MagnitudesRouted, &plain),
        (Fault::LastOfEqualChannels, &ChannelsCase { data: Data::Zeros, ..plain.clone() }),
        (Fault::RoutingForgotten, &plain),
        (Fault::RoutingForgotten, &all),
        (Fault::KeptAmongOthers, &plain),
        (Fault::KeptAmongOthers, &all),
        (Fault::KeepsOneLess, &plain),
        (Fault::TiesReversed, &equal),
        (Fault::DividedByKept, &plain),
        (Fault::MeanIsSum, &plain),
        (Fault::ScoresNotMultiplied, &plain),
        (Fault::ScoresNotMultiplied, &normalised),
        (Fault::ZeroChannelsRouted, &zeros),
    ] {
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
}
