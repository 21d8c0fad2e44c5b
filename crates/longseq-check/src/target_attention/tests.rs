//! Target attention on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::extremes::*;
use super::qin::matches_qin;
use super::{AttentionCase, Bias, MergeCase, Place};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("target_attention":
    matches_published_multi_head_attention,
    matches_published_jagged_attention,
    matches_qin,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_weighting,
    divides_by_the_length_of_each_history,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    merges_to_the_whole,
    merges_random_parts,
    matches_reference_on_the_small_named_cases,
    takes_finite_masks_for_scores,
    takes_scales_near_the_limits,
    keeps_nan_from_anywhere_to_its_candidates,
    weighs_values_near_the_limits,
    merges_dead_parts,
    counts_weights_down_to_normal_numbers,
);

fn matches_published_multi_head_attention<B: Backend>(backend: &B, rules: Rules) {
    for name in ["mhta_1x16", "mhta_2x64", "mhta_3x20", "mhta_4x8"] {
        let golden = Golden::load(name);
        matches_published(&golden, golden.number("heads"), backend, rules);
    }
}

fn matches_published_jagged_attention<B: Backend>(backend: &B, rules: Rules) {
    for name in ["jagged_attention_d16_t4", "jagged_attention_d64_t9"] {
        matches_published(&Golden::load(name), 1, backend, rules);
    }
}

fn matches_published<B: Backend>(golden: &Golden, heads: usize, backend: &B, rules: Rules) {
    let op = TargetAttention::new(golden.shape("key")[1] / heads).with_heads(heads, heads);
    let (histories, targets) = (golden.jagged("offsets", "key"), golden.jagged("target_offsets", "query"));
    let batch = backend.batch(&histories, &targets).expect("a batch");
    let [queries, keys, values] =
        ["query", "key", "value"].map(|name| backend.upload(&golden.f32(name)).expect("an upload"));
    let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
        .with_values(backend.view(&values));
    let out = backend.target_attention(&op, &batch, inputs).expect("a valid call");
    let out: Vec<f32> = backend.download(backend.view(&out)).expect("a download");
    let expected = golden.f64("out");
    compare("out", &out, &expected, &golden::bound(&expected), rules).unwrap();
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = vec![0, 1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 0];
    let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 7, 8, 0];
    assert_check(&AttentionCase { histories, targets, ..Default::default() }, backend, rules);
    assert_check(&AttentionCase { histories: vec![], targets: vec![], ..Default::default() }, backend, rules);
    assert_check(
        &AttentionCase { histories: vec![9], targets: vec![0], ..Default::default() },
        backend,
        rules,
    );
}

fn matches_reference_on_odd_widths<B: Backend>(backend: &B, rules: Rules) {
    for (width, value_width) in [
        (1, Some(1)),
        (3, Some(5)),
        (7, None),
        (16, Some(64)),
        (33, Some(31)),
        (64, None),
        (100, Some(100)),
        (128, Some(16)),
        (256, None),
    ] {
        let (histories, targets) = (vec![70, 3], vec![4, 18]);
        assert_check(
            &AttentionCase { width, value_width, histories, targets, ..Default::default() },
            backend,
            rules,
        );
    }
}

