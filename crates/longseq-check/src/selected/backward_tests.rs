//! Gradients of attention over a selection on every backend: published results, a grid of cases, random cases, and faults that must be
//! caught.

use longseq::*;
use proptest::prelude::*;

use super::muse::matches_differences_of_muse;
use super::tests::{MIXES, any_case, everything, shape};
use super::{Choice, Mix, SelectedBackwardCase, SelectedCase};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;
use crate::target_attention::Bias;

list_tests!("selected_backward":
    matches_published_gradients,
    matches_differences_of_muse,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_with_a_gradient_of_lse,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_a_long_history,
    matches_reference_on_rows_that_many_read,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    takes_finite_masks_for_scores,
    keeps_nan_to_what_depends_on_it,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
);

/// All gradients of a forward pass, in `f32`.
fn gradients(forward: SelectedCase) -> SelectedBackwardCase {
    SelectedBackwardCase { forward, ..Default::default() }
}

/// Over a selection of everything they are target attention's, of which there are published ones.
fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["jagged_attention_d16_t4", "jagged_attention_d64_t9"] {
        let golden = Golden::load(name);
        let (histories, targets) =
            (golden.jagged("offsets", "key"), golden.jagged("target_offsets", "query"));
        let op = SelectedAttention::new(golden.shape("key")[1]).with_top_k(histories.max_length());
        let (positions, counts) = everything(&histories, &targets);
        let run = || -> Result<[Vec<f32>; 3]> {
            let upload = |name: &str| backend.upload(&golden.f32(name));
            let (queries, keys, values) = (upload("query")?, upload("key")?, upload("value")?);
            let grad_out = upload("grad_out")?;
            let similarities = backend.zeros::<f32>(positions.len())?;
            let (positions, counts) = (backend.upload(&positions)?, backend.upload(&counts)?);
            let kept =
                Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
            let inputs = SelectedAttentionInputs::new(backend.view(&queries), backend.view(&keys), kept)
                .with_values(backend.view(&values));
            let zeros = |name: &str| backend.zeros::<f32>(golden.f32(name).len());
            let (mut dq, mut dk, mut dv) = (zeros("query")?, zeros("key")?, zeros("value")?);
            let grads = SelectedAttentionGradients::new()
                .with_queries(backend.view_mut(&mut dq))
                .with_keys(backend.view_mut(&mut dk))
                .with_values(backend.view_mut(&mut dv));
            let (batch, grad) = (
                backend.batch(&histories, &targets)?,
                SelectedAttentionGradOut::new(backend.view(&grad_out)),
            );
            backend.selected_attention_backward_into(&op, &batch, inputs, grad, grads)?;
            let download = |buffer| backend.download(backend.view(buffer));
            Ok([download(&dq)?, download(&dk)?, download(&dv)?])
        };
        let got = run().expect("a valid call");
        for (name, got) in ["grad_query", "grad_key", "grad_value"].into_iter().zip(&got) {
            let expected = golden.f64(name);
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
    for (width, value_width) in [
        (1, Some(1)),
        (3, Some(5)),
        (7, None),
        (16, Some(64)),
        (33, Some(31)),
        (64, None),
        (80, Some(48)),
        (300, None),
    ] {
        let case = SelectedCase { width, value_width, ..shape(&[70, 3], &[4, 18]) };
        assert_check(&gradients(case), backend, rules);
    }
}

fn matches_reference_with_every_mix<B: Backend>(backend: &B, rules: Rules) {
    for mix in MIXES {
        for (heads, value_width) in [(1, Some(24)), (2, None)] {
            for some_removed in [false, true] {
                let case =
                    SelectedCase { mix, heads, value_width, some_removed, ..shape(&[40, 0, 9], &[3, 2, 17]) };
                assert_check(&gradients(case), backend, rules);
            }
        }
    }
}

fn matches_reference_with_grouped_heads<B: Backend>(backend: &B, rules: Rules) {
    for (heads, kv_heads) in [(2, 1), (2, 2), (4, 2), (6, 3), (8, 1)] {
        for value_width in [Some(12), None] {
            let case = SelectedCase { heads, kv_heads, value_width, ..shape(&[50, 0, 33], &[3, 1, 9]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_a_bias<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::Normal, Bias::Mask] {
        for mix in MIXES {
            let (heads, kv_heads) = (4, 2);
            let case = SelectedCase { bias, mix, heads, kv_heads, ..shape(&[7, 50, 1], &[2, 3, 1]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_a_gradient_of_lse<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::None, Bias::Mask] {
        let forward = SelectedCase { bias, heads: 2, ..shape(&[0, 40, 3], &[2, 3, 20]) };
        let case = SelectedBackwardCase { with_grad_lse: true, ..gradients(forward) };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, value_width) in [(64, None), (16, Some(16)), (5, Some(3))] {
            for narrow in [false, true] {
                let forward = SelectedCase {
                    dtype,
                    width,
                    value_width,
                    heads: 2,
                    top_k: 40,
                    ..shape(&[300, 0, 17], &[5, 2, 20])
                };
                assert_check(&SelectedBackwardCase { narrow, ..gradients(forward) }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        for mix in MIXES {
            let case = SelectedCase { data, mix, ..shape(&[90, 2], &[3, 4]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 16, 17, 64, 257, 1000] {
        for choice in [Choice::Some, Choice::Oldest, Choice::Same] {
            let shape = shape(&[300, 0, 1500], &[3, 1, 2]);
            let case = SelectedCase { top_k, choice, width: 8, value_width: None, ..shape };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 10_000 } else { 100_000 };
    let case = SelectedCase { top_k: 50, ..shape(&[20, long, 0, 5], &[2, 40, 1, 3]) };
    assert_check(&gradients(case), backend, rules);
}

/// Rows whose gradients come from hundreds and thousands of candidates.
fn matches_reference_on_rows_that_many_read<B: Backend>(backend: &B, rules: Rules) {
    for (length, candidates) in [(3, 700), (40, 3000)] {
        for choice in [Choice::Oldest, Choice::Same] {
            let case = SelectedCase { choice, top_k: 4, width: 8, ..shape(&[9, length], &[2, candidates]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

prop_compose! {
    fn any_backward_case()(
        forward in any_case(),
        asked in any::<[bool; 6]>(),
        (narrow, with_grad_lse) in any::<(bool, bool)>(),
    ) -> SelectedBackwardCase {
        SelectedBackwardCase { forward, asked, narrow, with_grad_lse, nan: None }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_backward_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Every subset of the gradients.
fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for value_width in [Some(16), None] {
        let forward = SelectedCase { value_width, bias: Bias::Normal, ..shape(&[30, 9], &[3, 17]) };
        for subset in 0..64 {
            let asked = std::array::from_fn(|i| subset >> i & 1 == 1);
            assert_check(&SelectedBackwardCase { asked, ..gradients(forward.clone()) }, backend, rules);
        }
    }
}

fn takes_finite_masks_for_scores<B: Backend>(backend: &B, rules: Rules) {
    for mask in [f32::MIN, f32::MAX] {
        let all = SelectedCase { bias: Bias::All(mask), mix: Mix::None, ..shape(&[9, 500], &[2, 3]) };
        assert_check(&gradients(all), backend, rules);
    }
    let masked = SelectedCase { bias: Bias::MaskWith(f32::MIN), mix: Mix::None, ..shape(&[9, 70], &[2, 3]) };
    assert_check(&gradients(masked), backend, rules);
}

fn keeps_nan_to_what_depends_on_it<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for mix in MIXES {
        let plain = SelectedCase { mix, heads: 2, ..shape(&[40, 9, 30], &[3, 20, 2]) };
        let query = SelectedCase { nan: Some(4), ..plain.clone() };
        assert_check(&gradients(query), backend, rules);
        assert_check(&SelectedBackwardCase { nan: Some(4), ..gradients(plain) }, backend, rules);
    }
}

fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for dtype in [DType::F32, DType::Bf16] {
        for value_width in [Some(24), None] {
            for mix in MIXES {
                let (removed, bias) = (Some(f32::NAN), Bias::Mask);
                let shape = shape(&[9, 140, 65], &[2, 3, 1]);
                let forward = SelectedCase { dtype, value_width, mix, removed, bias, heads: 2, ..shape };
                assert_check(&gradients(forward.clone()), backend, rules);
                // A candidate whose gradient is NaN still gives removed behaviours nothing.
                assert_check(&SelectedBackwardCase { nan: Some(3), ..gradients(forward) }, backend, rules);
            }
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let forward = SelectedCase { tail: 5, bias: Bias::Normal, heads: 2, ..shape(&[40, 9], &[3, 20]) };
    assert_check(&gradients(forward), backend, rules);
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("selected_backward", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = gradients(SelectedCase { value_width: None, ..shape(&[20, 30], &[3, 4]) });
    let grouped = gradients(SelectedCase {
        heads: 4,
        kv_heads: 2,
        bias: Bias::Normal,
        mix: Mix::All([0.5, 1.0, 1.0]),
        ..shape(&[20, 30], &[3, 4])
    });
    let with_lse = SelectedBackwardCase { with_grad_lse: true, ..grouped.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::MeanGradientDropped, &plain),
        (Fault::AliasedValuesForgotten, &plain),
        (Fault::BiasIgnored, &grouped),
        (Fault::SimilaritiesIgnored, &grouped),
        (Fault::ProductDropped, &grouped),
        (Fault::OneReaderOnly, &grouped),
        (Fault::LseGradientIgnored, &with_lse),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
