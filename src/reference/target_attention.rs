//! The reference of target attention. Formula: [`TargetAttention`].

use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{PartialAttention, TargetAttention, TargetAttentionInputs, Weighting};
use crate::reference::arithmetic::{dot, row, sigmoid, softmax};

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
    op.check(batch, inputs)?;
    let values = inputs.values.unwrap_or(inputs.keys);
    let scale = f64::from(op.effective_scale());
    let rows = batch.targets().rows() * op.heads;
    let mut out = vec![0.0; rows * op.value_width];
    let mut lse = vec![f64::NEG_INFINITY; rows];
    for (history, targets) in batch.requests() {
        for m in targets {
            for h in 0..op.heads {
                let q = row(&inputs.queries, m * op.heads + h, op.width);
                let kv_row = |l: usize| l * op.kv_heads + op.kv_head(h);
                let scores: Vec<f64> = history
                    .clone()
                    .map(|l| {
                        let bias = inputs.bias.map_or(0.0, |bias| f64::from(bias[l * op.heads + h]));
                        scale * dot(&q, &row(&inputs.keys, kv_row(l), op.width)) + bias
                    })
                    .collect();
                let (weights, lse_mh) = weights(op.weighting, &scores);
                lse[m * op.heads + h] = lse_mh;
                for (l, w) in history.clone().zip(weights) {
                    // A removed behaviour (a bias of -∞) is skipped, whatever its value holds.
                    if w == 0.0 {
                        continue;
                    }
                    let start = (m * op.heads + h) * op.value_width;
                    for (j, v) in row(&values, kv_row(l), op.value_width).into_iter().enumerate() {
                        out[start + j] += w * v;
                    }
                }
            }
        }
    }
    if op.weighting != Weighting::Softmax {
        lse.clear();
    }
    Ok(TargetAttentionReference { out, lse })
}

/// The weights of scores, and the log-sum-exp with softmax.
fn weights(weighting: Weighting, scores: &[f64]) -> (Vec<f64>, f64) {
    let each = |f: &dyn Fn(f64) -> f64| (scores.iter().map(|&s| f(s)).collect(), f64::NEG_INFINITY);
    match weighting {
        Weighting::Softmax => softmax(scores),
        // Not f64::max: it would turn NaN into 0.
        Weighting::Relu => each(&|s| if s < 0.0 { 0.0 } else { s }),
        Weighting::Silu { divisor } => each(&|s| silu(s) / f64::from(divisor)),
        Weighting::Identity => each(&|s| s),
    }
}

/// `s·σ(s)`; at `-∞`, where the product is NaN, its limit 0.
fn silu(s: f64) -> f64 {
    if s == f64::NEG_INFINITY { 0.0 } else { s * sigmoid(s) }
}

/// Merges the results of softmax attention over two disjoint spans of the same histories, in `f64`.
///
/// # Errors
/// Those of [`TargetAttention::check_merge`].
pub fn merge_attention<T: Element>(
    op: &TargetAttention,
    first: PartialAttention<'_, Host, T>,
    second: PartialAttention<'_, Host, T>,
) -> Result<TargetAttentionReference> {
    let rows = op.check_merge(&first, &second)?;
    let mut merged = TargetAttentionReference { out: Vec::new(), lse: Vec::new() };
    for m in 0..rows {
        let lses = [f64::from(first.lse[m]), f64::from(second.lse[m])];
        let (weights, lse) = softmax(&lses);
        merged.lse.push(lse);
        let a = row(&first.out, m, op.value_width);
        let b = row(&second.out, m, op.value_width);
        merged.out.extend(a.iter().zip(&b).map(|(a, b)| weights[0] * a + weights[1] * b));
    }
    Ok(merged)
}