fn matches_reference_with_every_weighting<B: Backend>(backend: &B, rules: Rules) {
    for weighting in [Weighting::Softmax, Weighting::Relu, Weighting::silu(50.0), Weighting::Identity] {
        for value_width in [None, Some(24)] {
            let (histories, targets) = (vec![0, 40, 300], vec![2, 3, 20]);
            let case = AttentionCase { weighting, value_width, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

/// HSTU's weights.
pub(super) const HISTORY_LENGTH: Weighting = Weighting::Silu { divisor: SiluDivisor::HistoryLength };

/// HSTU's divisor.
fn divides_by_the_length_of_each_history<B: Backend>(backend: &B, rules: Rules) {
    let weighting = HISTORY_LENGTH;
    for (histories, targets) in [(vec![0, 1, 40, 300], vec![2, 1, 3, 20]), (vec![9000, 7], vec![2, 3])] {
        for bias in [Bias::None, Bias::Mask] {
            let (histories, targets) = (histories.clone(), targets.clone());
            let case = AttentionCase { weighting, bias, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_grouped_heads<B: Backend>(backend: &B, rules: Rules) {
    for (heads, kv_heads) in [(2, 1), (2, 2), (4, 2), (6, 3), (8, 1)] {
        let (histories, targets) = (vec![50, 0, 33], vec![3, 1, 9]);
        let value_width = Some(12);
        let case = AttentionCase { heads, kv_heads, value_width, histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_with_a_bias<B: Backend>(backend: &B, rules: Rules) {
    for bias in [Bias::Normal, Bias::Mask] {
        for weighting in [Weighting::Softmax, Weighting::Relu, Weighting::silu(8.0)] {
            let (heads, kv_heads) = (4, 2);
            let (histories, targets) = (vec![7, 50, 1, 300], vec![2, 3, 1, 4]);
            let case =
                AttentionCase { bias, weighting, heads, kv_heads, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, value_width) in [(64, None), (16, Some(16)), (5, Some(3))] {
            let (histories, targets) = (vec![300, 0, 17], vec![5, 2, 20]);
            let case = AttentionCase { dtype, width, value_width, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros] {
        let (histories, targets) = (vec![90, 2], vec![3, 4]);
        assert_check(&AttentionCase { data, histories, targets, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![20, 100_000, 0, 5], vec![2, 2, 1, 3]);
    assert_check(&AttentionCase { histories, targets, ..Default::default() }, backend, rules);
}

fn matches_reference_on_many_users<B: Backend>(backend: &B, rules: Rules) {
    let histories: Vec<usize> = (0..2000).map(|user| 2000 / (user + 1)).collect();
    let targets = (0..2000).map(|user| user % 3).collect();
    assert_check(
        &AttentionCase { histories, targets, width: 8, value_width: None, ..Default::default() },
        backend,
        rules,
    );
    let (histories, targets) = (vec![10], vec![3000]);
    assert_check(&AttentionCase { histories, targets, ..Default::default() }, backend, rules);
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
        weighting in prop::sample::select(vec![
            Weighting::Softmax, Weighting::Relu, Weighting::silu(3.0), Weighting::Identity,
        ]),
        bias in prop::sample::select(vec![Bias::None, Bias::Normal]),
    ) -> AttentionCase {
        let (histories, targets) = requests.into_iter().unzip();
        let data = Data::Normal;
        AttentionCase {
            seed, dtype, data, histories, targets, tail, heads, kv_heads, width, value_width, scale, weighting, bias,
            ..Default::default()
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    for weighting in [Weighting::Softmax, Weighting::Relu, Weighting::Identity] {
        let (histories, targets) = (histories.clone(), targets.clone());
        let case = AttentionCase { nan: Some(4), weighting, histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    // WGSL guarantees no arithmetic on NaN and infinity.
    if !rules.nan {
        return;
    }
    let weightings = [Weighting::Softmax, Weighting::Relu, Weighting::silu(8.0)];
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (width, value_width) in [(16, 16), (64, 64), (67, 65), (72, 128), (8, 136)] {
            for (histories, targets) in
                [(vec![9, 140, 65], vec![2, 3, 1]), (vec![9, 70], vec![1, 1]), (vec![4, 100], vec![3, 70])]
            {
                for (weighting, held) in weightings.into_iter().zip([f32::NAN, f32::INFINITY, f32::NAN]) {
                    let (histories, targets) = (histories.clone(), targets.clone());
                    let (value_width, removed) = (Some(value_width), Some(held));
                    let shape =
                        AttentionCase { dtype, width, value_width, histories, targets, ..Default::default() };
                    let case = AttentionCase { weighting, bias: Bias::Mask, removed, ..shape };
                    assert_check(&case, backend, rules);
                }
            }
        }
    }
    // Split into pieces, with grouped heads.
    let (histories, targets, removed) = (vec![5, 5000], vec![1, 3], Some(f32::NAN));
    let (heads, kv_heads) = (4, 2);
    let case = AttentionCase {
        bias: Bias::Mask,
        removed,
        heads,
        kv_heads,
        histories,
        targets,
        ..Default::default()
    };
    assert_check(&case, backend, rules);
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    assert_check(&AttentionCase { tail: 5, histories, targets, ..Default::default() }, backend, rules);
}

fn merges_random_parts<B: Backend>(backend: &B, rules: Rules) {
    for (rows, value_width) in [(1, 1), (13, 16), (257, 5)] {
        assert_check(&MergeCase { rows, value_width, ..Default::default() }, backend, rules);
    }
}

/// Attention over two parts of a history, merged, equals attention over the whole.
fn merges_to_the_whole<B: Backend>(backend: &B, rules: Rules) {
    let (width, length, candidates) = (8, 90, 6);
    let mut rng = data::rng(7);
    let queries: Vec<f32> = data::rows(&mut rng, Data::Normal, candidates, width);
    let keys: Vec<f32> = data::rows(&mut rng, Data::Normal, length, width);
    let op = TargetAttention::new(width);
    let attend = |keys: &[f32]| -> Result<(Vec<f32>, Vec<f32>)> {
        let histories = Jagged::from_lengths(&[keys.len() / width])?;
        let batch = backend.batch(&histories, &Jagged::from_lengths(&[candidates])?)?;
        let (queries, keys) = (backend.upload(&queries)?, backend.upload(keys)?);
        let (queries, keys) = (backend.view(&queries), backend.view(&keys));
        let inputs = TargetAttentionInputs::new(queries, keys);
        let (mut out, mut lse) = (backend.zeros(candidates * width)?, backend.zeros(candidates)?);
        let outputs =
            TargetAttentionOutputs::new(backend.view_mut(&mut out)).with_lse(backend.view_mut(&mut lse));
        backend.target_attention_into(&op, &batch, inputs, outputs)?;
        Ok((backend.download(backend.view(&out))?, backend.download(backend.view(&lse))?))
    };
    let merged = || -> Result<Vec<f32>> {
        let (first, second) = (attend(&keys[..30 * width])?, attend(&keys[30 * width..])?);
        let buffers = [&first.0, &first.1, &second.0, &second.1].map(|part| backend.upload(part));
        let [a, a_lse, b, b_lse] = buffers;
        let (a, a_lse, b, b_lse) = (a?, a_lse?, b?, b_lse?);
        let mut out = backend.zeros::<f32>(candidates * width)?;
        let outputs = TargetAttentionOutputs::new(backend.view_mut(&mut out));
        let first = PartialAttention::new(backend.view(&a), backend.view(&a_lse));
        let second = PartialAttention::new(backend.view(&b), backend.view(&b_lse));
        backend.merge_attention_into(&op, first, second, outputs)?;
        backend.download(backend.view(&out))
    };
    let whole: Vec<f64> = attend(&keys).expect("a valid call").0.iter().map(|&x| x.into()).collect();
    compare("merged", &merged().expect("valid calls"), &whole, &golden::bound(&whole), rules).unwrap();
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = AttentionCase {
        histories: vec![9, 20],
        targets: vec![3, 4],
        value_width: None,
        ..Default::default()
    };
    let grouped = AttentionCase { heads: 4, kv_heads: 2, bias: Bias::Normal, ..plain.clone() };
    let all_masked = AttentionCase { bias: Bias::All(f32::MIN), ..plain.clone() };
    let nan = AttentionCase { puts: vec![(Place::Key, 3, f32::NAN)], ..plain.clone() };
    let silu = AttentionCase { weighting: HISTORY_LENGTH, ..plain.clone() };
    for (fault, case) in [
        (Fault::DividedByLongest, &silu),
        (Fault::LowScoresRemoved, &all_masked),
        (Fault::NanDropped, &nan),
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::LseInBits, &plain),
        (Fault::WritesBehind, &plain),
        (Fault::LeavesOut, &plain),
        (Fault::HeadsMixed, &grouped),
        (Fault::BiasIgnored, &grouped),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    let merge = MergeCase::default();
    assert!(check(&merge, &Mutant(Fault::MergeAverages), Rules::IEEE).is_err());
    let merge = MergeCase { rows: 100, dead_parts: true, ..merge };
    assert!(check(&merge, &Mutant(Fault::DeadPartsCount), Rules::IEEE).is_err());
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("target_attention", backend, rules);
}
