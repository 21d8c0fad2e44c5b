//! Target attention without softmax.

use longseq::half::bf16;
use longseq::*;

use super::{CANDIDATES, Sum, TENTH, all, batch, check_all, download, length};
use crate::case::Rules;
use crate::device::thorough;

/// Weightings, with weight and slope at a score of 1.
fn weightings() -> [(Weighting, f64, f64); 3] {
    let sigmoid = 1.0 / (1.0 + (-1f64).exp());
    [
        (Weighting::Identity, 1.0, 1.0),
        (Weighting::Relu, 1.0, 1.0),
        (Weighting::silu(1.0), sigmoid, sigmoid * (2.0 - sigmoid)),
    ]
}

/// Every score is 1, every value a tenth.
pub(super) fn adds_up_attention_without_softmax<B: Backend>(backend: &B, rules: Rules) {
    for (weighting, weight, _) in weightings() {
        for (width, candidates) in [(1, 1), (16, 3), (8, 20)] {
            let length = length(rules);
            let run = || -> Result<Vec<Sum>> {
                let op = TargetAttention::new(width).with_weighting(weighting).with_scale(1.0);
                let queries = all::<B, f32>(backend, 1.0, candidates * width)?;
                let keys = all::<B, f32>(backend, 1.0 / width as f32, length * width)?;
                let values = all::<B, f32>(backend, TENTH, length * width)?;
                let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
                    .with_values(backend.view(&values));
                let out = backend.target_attention(&op, &batch(backend, length, candidates)?, inputs)?;
                let exact = length as f64 * f64::from(TENTH) * weight;
                Ok(vec![Sum::new("out", download(backend, &out)?, exact, length)])
            };
            check_all(&format!("{weighting:?}, width {width}, {candidates} candidates"), run(), rules);
        }
    }
}

/// A backward pass in which all rows of a kind are the same: every score is 1, and every `⟨grad_out, v⟩` a tenth.
fn gradients<B: Backend, T: Element>(
    backend: &B,
    (weighting, weight, slope): (Weighting, f64, f64),
    (width, behaviours, candidates): (usize, usize, usize),
) -> Result<Vec<Sum>>
where
    f32: GradientOf<T>,
{
    let op = TargetAttention::new(width).with_weighting(weighting).with_scale(1.0);
    let (query, key) = (0.75f32, 1.0 / (0.75 * width as f32));
    let queries = all::<B, T>(backend, query, candidates * width)?;
    // The rest of a score, that 16 bits do not have, is in the bias.
    let stored_key = f64::from(T::from_f32(key).to_f32());
    let rest = 1.0 - f64::from(query) * stored_key * width as f64;
    let bias = all::<B, f32>(backend, rest as f32, behaviours)?;
    let keys = all::<B, T>(backend, key, behaviours * width)?;
    let values = all::<B, T>(backend, TENTH, behaviours * width)?;
    let value = f64::from(T::from_f32(TENTH).to_f32());
    let grad: f32 = 1.0 / width as f32;
    let grad_out = all::<B, T>(backend, grad, candidates * width)?;
    let inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys))
        .with_values(backend.view(&values))
        .with_bias(backend.view(&bias));
    let zeros = |count: usize| backend.zeros::<f32>(count);
    let (mut dq, mut dk) = (zeros(candidates * width)?, zeros(behaviours * width)?);
    let (mut dv, mut dbias) = (zeros(behaviours * width)?, zeros(behaviours)?);
    let grads = TargetAttentionGradients::<B::Memory, f32>::new()
        .with_queries(backend.view_mut(&mut dq))
        .with_keys(backend.view_mut(&mut dk))
        .with_values(backend.view_mut(&mut dv))
        .with_bias(backend.view_mut(&mut dbias));
    backend.target_attention_backward_into(
        &op,
        &batch(backend, behaviours, candidates)?,
        inputs,
        TargetAttentionSaved::none(),
        TargetAttentionGradOut::new(backend.view(&grad_out)),
        grads,
    )?;
    let (l, m, of_score) = (behaviours as f64, candidates as f64, slope * value);
    Ok(vec![
        Sum::new("queries", download(backend, &dq)?, l * of_score * stored_key, behaviours),
        Sum::new("keys", download(backend, &dk)?, m * of_score * f64::from(query), candidates),
        Sum::new("values", download(backend, &dv)?, m * weight * f64::from(grad), candidates),
        Sum::new("bias", download(backend, &dbias)?, m * of_score, candidates),
    ])
}

/// Sums over a long history, and over many candidates. (Over candidates, those of `Cuda`, and of a bias on `Cpu`, are chains:
/// docs/status.md.)
pub(super) fn adds_up_gradients_of_attention<B: Backend>(backend: &B, rules: Rules) {
    for weighting in weightings() {
        let long = length(rules);
        if weighting.0 == Weighting::Relu && !thorough() {
            continue;
        }
        let of_candidates = (!rules.subnormal).then_some((16, 2, CANDIDATES.min(long)));
        for shape in [(1, long, 1), (16, long, 2)].into_iter().chain(of_candidates) {
            let case = format!("{:?}, {shape:?}", weighting.0);
            check_all(&case, gradients::<B, f32>(backend, weighting, shape), rules);
            if weighting.0 != Weighting::Identity && !thorough() {
                continue;
            }
            check_all(&format!("{case}, bf16"), gradients::<B, bf16>(backend, weighting, shape), rules);
        }
    }
}
