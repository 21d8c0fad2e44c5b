//! TIN on every backend: a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::TinCase;
use super::golden::matches_the_formula;
use super::hostile::*;
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("tin":
    matches_the_formula,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_given_positions,
    matches_reference_with_few_and_many_positions,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    ignores_rows_that_belong_to_nobody,
    counts_positions_from_the_newest,
    finds_positions_outside,
    refuses_what_does_not_fit,
    matches_reference_on_the_small_named_cases,
);

pub(super) fn shape(histories: &[usize], targets: &[usize]) -> TinCase {
    TinCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for width in [1, 2, 3, 7, 16, 31, 33, 64, 80, 128, 256, 300] {
        for targets in [[4, 18], [1, 2]] {
            assert_check(&TinCase { width, ..shape(&[70, 3], &targets) }, backend, rules);
        }
    }
}

fn matches_reference_with_given_positions<B: Backend>(backend: &B, rules: Rules) {
    for given in [[true, false], [false, true], [true, true]] {
        for multiply_target in [false, true] {
            let case = TinCase { given, multiply_target, ..shape(&[40, 0, 300], &[2, 3, 20]) };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_positions<B: Backend>(backend: &B, rules: Rules) {
    for positions in [1, 2, 3, 300, 301, 302, 10_000] {
        assert_check(&TinCase { positions, ..shape(&[300, 0, 9], &[3, 2, 20]) }, backend, rules);
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [5, 16, 64] {
            assert_check(&TinCase { dtype, width, ..shape(&[300, 0, 17], &[5, 2, 20]) }, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        assert_check(&TinCase { data, ..shape(&[90, 2], &[3, 4]) }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    for targets in [[2, 2, 1, 3], [1, 17, 1, 3]] {
        assert_check(&TinCase { positions: 431, ..shape(&[20, long, 0, 5], &targets) }, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    pub(super) fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..150, 0usize..20), 0..6),
        tail in 0usize..3,
        width in 1usize..70,
        positions in 1usize..200,
        given in any::<[bool; 2]>(),
        scale in prop::option::of(-1.0f32..1.0),
        multiply_target in any::<bool>(),
    ) -> TinCase {
        let (histories, targets) = requests.into_iter().unzip();
        TinCase {
            seed, dtype, histories, targets, tail, width, positions, given, scale, multiply_target,
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
    if rules.nan {
        assert_check(&TinCase { nan: Some(4), ..shape(&[40, 9, 30], &[3, 20, 2]) }, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    for given in [[false; 2], [true; 2]] {
        assert_check(&TinCase { tail: 5, given, ..shape(&[40, 9], &[3, 20]) }, backend, rules);
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("tin", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = shape(&[60, 40], &[3, 4]);
    let given = TinCase { given: [true; 2], ..plain.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::TargetForgotten, &plain),
        (Fault::OldestIsFirst, &plain),
        (Fault::PositionsOfKeysAlone, &plain),
        (Fault::PositionsOfKeysAlone, &given),
        (Fault::LseInBits, &plain),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
}
