//! The reference of target attention. Formula: [`TargetAttention`].

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{PartialAttention, SiluDivisor, TargetAttention, TargetAttentionInputs, Weighting};
use crate::reference::arithmetic::{Weights, add_weighted, dot, each_not_removed, row, sigmoid, softmax};
use crate::reference::widened::{attention_in_f32, wide};

const NAME: &str = "target_attention";
const MERGE: &str = "merge_attention";

/// Exact results of target attention.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetAttentionReference {
    /// `[M, H, d_v]`.
    pub out: Vec<f64>,
    /// `[M, H]` with [`Weighting::Softmax`], otherwise empty.
    pub lse: Vec<f64>,
}

/// Target attention in `f64`.
///
/// # Errors
/// Those of [`TargetAttention::check`].
pub fn target_attention<T: Element>(
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, T>,
) -> Result<TargetAttentionReference> {
    attention_in_f32(NAME, inputs, |inputs| attention(op, batch, inputs))
}

/// [`target_attention`] of widened inputs.
fn attention(
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, f32>,
) -> Result<TargetAttentionReference> {
    op.check(batch, inputs)?;
    let values = inputs.values.unwrap_or(inputs.keys);
    let rows = batch.targets().rows() * op.heads;
    let mut out = filled(NAME, rows * op.value_width, 0.0)?;
    let mut lse = filled(NAME, rows, f64::NEG_INFINITY)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            for h in 0..op.heads {
                let q = row(&inputs.queries, m * op.heads + h, op.width);
                let kv_row = |l: usize| l * op.kv_heads + op.kv_head(h);
                let scores = scores(op, inputs, &q, history.clone(), h);
                let (weights, lse_mh) = weights(op.weighting, &scores);
                lse[m * op.heads + h] = lse_mh;
                let start = (m * op.heads + h) * op.value_width;
                let out = &mut out[start..start + op.value_width];
                for (l, w) in history.clone().zip(weights) {
                    add_weighted(out, w, || row(&values, kv_row(l), op.value_width));
                }
            }
        }
    }
    if op.weighting != Weighting::Softmax {
        lse.clear();
    }
    Ok(TargetAttentionReference { out, lse })
}

/// The scores of a query of head `h` against each behaviour of a history.
pub(super) fn scores(
    op: &TargetAttention,
    inputs: &TargetAttentionInputs<'_, Host, f32>,
    q: &[f64],
    history: Range<usize>,
    h: usize,
) -> Vec<f64> {
    let scale = f64::from(op.effective_scale());
    let score = |l: usize| {
        let bias = inputs.bias.map_or(0.0, |bias| f64::from(bias[l * op.heads + h]));
        scale * dot(q, &row(&inputs.keys, l * op.kv_heads + op.kv_head(h), op.width)) + bias
    };
    history.map(score).collect()
}

/// The weights of the scores of a whole history, and the log-sum-exp with softmax.
pub(super) fn weights(weighting: Weighting, scores: &[f64]) -> Weights {
    let weights = match weighting {
        Weighting::Softmax => return softmax(scores),
        // Not f64::max: it would turn NaN into 0.
        Weighting::Relu => each_not_removed(scores, |s| if s < 0.0 { 0.0 } else { s }),
        Weighting::Silu { divisor } => {
            each_not_removed(scores, |s| s * sigmoid(s) / silu_divisor(divisor, scores.len()))
        }
        // The weight is the score: one of -∞ removes nothing.
        Weighting::Identity => scores.iter().copied().map(Some).collect(),
    };
    (weights, f64::NEG_INFINITY)
}

/// What the weights of SiLU are divided by, over so many behaviours.
pub(super) fn silu_divisor(divisor: SiluDivisor, behaviours: usize) -> f64 {
    match divisor {
        SiluDivisor::Number(number) => number.into(),
        SiluDivisor::HistoryLength => behaviours as f64,
    }
}

/// Merges the results of softmax attention over two disjoint spans of the same histories, in `f64`. A part whose log-sum-exp
/// is `-∞` counts for nothing, whatever its row holds.
///
/// # Errors
/// Those of [`TargetAttention::check_merge`].
pub fn merge_attention<T: Element>(
    op: &TargetAttention,
    first: PartialAttention<'_, Host, T>,
    second: PartialAttention<'_, Host, T>,
) -> Result<TargetAttentionReference> {
    let rows = op.check_merge(&first, &second)?;
    let outs = [wide(MERGE, &first.out)?, wide(MERGE, &second.out)?];
    Ok(merge(op, rows, [&outs[0], &outs[1]], [&first.lse, &second.lse]))
}

/// [`merge_attention`] of widened rows.
fn merge(
    op: &TargetAttention,
    rows: usize,
    outs: [&[f32]; 2],
    lses: [&[f32]; 2],
) -> TargetAttentionReference {
    let mut merged = TargetAttentionReference { out: Vec::new(), lse: Vec::new() };
    for m in 0..rows {
        let lses = lses.map(|lses| f64::from(lses[m]));
        let (weights, lse) = softmax(&lses);
        merged.lse.push(lse);
        let mut out = vec![0.0; op.value_width];
        add_weighted(&mut out, weights[0], || row(outs[0], m, op.value_width));
        add_weighted(&mut out, weights[1], || row(outs[1], m, op.value_width));
        merged.out.extend(out);
    }
    merged
}
