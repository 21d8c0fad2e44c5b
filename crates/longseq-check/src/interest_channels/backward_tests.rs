//! Gradients of interest channels on every backend: independent results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::hostile::finds_positions_and_counts_outside;
use super::tests::{AMONG, FORMS, any_case, golden_op, shape};
use super::{ChannelsBackwardCase, ChannelsCase};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("interest_channels_backward":
    matches_independent_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_few_and_many_channels,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_axes_near_each_other,
    matches_reference_with_zero_channels,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    writes_what_is_asked_for,
    ignores_rows_that_belong_to_nobody,
    finds_positions_and_counts_outside,
    matches_reference_on_the_small_named_cases,
);

/// All gradients of a forward pass, in `f32`.
fn gradients(forward: ChannelsCase) -> ChannelsBackwardCase {
    ChannelsBackwardCase { forward, ..Default::default() }
}

/// What an independent program computed in `f64`.
fn matches_independent_gradients<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("interest_channels");
    for form in FORMS {
        let (op, among) = (golden_op(&golden, form), form.trim_end_matches("_normalised"));
        let run = || -> Result<[Vec<f32>; 2]> {
            let upload = |name: &str| backend.upload(&golden.f32(name));
            let (axes, history, grad) = (upload("axes")?, upload("history")?, upload("grad_out")?);
            let positions = backend.upload(&golden.u32(&format!("positions_{among}")))?;
            let counts = backend.upload(&golden.u32(&format!("counts_{among}")))?;
            let scores = backend.zeros::<f32>(golden.u32(&format!("positions_{among}")).len())?;
            let (histories, targets) =
                (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "axes"));
            let batch = backend.batch(&histories, &targets)?;
            let kept = Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
            let mut of_axes = backend.zeros::<f32>(golden.f32("axes").len())?;
            let mut of_history = backend.zeros::<f32>(golden.f32("history").len())?;
            let grads = InterestChannelsGradients::new()
                .with_axes(backend.view_mut(&mut of_axes))
                .with_history(backend.view_mut(&mut of_history));
            let inputs = InterestChannelsInputs::new(backend.view(&axes), backend.view(&history));
            let saved = InterestChannelsSaved::new(kept);
            backend.interest_channels_backward_into(
                &op,
                &batch,
                inputs,
                saved,
                backend.view(&grad),
                grads,
            )?;
            Ok([backend.download(backend.view(&of_axes))?, backend.download(backend.view(&of_history))?])
        };
        for (got, name) in run().expect("a valid call").iter().zip(["axes", "history"]) {
            let expected = golden.f64(&format!("grad_{name}_{form}"));
            compare(name, got, &expected, &golden::bound(&expected), rules).unwrap();
        }
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 65, 255, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for case in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for width in [4, 5, 7, 16, 31, 33, 40, 64, 80, 128, 300] {
        for normalise in [false, true] {
            let case = ChannelsCase { width, normalise, ..shape(&[70, 3], &[4, 18]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_channels<B: Backend>(backend: &B, rules: Rules) {
    for channels in [1, 2, 3, 5, 16, 17, 33] {
        let case = shape(&[200, 0, 9], &[2, 2, 20]);
        let case = ChannelsCase { width: channels.max(20), channels, shared: 0.0, ..case };
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 17, 299, 1000] {
        for among in AMONG {
            let case = ChannelsCase { top_k, among, ..shape(&[300, 0, 9], &[3, 2, 20]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [5, 16, 64] {
            for narrow in [false, true] {
                let forward = ChannelsCase { dtype, width, ..shape(&[300, 0, 17], &[5, 2, 20]) };
                assert_check(&ChannelsBackwardCase { narrow, ..gradients(forward) }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        assert_check(&gradients(ChannelsCase { data, ..shape(&[90, 2], &[3, 4]) }), backend, rules);
    }
}

fn matches_reference_with_axes_near_each_other<B: Backend>(backend: &B, rules: Rules) {
    for shared in [5.0, 30.0] {
        assert_check(&gradients(ChannelsCase { shared, ..shape(&[90, 2], &[3, 4]) }), backend, rules);
    }
}

fn matches_reference_with_zero_channels<B: Backend>(backend: &B, rules: Rules) {
    for dependent in [0, 1, 3] {
        let case = ChannelsCase { dependent: Some(dependent), ..shape(&[90, 2, 0], &[3, 4, 2]) };
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 50_000 };
    for top_k in [100, 60_000] {
        let case = ChannelsCase { top_k, ..shape(&[20, long, 0, 5], &[2, 2, 1, 3]) };
        assert_check(&gradients(case), backend, rules);
    }
}

prop_compose! {
    fn any_backward_case()(
        forward in any_case(),
        asked in any::<[bool; 2]>(),
        narrow in any::<bool>(),
    ) -> ChannelsBackwardCase {
        ChannelsBackwardCase { forward, asked, narrow }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_backward_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    let case = ChannelsCase { nan: Some(4), ..shape(&[40, 9, 30], &[3, 20, 2]) };
    assert_check(&gradients(case), backend, rules);
}

fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for subset in 0..4 {
        let asked = std::array::from_fn(|i| subset >> i & 1 == 1);
        let case = ChannelsBackwardCase { asked, ..gradients(shape(&[30, 9], &[3, 17])) };
        assert_check(&case, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    assert_check(&gradients(ChannelsCase { tail: 5, ..shape(&[40, 9], &[3, 20]) }), backend, rules);
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("interest_channels_backward", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = gradients(shape(&[20, 30], &[3, 4]));
    let normalised = gradients(ChannelsCase { normalise: true, ..plain.forward.clone() });
    for case in [&plain, &normalised] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert_check(case, &Mutant(Fault::BiasIgnored), Rules::IEEE);
    }
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::TriangleForgotten, &plain),
        (Fault::SlopesForgotten, &plain),
        (Fault::OneReaderOnly, &plain),
        (Fault::MeanIsSum, &plain),
        (Fault::ProjectionDropped, &normalised),
    ] {
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed {case:?}");
    }
}
