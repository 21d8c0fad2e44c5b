//! Gradients of target attention on every backend: published results, a grid of cases, random cases, and faults that must be
//! caught.

use longseq::*;
use proptest::prelude::*;

use super::tests::HISTORY_LENGTH;
use super::{AttentionBackwardCase, AttentionCase, Bias, MergeBackwardCase, Place};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("target_attention_backward":
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_weighting,
    divides_by_the_length_of_each_history,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_with_a_gradient_of_lse,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users_and_candidates,
    matches_reference_on_random_batches,
    adds_up_many_candidates,
    writes_what_is_asked_for,
    takes_finite_masks_for_scores,
    adds_weights_of_large_scores_up_to_one,
    keeps_nan_to_its_users,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    splits_gradients_of_merges,
    matches_reference_on_the_small_named_cases,
);

const WEIGHTINGS: [Weighting; 4] =
    [Weighting::Softmax, Weighting::Relu, Weighting::silu(8.0), Weighting::Identity];

/// All gradients of a forward pass, in `f32`.
fn gradients(forward: AttentionCase) -> AttentionBackwardCase {
    AttentionBackwardCase { forward, ..Default::default() }
}

fn shape(histories: &[usize], targets: &[usize]) -> AttentionCase {
    AttentionCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["jagged_attention_d16_t4", "jagged_attention_d64_t9"] {
        let golden = Golden::load(name);
        let op = TargetAttention::new(golden.shape("key")[1]);
        let (histories, targets) =
            (golden.jagged("offsets", "key"), golden.jagged("target_offsets", "query"));
        let batch = backend.batch(&histories, &targets).expect("a batch");
        let upload = |name| backend.upload(&golden.f32(name)).expect("an upload");
        let [queries, keys, values, grad_out] = ["query", "key", "value", "grad_out"].map(upload);
        let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
            .with_values(backend.view(&values));
        let zeros = |length| backend.zeros::<f32>(length).expect("zeros");
        let (mut out, mut lse) = (zeros(queries_length(&golden)), zeros(targets.rows()));
        let outputs =
            TargetAttentionOutputs::new(backend.view_mut(&mut out)).with_lse(backend.view_mut(&mut lse));
        backend.target_attention_into(&op, &batch, inputs, outputs).expect("a valid call");
        let mut grads = ["query", "key", "value"].map(|name| zeros(golden.f32(name).len()));
        let saved = TargetAttentionSaved::new(backend.view(&out), backend.view(&lse));
        let [dq, dk, dv] = &mut grads;
        let views = TargetAttentionGradients::new()
            .with_queries(backend.view_mut(dq))
            .with_keys(backend.view_mut(dk))
            .with_values(backend.view_mut(dv));
        let grad_out = TargetAttentionGradOut::new(backend.view(&grad_out));
        backend
            .target_attention_backward_into(&op, &batch, inputs, saved, grad_out, views)
            .expect("a valid call");
        for (name, grad) in ["grad_query", "grad_key", "grad_value"].into_iter().zip(&grads) {
            let got: Vec<f32> = backend.download(backend.view(grad)).expect("a download");
            let expected = golden.f64(name);
            compare(name, &got, &expected, &golden::bound(&expected), rules).unwrap();
        }
    }
}

