//! Numbers at the limits: finite masks, scores near the limits of `f32`, NaN and infinity, values near the limits.

use longseq::prelude::*;
use longseq::{DType, Jagged, Result, TargetAttention, TargetAttentionInputs, Weighting};

use super::{AttentionCase, Bias, MergeCase, Place};
use crate::case::{Rules, assert_check};
use crate::data::Data;

/// A history of several pieces.
const LONG: usize = 5000;

/// Few and many candidates, histories in one piece and in several.
fn shapes(rules: Rules) -> Vec<(Vec<usize>, Vec<usize>)> {
    let long = if rules.slow { 1500 } else { LONG };
    vec![(vec![9, 140, 65, 0], vec![2, 3, 1, 1]), (vec![4, 100], vec![3, 70]), (vec![5, long], vec![1, 3])]
}

const WEIGHTINGS: [Weighting; 4] =
    [Weighting::Softmax, Weighting::Relu, Weighting::silu(8.0), Weighting::Identity];

/// Only `-∞` removes: a finite mask is a score like any other, and equal scores give equal weights.
pub(super) fn takes_finite_masks_for_scores<B: Backend>(backend: &B, rules: Rules) {
    let biases = [
        Bias::All(f32::MIN),
        Bias::All(-3e38),
        Bias::All(3e38),
        Bias::All(f32::MAX),
        Bias::All(f32::NEG_INFINITY),
        Bias::Alternate(3e38),
        Bias::MaskWith(f32::MIN),
        Bias::MaskWith(-2.5e38),
    ];
    for (histories, targets) in shapes(rules) {
        let is_long = histories.contains(&LONG);
        for bias in biases.into_iter().step_by(if is_long { 3 } else { 1 }) {
            let (histories, targets) = (histories.clone(), targets.clone());
            assert_check(&AttentionCase { bias, histories, targets, ..Default::default() }, backend, rules);
        }
        // A large negative score has no weight.
        for (bias, weighting) in
            [(Bias::MaskWith(f32::MIN), 1), (Bias::All(f32::MIN), 2), (Bias::All(-100.0), 2)]
        {
            let (weighting, histories, targets) = (WEIGHTINGS[weighting], histories.clone(), targets.clone());
            let case = AttentionCase { bias, weighting, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
    for (dtype, width) in [(DType::F16, 64), (DType::Bf16, 16), (DType::F32, 5)] {
        for bias in [Bias::All(f32::MIN), Bias::All(f32::NEG_INFINITY), Bias::Alternate(3e38)] {
            let (histories, targets) = (vec![40, 70], vec![3, 17]);
            let value_width = Some(width);
            let case =
                AttentionCase { dtype, width, value_width, bias, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

/// `scale·⟨q, k⟩` is right wherever it and `⟨q, k⟩` are in range, whatever `scale·q` is.
pub(super) fn takes_scales_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    let cases = [
        // scale·q would overflow, be subnormal, be tiny.
        (1e36, 1e3, 1e-36),
        (1e-36, 1e-4, 1e36),
        (1e-36, 1e18, 1e17),
        (3e38, 1.0, 1e-35),
        (-3e38, 1e-30, 1e-8),
        // scale·q would overflow with a scale that is not large by itself.
        // (No key is a subnormal number, which may count as 0 in WGSL.)
        (4e9, 1e30, 4e-38),
        (2.0, 3e38, 4e-38),
    ];
    for (scale, queries, keys) in cases {
        for targets in [vec![2, 1], vec![3, 20]] {
            let histories = vec![70, 9];
            let inputs = [Some(Data::Flat(queries)), Some(Data::Flat(keys)), None];
            let scale = Some(scale);
            assert_check(
                &AttentionCase { scale, inputs, histories, targets, ..Default::default() },
                backend,
                rules,
            );
        }
    }
}

/// A number that is not finite reaches every candidate that it concerns, and no other. A behaviour whose weight is 0, but
/// whose score is not `-∞`, counts.
pub(super) fn keeps_nan_from_anywhere_to_its_candidates<B: Backend>(backend: &B, rules: Rules) {
    const LOW: f32 = -1e4;
    let nan = f32::NAN;
    let several = [
        vec![(Place::Query, 4, nan)],
        vec![(Place::Key, 43, nan)],
        vec![(Place::Value, 43, nan)],
        vec![(Place::Bias, 43, nan)],
        // Weights that underflow, or are 0.
        vec![(Place::Bias, 43, LOW), (Place::Value, 43, nan)],
        vec![(Place::Bias, 43, f32::MIN), (Place::Value, 43, nan)],
        // NaN - ∞ is NaN: a key with NaN is not removed.
        vec![(Place::Bias, 43, f32::NEG_INFINITY), (Place::Key, 43, nan)],
        vec![(Place::Value, 43, f32::INFINITY)],
        vec![(Place::Value, 43, f32::INFINITY), (Place::Value, 45, f32::NEG_INFINITY)],
    ];
    for targets in [vec![3, 2], vec![3, 20]] {
        for weighting in WEIGHTINGS {
            for puts in &several {
                // With the score as the weight, this number gives more than f32 holds.
                if weighting == Weighting::Identity && puts.contains(&(Place::Bias, 43, f32::MIN)) {
                    continue;
                }
                let (histories, targets, puts) = (vec![40, 9], targets.clone(), puts.clone());
                let case = AttentionCase { puts, weighting, histories, targets, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    // In a history of several pieces, and in one whose other behaviours are all removed.
    let length = if rules.slow { 1500 } else { LONG };
    // +∞ as a score: with softmax, no number.
    let infinite = vec![(Place::Bias, 43, f32::INFINITY)];
    for puts in several.into_iter().step_by(2).chain([infinite]) {
        let case =
            AttentionCase { puts, histories: vec![40, length], targets: vec![2, 3], ..Default::default() };
        assert_check(&case, backend, rules);
    }
    let (bias, puts) = (Bias::Mask, vec![(Place::Bias, 5, f32::MIN), (Place::Value, 5, nan)]);
    let case =
        AttentionCase { bias, puts, histories: vec![40, 9], targets: vec![3, 2], ..Default::default() };
    assert_check(&case, backend, rules);
}

/// With softmax, the result is at most the largest value, however large that is.
pub(super) fn weighs_values_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        // Equal weights, and different ones.
        for keys in [Data::Zeros, Data::Normal] {
            for (histories, targets) in shapes(rules) {
                let inputs = [None, Some(keys), Some(Data::Huge)];
                let case = AttentionCase { dtype, inputs, histories, targets, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    // The same value everywhere: a rounding error more, and the result is infinite.
    for (histories, targets) in shapes(rules) {
        let inputs = [None, Some(Data::Normal), Some(Data::Same(f32::MAX))];
        assert_check(&AttentionCase { inputs, histories, targets, ..Default::default() }, backend, rules);
    }
    // At the other end: a kernel that keeps its sums far from the largest numbers must not lose the smallest.
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for values in [Data::Tiny, Data::Flat(1e-36), Data::Same(1e-33)] {
            for (histories, targets) in shapes(rules) {
                let inputs = [None, None, Some(values)];
                let case = AttentionCase { dtype, inputs, histories, targets, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    // The removed values may hold anything here too.
    let (histories, targets) = (vec![9, 140], vec![2, 3]);
    let inputs = [None, None, Some(Data::Huge)];
    let (bias, removed) = (Bias::Mask, Some(f32::NAN));
    let case = AttentionCase { inputs, bias, removed, histories, targets, ..Default::default() };
    assert_check(&case, backend, rules);
}

/// A weight counts as long as it is a normal number, however large its value is: scores 87 below the largest. Where subnormal
/// numbers are flushed to 0, what weights are multiplied by must leave them normal, too: scores 80 below.
pub(super) fn counts_weights_down_to_normal_numbers<B: Backend>(backend: &B, rules: Rules) {
    let low: f32 = if rules.subnormal { -87.0 } else { -80.0 };
    const LARGE: f32 = 3e38;
    for others in [3, 70, if rules.slow { 600 } else { 2500 }] {
        let run = || -> Result<Vec<f32>> {
            let single = |length| Jagged::from_lengths(&[length]);
            let batch = backend.batch(&single(others + 1)?, &single(2)?)?;
            let (queries, keys) = (backend.zeros::<f32>(2)?, backend.zeros::<f32>(others + 1)?);
            // The one behaviour that is not low is in the middle.
            let at = |l, own, other| if l == others / 2 { own } else { other };
            let column = |own, other| (0..=others).map(|l| at(l, own, other)).collect::<Vec<f32>>();
            let (values, bias) = (backend.upload(&column(1.0, LARGE))?, backend.upload(&column(0.0, low))?);
            let op = TargetAttention::new(1);
            let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
                .with_values(backend.view(&values))
                .with_bias(backend.view(&bias));
            let out = backend.target_attention(&op, &batch, inputs)?;
            backend.download(backend.view(&out))
        };
        let got = run().expect("a valid call");
        let exact = 1.0 + others as f64 * f64::from(low).exp() * f64::from(LARGE);
        let is_near = |&got: &f32| (f64::from(got) / exact - 1.0).abs() < 1e-4;
        assert!(got.iter().all(is_near), "{others} others: {got:?}, not {exact}");
    }
}

/// A part whose `lse` is `-∞` counts for nothing; any other counts, with a weight of 0 too.
pub(super) fn merges_dead_parts<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for value_width in [1, 4, 16] {
            let case = MergeCase { dtype, value_width, rows: 1300, dead_parts: true, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}
