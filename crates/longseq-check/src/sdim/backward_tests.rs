//! SDIM's gradients on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::{SdimBackwardCase, SdimCase};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("sdim_backward":
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_without_normalisation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_candidates,
    matches_reference_on_random_batches,
    keeps_nan_to_its_buckets,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
);

/// Both with given signatures and with rotations.
fn check_both<B: Backend>(forward: SdimCase, backend: &B, rules: Rules) {
    for hashed in [false, true] {
        let case = SdimBackwardCase { forward: forward.clone(), hashed, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn shape(histories: &[usize], targets: &[usize]) -> SdimCase {
    SdimCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["sdim_g16_t3_l2", "sdim_g16_t3_sum", "sdim_g2_t4_l2", "sdim_g5_t1_l2", "sdim_g8_t8_l2"] {
        let golden = Golden::load(name);
        let op = Sdim::new(golden.shape("history")[1])
            .with_groups(golden.number("groups"), golden.number("tau"))
            .with_normalise(golden.flag("l2"));
        let (histories, targets) =
            (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
        let batch = backend.batch(&histories, &targets).expect("a batch");
        let words = |name| -> Vec<u16> { golden.u32(name).into_iter().map(|id| id as u16).collect() };
        let [of_history, of_targets] = ["signature_history", "signature_targets"]
            .map(|name| backend.upload(&words(name)).expect("an upload"));
        let [history, grad_out] =
            ["history", "grad_out"].map(|name| backend.upload(&golden.f32(name)).expect("an upload"));
        let inputs = SdimAttendInputs::new(
            backend.view(&history),
            Hash::Signatures16(backend.view(&of_history)),
            Hash::Signatures16(backend.view(&of_targets)),
        );
        let mut grads = backend.zeros::<f32>(golden.f32("history").len()).expect("zeros");
        let (from, to) = (backend.view(&grad_out), backend.view_mut(&mut grads));
        backend.sdim_attend_backward_into(&op, &batch, inputs, from, to).expect("a valid call");
        let expected = golden.f64("grad_history");
        let got = backend.download(backend.view(&grads)).expect("a download");
        compare("grad_history", &got, &expected, &golden::bound(&expected), rules).unwrap();
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for forward in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        check_both(forward, backend, rules);
    }
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (width, groups, bits) in [
        (1, 1, 1),
        (3, 2, 2),
        (33, 5, 4),
        (64, 16, 3),
        (20, 3, 8),
        (7, 1, 9),
        (16, 2, 12),
        (8, 1, 16),
        (256, 2, 3),
    ] {
        check_both(SdimCase { width, groups, bits, ..shape(&[70, 3], &[4, 18]) }, backend, rules);
    }
}

fn matches_reference_without_normalisation<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { normalise: false, ..shape(&[70, 0, 300], &[4, 2, 18]) }, backend, rules);
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, narrow) in [(64, true), (64, false), (5, true)] {
            let forward = SdimCase { dtype, width, ..shape(&[300, 0, 17], &[5, 2, 20]) };
            assert_check(&SdimBackwardCase { forward, narrow, ..Default::default() }, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(1e18)] {
        let forward = SdimCase { data, ..shape(&[90, 2], &[3, 4]) };
        assert_check(&SdimBackwardCase { forward, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let longest = if rules.slow { 20_000 } else { 100_000 };
    check_both(SdimCase { width: 8, ..shape(&[20, longest, 0, 5], &[2, 2, 1, 3]) }, backend, rules);
}

fn matches_reference_on_many_candidates<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { width: 20, ..shape(&[200, 10], &[5000, 1]) }, backend, rules);
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        width in 1usize..70,
        groups in 1usize..10,
        bits in 1usize..11,
        (normalise, narrow, hashed) in any::<(bool, bool, bool)>(),
    ) -> SdimBackwardCase {
        let (histories, targets) = requests.into_iter().unzip();
        let data = Data::Normal;
        let forward = SdimCase { seed, dtype, data, histories, targets, tail, width, groups, bits, normalise };
        SdimBackwardCase { forward, narrow, hashed, nan: None }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_buckets<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for normalise in [true, false] {
        let forward = SdimCase { normalise, ..shape(&[90, 20], &[3, 4]) };
        assert_check(&SdimBackwardCase { forward, nan: Some(4), ..Default::default() }, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { tail: 5, ..shape(&[40, 9], &[3, 20]) }, backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = SdimBackwardCase { forward: shape(&[9, 20], &[3, 4]), ..Default::default() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.forward.clone() };
    let zeros = SdimBackwardCase { forward: zeros, ..plain.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::NewestPartial, &plain),
        (Fault::ProjectionDropped, &plain),
        (Fault::GroupForgotten, &plain),
        (Fault::FloorIgnored, &zeros),
    ] {
        assert_check(case, &Cpu::new(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("sdim_backward", backend, rules);
}
