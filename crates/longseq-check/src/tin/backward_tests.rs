//! Gradients of TIN on every backend: a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::golden::matches_differences_of_the_formula;
use super::hostile::*;
use super::tests::{any_case, shape};
use super::{TinBackwardCase, TinCase};
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::mutant::{Fault, Mutant};
use crate::registry::list_tests;

list_tests!("tin_backward":
    matches_differences_of_the_formula,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_given_positions,
    matches_reference_with_few_and_many_positions,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_with_large_scores,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    ignores_rows_that_belong_to_nobody,
    adds_up_by_position,
    weighs_equal_large_scores,
    finds_positions_outside_of_gradients,
    refuses_gradients_that_do_not_fit,
);

/// All gradients of a forward pass, in `f32`.
fn gradients(forward: TinCase) -> TinBackwardCase {
    TinBackwardCase { forward, ..Default::default() }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for width in [1, 2, 3, 7, 16, 31, 33, 64, 80, 128, 256] {
        for targets in [[4, 18], [1, 2]] {
            assert_check(&gradients(TinCase { width, ..shape(&[70, 3], &targets) }), backend, rules);
        }
    }
}

fn matches_reference_with_given_positions<B: Backend>(backend: &B, rules: Rules) {
    for given in [[true, false], [false, true], [true, true]] {
        for multiply_target in [false, true] {
            let case = TinCase { given, multiply_target, ..shape(&[40, 0, 300], &[2, 3, 20]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_positions<B: Backend>(backend: &B, rules: Rules) {
    for positions in [1, 2, 3, 300, 301, 302, 10_000] {
        let case = TinCase { positions, ..shape(&[300, 0, 9], &[3, 2, 20]) };
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [5, 16, 64] {
            for narrow in [false, true] {
                let forward = TinCase { dtype, width, ..shape(&[300, 0, 17], &[5, 2, 20]) };
                assert_check(&TinBackwardCase { narrow, ..gradients(forward) }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Tiny, Data::Equal, Data::Zeros] {
        assert_check(&gradients(TinCase { data, ..shape(&[90, 2], &[3, 4]) }), backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    let case = TinCase { positions: 431, ..shape(&[20, long, 0, 5], &[2, 2, 1, 3]) };
    assert_check(&gradients(case), backend, rules);
}

/// A log-sum-exp that is too coarse for weights.
fn matches_reference_with_large_scores<B: Backend>(backend: &B, rules: Rules) {
    for histories in [[1, 1], [2, 40]] {
        let case = TinCase { scale: Some(300.0), data: Data::Equal, ..shape(&histories, &[3, 4]) };
        assert_check(&gradients(case), backend, rules);
    }
}

prop_compose! {
    fn any_backward_case()(
        forward in any_case(),
        asked in any::<[bool; 3]>(),
        narrow in any::<bool>(),
    ) -> TinBackwardCase {
        TinBackwardCase { forward, asked, narrow }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_backward_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for subset in 0..8 {
        let asked = std::array::from_fn(|i| subset >> i & 1 == 1);
        let case = TinBackwardCase { asked, ..gradients(shape(&[30, 9], &[3, 17])) };
        assert_check(&case, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    for given in [[false; 2], [true; 2]] {
        let case = TinCase { tail: 5, given, ..shape(&[40, 9], &[3, 20]) };
        assert_check(&gradients(case), backend, rules);
    }
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = gradients(shape(&[20, 30], &[3, 4]));
    for fault in [
        Fault::HistoryShifted,
        Fault::ScaleDropped,
        Fault::MeanGradientDropped,
        Fault::TargetForgotten,
        Fault::OldestIsFirst,
        Fault::PositionsOfKeysAlone,
    ] {
        assert_check(&plain, &cpu(), Rules::IEEE);
        assert!(check(&plain, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