fn queries_length(golden: &Golden) -> usize {
    golden.f32("query").len()
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 7, 8, 0];
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
        (100, Some(100)),
        (128, Some(16)),
        (256, None),
    ] {
        for candidates in [[4, 18], [1, 2]] {
            let case = AttentionCase { width, value_width, ..shape(&[70, 3], &candidates) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_every_weighting<B: Backend>(backend: &B, rules: Rules) {
    for weighting in WEIGHTINGS {
        for value_width in [None, Some(24)] {
            let case = AttentionCase { weighting, value_width, ..shape(&[0, 40, 300], &[2, 3, 20]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

/// HSTU's divisor.
fn divides_by_the_length_of_each_history<B: Backend>(backend: &B, rules: Rules) {
    for (histories, targets) in [(&[0, 1, 40, 300][..], &[2, 1, 3, 20][..]), (&[9000, 7], &[2, 3])] {
        for bias in [Bias::None, Bias::Mask] {
            let forward = AttentionCase { weighting: HISTORY_LENGTH, bias, ..shape(histories, targets) };
            assert_check(&gradients(forward), backend, rules);
        }
    }
}

fn matches_reference_with_grouped_heads<B: Backend>(backend: &B, rules: Rules) {
    for (heads, kv_heads) in [(2, 1), (2, 2), (4, 2), (6, 3), (8, 1)] {
        for value_width in [Some(12), None] {
            let case = AttentionCase { heads, kv_heads, value_width, ..shape(&[50, 0, 33], &[3, 1, 9]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_with_a_bias<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::Normal, Bias::Mask] {
        for weighting in WEIGHTINGS {
            if (bias, weighting) == (Bias::Mask, Weighting::Identity) {
                continue; // -∞ is a weight there
            }
            let (heads, kv_heads) = (4, 2);
            let forward =
                AttentionCase { bias, weighting, heads, kv_heads, ..shape(&[7, 50, 1, 300], &[2, 3, 1, 4]) };
            assert_check(&gradients(forward), backend, rules);
        }
    }
}

fn matches_reference_with_a_gradient_of_lse<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::None, Bias::Mask] {
        let forward = AttentionCase { bias, heads: 2, ..shape(&[0, 40, 3], &[2, 3, 20]) };
        let case = AttentionBackwardCase { with_grad_lse: true, ..gradients(forward) };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, value_width) in [(64, None), (16, Some(16)), (5, Some(3))] {
            for narrow in [false, true] {
                let forward =
                    AttentionCase { dtype, width, value_width, ..shape(&[300, 0, 17], &[5, 2, 20]) };
                assert_check(&AttentionBackwardCase { narrow, ..gradients(forward) }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        for weighting in WEIGHTINGS {
            let case = AttentionCase { data, weighting, ..shape(&[90, 2], &[3, 4]) };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let longest = if rules.slow { 20_000 } else { 100_000 };
    for targets in [[2, 2, 1, 3], [1, 17, 1, 3]] {
        assert_check(&gradients(shape(&[20, longest, 0, 5], &targets)), backend, rules);
    }
}

fn matches_reference_on_many_users_and_candidates<B: Backend>(backend: &B, rules: Rules) {
    let histories: Vec<usize> = (0..1000).map(|user| 1000 / (user + 1)).collect();
    let targets: Vec<usize> = (0..1000).map(|user| user % 3).collect();
    let case = AttentionCase { width: 8, value_width: None, ..shape(&histories, &targets) };
    assert_check(&gradients(case), backend, rules);
    assert_check(&gradients(shape(&[10], &[3000])), backend, rules);
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        (heads, kv_heads) in prop::sample::select(vec![(1, 1), (2, 1), (4, 2), (3, 3)]),
        width in 1usize..70,
        value_width in prop::option::of(1usize..70),
        scale in prop::option::of(-1.0f32..1.0),
        weighting in prop::sample::select(WEIGHTINGS.to_vec()),
        bias in prop::sample::select(vec![Bias::None, Bias::Normal]),
        asked in any::<[bool; 4]>(),
        (narrow, with_grad_lse) in any::<(bool, bool)>(),
    ) -> AttentionBackwardCase {
        let (histories, targets) = requests.into_iter().unzip();
        let forward = AttentionCase {
            seed, dtype, histories, targets, tail, heads, kv_heads, width, value_width, scale, weighting, bias,
            ..Default::default()
        };
        AttentionBackwardCase { forward, asked, narrow, with_grad_lse, ..Default::default() }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Every subset of the gradients, each the same as when all are asked for.
/// Sums over candidates of equal numbers, which show a long chain of additions.
fn adds_up_many_candidates<B: Backend>(backend: &B, rules: Rules) {
    for case in many_candidates() {
        if case.forward.width <= 40 || !rules.slow {
            assert_check(&case, backend, rules);
        }
    }
}

/// 20,000 candidates of a user with one behaviour, from narrow rows to wide ones.
pub fn many_candidates() -> Vec<AttentionBackwardCase> {
    let cases = [8, 40, 100, 200].map(|width| {
        let (data, value_width) = (Data::Same(0.37), Some(width));
        let forward = AttentionCase { width, value_width, data, ..shape(&[1], &[20_000]) };
        // With softmax, scores of one behaviour have no gradient.
        [Weighting::Softmax, Weighting::Identity].map(|weighting| {
            let forward = AttentionCase { weighting, ..forward.clone() };
            AttentionBackwardCase { grad: Data::Same(0.1), ..gradients(forward) }
        })
    });
    cases.into_iter().flatten().collect()
}

fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for value_width in [Some(16), None] {
        let forward = AttentionCase { value_width, bias: Bias::Normal, ..shape(&[30, 9], &[3, 17]) };
        for subset in 0..16 {
            let asked = std::array::from_fn(|i| subset >> i & 1 == 1);
            assert_check(&AttentionBackwardCase { asked, ..gradients(forward.clone()) }, backend, rules);
        }
    }
}

/// Weights cannot come from `lse` alone where its rounding loses the number of behaviours.
fn takes_finite_masks_for_scores<B: Backend>(backend: &B, rules: Rules) {
    for mask in [f32::MIN, f32::MAX, -1e9, 3e5] {
        for (histories, candidates) in [([9, 5000], [2, 3]), ([40, 70], [1, 20])] {
            let forward = AttentionCase { bias: Bias::All(mask), heads: 2, ..shape(&histories, &candidates) };
            // What is left of the scores depends on rounding, unless the bias is all there is.
            let queries = if mask.abs() < 1e30 { Some(Data::Zeros) } else { None };
            let forward = AttentionCase { inputs: [queries, None, None], ..forward };
            assert_check(&gradients(forward), backend, rules);
        }
    }
    let masked = AttentionCase { bias: Bias::MaskWith(f32::MIN), ..shape(&[9, 70], &[2, 3]) };
    assert_check(&gradients(masked), backend, rules);
}

/// Where scores are large, rounding errors exceed 1; they must not be those of two computations of one score.
fn adds_weights_of_large_scores_up_to_one<B: Backend>(backend: &B, rules: Rules) {
    for (width, heads) in [(4, 1), (64, 1), (60, 2), (128, 4), (33, 1), (200, 1)] {
        for candidates in [[1, 1, 1], [2, 1, 4], [9, 40, 1]] {
            for (scale, dtype) in [(1e3, DType::F32), (1e5, DType::F32), (1e4, DType::Bf16)] {
                let shape = shape(&[1, 1, 1], &candidates);
                let value_width = Some(width);
                let forward = AttentionCase { width, value_width, heads, scale: Some(scale), dtype, ..shape };
                assert_check(&gradients(forward), backend, rules);
            }
        }
    }
}

fn keeps_nan_to_its_users<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for weighting in WEIGHTINGS {
        let plain = AttentionCase { weighting, ..shape(&[40, 9, 30], &[3, 20, 2]) };
        let query = AttentionCase { nan: Some(4), ..plain.clone() };
        assert_check(&gradients(query), backend, rules);
        assert_check(&AttentionBackwardCase { nan: Some(4), ..gradients(plain.clone()) }, backend, rules);
        for place in [Place::Key, Place::Value, Place::Bias] {
            let case = AttentionCase { puts: vec![(place, 43, f32::NAN)], ..plain.clone() };
            assert_check(&gradients(case), backend, rules);
        }
    }
}

fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for dtype in [DType::F32, DType::Bf16] {
        for (width, value_width) in [(16, 16), (64, 64), (7, 5)] {
            for (histories, targets) in [([9, 140, 65], [2, 3, 1]), ([9, 70, 2], [1, 30, 1])] {
                for (weighting, held) in WEIGHTINGS[..3].iter().zip([f32::NAN, f32::INFINITY, f32::NAN]) {
                    let (value_width, removed) = (Some(value_width), Some(held));
                    let forward = AttentionCase {
                        dtype,
                        width,
                        value_width,
                        weighting: *weighting,
                        bias: Bias::Mask,
                        removed,
                        ..shape(&histories, &targets)
                    };
                    assert_check(&gradients(forward.clone()), backend, rules);
                    // A candidate whose gradient is NaN still gives removed behaviours nothing.
                    let case = AttentionBackwardCase { nan: Some(3), ..gradients(forward) };
                    assert_check(&case, backend, rules);
                }
            }
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let forward = AttentionCase { tail: 5, bias: Bias::Normal, ..shape(&[40, 9], &[3, 20]) };
    assert_check(&gradients(forward), backend, rules);
}

fn splits_gradients_of_merges<B: Backend>(backend: &B, rules: Rules) {
    for (rows, value_width) in [(1, 1), (13, 16), (257, 5)] {
        for dead_parts in [false, true] {
            for asked in [[true; 4], [true, false, false, true]] {
                let case = MergeBackwardCase { rows, value_width, dead_parts, asked, ..Default::default() };
                for dtype in [DType::F32, DType::F16, DType::Bf16] {
                    assert_check(&MergeBackwardCase { dtype, ..case.clone() }, backend, rules);
                }
            }
        }
    }
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = gradients(AttentionCase { value_width: None, ..shape(&[9, 20], &[3, 4]) });
    let grouped =
        gradients(AttentionCase { heads: 4, kv_heads: 2, bias: Bias::Normal, ..shape(&[9, 20], &[3, 4]) });
    let with_lse = AttentionBackwardCase { with_grad_lse: true, ..grouped.clone() };
    let silu = gradients(AttentionCase { weighting: HISTORY_LENGTH, ..plain.forward.clone() });
    for (fault, case) in [
        (Fault::DividedByLongest, &silu),
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::MeanGradientDropped, &plain),
        (Fault::AliasedValuesForgotten, &plain),
        (Fault::HeadsNotSummed, &grouped),
        (Fault::NewestPartial, &grouped),
        (Fault::BiasIgnored, &grouped),
        (Fault::LseGradientIgnored, &with_lse),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    let merge = MergeBackwardCase::default();
    assert_check(&merge, &cpu(), Rules::IEEE);
    for fault in [Fault::MergeAverages, Fault::LseGradientIgnored] {
        assert!(check(&merge, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    let merge = MergeBackwardCase { rows: 100, dead_parts: true, ..merge };
    assert!(check(&merge, &Mutant(Fault::DeadPartsCount), Rules::IEEE).is_err());
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("target_attention_backward", backend, rules);
}
