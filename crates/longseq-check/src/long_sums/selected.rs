//! Attention over a selection that keeps one behaviour over and over.

use longseq::*;

use super::{Sum, TENTH, all, batch, check_all, download, length};
use crate::case::Rules;

/// Behaviours of the user, and the one that is kept.
const HISTORY: usize = 3;
const KEPT: u32 = 1;

/// What a call reads: every score is 1, and the similarity of the first slot makes its weight ten times that of the others.
struct Inputs<B: Backend> {
    op: SelectedAttention,
    queries: Buffer<B, f32>,
    keys: Buffer<B, f32>,
    values: Buffer<B, f32>,
    bias: Buffer<B, f32>,
    gammas: Buffer<B, f32>,
    positions: Buffer<B, u32>,
    similarities: Buffer<B, f32>,
    counts: Buffer<B, u32>,
}

/// The similarity of the first slot.
fn first() -> f32 {
    std::f32::consts::LN_10
}

impl<B: Backend> Inputs<B> {
    fn new(backend: &B, width: usize, top_k: usize, candidates: usize) -> Result<Self> {
        let mut similarities = vec![0.0f32; candidates * top_k];
        similarities.iter_mut().step_by(top_k).for_each(|similarity| *similarity = first());
        Ok(Self {
            op: SelectedAttention::new(width).with_scale(1.0).with_top_k(top_k),
            queries: all::<B, f32>(backend, 2.0, candidates * width)?,
            keys: all::<B, f32>(backend, 0.5 / width as f32, HISTORY * width)?,
            values: all::<B, f32>(backend, TENTH, HISTORY * width)?,
            bias: backend.zeros(HISTORY)?,
            gammas: backend.upload(&[1.0f32, 1.0, 0.0])?,
            positions: backend.upload(&vec![KEPT; candidates * top_k])?,
            similarities: backend.upload(&similarities)?,
            counts: backend.upload(&vec![top_k as u32; candidates])?,
        })
    }

    fn views(&self, backend: &B) -> SelectedAttentionInputs<'_, B::Memory, f32> {
        let kept = Selection::new(
            backend.view(&self.positions),
            backend.view(&self.similarities),
            backend.view(&self.counts),
        );
        SelectedAttentionInputs::new(backend.view(&self.queries), backend.view(&self.keys), kept)
            .with_values(backend.view(&self.values))
            .with_bias(backend.view(&self.bias))
            .with_gammas(backend.view(&self.gammas))
    }
}

pub(super) fn adds_up_selections<B: Backend>(backend: &B, rules: Rules) {
    for (width, candidates) in [(1, 1), (16, 2)] {
        let top_k = length(rules);
        let run = || -> Result<Vec<Sum>> {
            let inputs = Inputs::new(backend, width, top_k, candidates)?;
            let mut out = backend.zeros::<f32>(candidates * width)?;
            let mut lse = backend.zeros::<f32>(candidates)?;
            let outputs = SelectedAttentionOutputs::new(backend.view_mut(&mut out))
                .with_lse(backend.view_mut(&mut lse));
            let batch = batch(backend, HISTORY, candidates)?;
            backend.selected_attention_into(&inputs.op, &batch, inputs.views(backend), outputs)?;
            let sum = f64::from(first()).exp() + (top_k - 1) as f64;
            // What the sum of the weights was.
            let sums = download(backend, &lse)?.into_iter().map(|lse| (f64::from(lse) - 1.0).exp() as f32);
            Ok(vec![
                Sum::new("out", download(backend, &out)?, f64::from(TENTH), top_k),
                Sum::new("exp(lse)", sums.collect(), sum, top_k),
            ])
        };
        check_all(&format!("width {width}, {candidates} candidates"), run(), rules);
    }
}

/// For a gradient of 1 of the log-sum-exp, gradients of scores are the weights, which add up to 1.
fn gradients<B: Backend>(backend: &B, (width, top_k, candidates): (usize, usize, usize)) -> Result<Vec<Sum>> {
    let inputs = Inputs::new(backend, width, top_k, candidates)?;
    let grad_out = all::<B, f32>(backend, TENTH, candidates * width)?;
    let grad_lse = all::<B, f32>(backend, 1.0, candidates)?;
    let zeros = |count: usize| backend.zeros::<f32>(count);
    let (mut queries, mut keys) = (zeros(candidates * width)?, zeros(HISTORY * width)?);
    let (mut values, mut bias, mut gammas) = (zeros(HISTORY * width)?, zeros(HISTORY)?, zeros(3)?);
    let grads = SelectedAttentionGradients::<B::Memory, f32>::new()
        .with_queries(backend.view_mut(&mut queries))
        .with_keys(backend.view_mut(&mut keys))
        .with_values(backend.view_mut(&mut values))
        .with_bias(backend.view_mut(&mut bias))
        .with_gammas(backend.view_mut(&mut gammas));
    let grad = SelectedAttentionGradOut::new(backend.view(&grad_out)).with_lse(backend.view(&grad_lse));
    let batch = batch(backend, HISTORY, candidates)?;
    backend.selected_attention_backward_into(&inputs.op, &batch, inputs.views(backend), grad, grads)?;
    let (m, slots, kept) = (candidates as f64, top_k * candidates, KEPT as usize);
    let row = |rows: Vec<f32>| rows[kept * width..(kept + 1) * width].to_vec();
    Ok(vec![
        Sum::new("queries", download(backend, &queries)?, 0.5 / width as f64, top_k),
        Sum::new("keys", row(download(backend, &keys)?), 2.0 * m, slots),
        Sum::new("values", row(download(backend, &values)?), m * f64::from(TENTH), slots),
        Sum::new("bias", vec![download(backend, &bias)?[kept]], m, slots),
        Sum::new("gammas", vec![download(backend, &gammas)?[0]], m, slots),
    ])
}

/// Many slots of a candidate, and many candidates that keep the same behaviour.
pub(super) fn adds_up_gradients_of_selections<B: Backend>(backend: &B, rules: Rules) {
    let long = length(rules);
    for shape in [(1, long, 1), (16, 10, long / 10)] {
        check_all(&format!("{shape:?}"), gradients(backend, shape), rules);
    }
}
