//! The reference of target attention's gradients. Formula: [`target_attention_backward`].

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{PartialAttention, TargetAttention, TargetAttentionInputs, Weighting, dim, expect};
use crate::reference::arithmetic::{add_weighted, dot, row, sigmoid, softmax, softmax_backward};
use crate::reference::target_attention::{scores, silu_divisor, weights};
use crate::reference::widened::{attention_in_f32, wide};

const NAME: &str = "target_attention_backward";
const MERGE: &str = "merge_attention_backward";

/// Exact gradients of target attention, in the shapes of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TargetAttentionGradientReference {
    /// `[M, H, d]`.
    pub queries: Vec<f64>,
    /// `[N, H_kv, d]`; where the keys are the values, the sum of both gradients.
    pub keys: Vec<f64>,
    /// `[N, H_kv, d_v]`; `None` where the keys are the values.
    pub values: Option<Vec<f64>>,
    /// `[N, H]`; `None` without a bias.
    pub bias: Option<Vec<f64>>,
}

/// The gradients of one part of a merge.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PartialAttentionGradientReference {
    /// `[M, H, d_v]`.
    pub out: Vec<f64>,
    /// `[M, H]`.
    pub lse: Vec<f64>,
}

/// The gradients of [`target_attention`](crate::reference::target_attention) in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, H, d_v]`; `grad_lse` that of the log-sum-exp, `[M, H]`, where one comes in. With
/// the weights `P` and the scores `S` of one candidate and head, `D = ⟨grad_out, out⟩`:
///
/// ```text
/// dP_l = ⟨grad_out, v_l⟩
/// dS_l = P_l·(dP_l − D + grad_lse)       softmax
/// dS_l = w′(S_l)·dP_l                    ReLU (0 at 0), SiLU, identity
/// dv_l = Σ P_l·grad_out   dk_l = scale·Σ dS_l·q   dq = scale·Σ_l dS_l·k_l   dbias[l,h] = Σ_m dS_l
/// ```
///
/// The sums of `dv` and `dk` are over the user's candidates and the heads that share a key. A behaviour that a score of `-∞`
/// removes gets zeros, whatever its value holds; what is not removed counts, with a weight of 0 too. Nothing is saved by the
/// forward pass.
///
/// Source: FlashAttention, arXiv 2205.14135, appendix B.2, and the derivatives of the other weightings.
///
/// # Errors
/// Those of [`TargetAttention::check`]; [`Error::Shape`] for a `grad_out` or `grad_lse` of the wrong length;
/// [`Error::Unsupported`] for a `grad_lse` without softmax.
pub fn target_attention_backward<T: Element>(
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, T>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<TargetAttentionGradientReference> {
    attention_in_f32(NAME, inputs, |inputs| attention_backward(op, batch, inputs, grad_out, grad_lse))
}

/// [`target_attention_backward`] of widened inputs.
fn attention_backward(
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, f32>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<TargetAttentionGradientReference> {
    op.check_in(NAME, batch, inputs)?;
    check_gradients(NAME, op, batch, grad_out, grad_lse)?;
    let scale = f64::from(op.effective_scale());
    let values = inputs.values.unwrap_or(inputs.keys);
    let zeros = |length: usize| filled(NAME, length, 0.0);
    let mut queries = zeros(inputs.queries.len())?;
    let mut keys = zeros(inputs.keys.len())?;
    let mut grad_values = inputs.values.map(|values| zeros(values.len())).transpose()?;
    let mut bias = inputs.bias.map(|bias| zeros(bias.len())).transpose()?;
    for (history, targets) in batch.requests() {
        for m in targets {
            for h in 0..op.heads {
                let mh = m * op.heads + h;
                let kv_row = |l: usize| l * op.kv_heads + op.kv_head(h);
                let q = row(&inputs.queries, mh, op.width);
                let dout = &grad_out[mh * op.value_width..(mh + 1) * op.value_width];
                let dlse = grad_lse.map_or(0.0, |grad_lse| grad_lse[mh]);
                let scores = scores(op, inputs, &q, history.clone(), h);
                let grad_weight =
                    |index: usize| dot(dout, &row(&values, kv_row(history.start + index), op.value_width));
                let pairs = pairs(op.weighting, &scores, grad_weight, dlse);
                for (l, pair) in history.clone().zip(pairs) {
                    let Some((weight, grad_score)) = pair else { continue };
                    let (k, v) = (kv_row(l) * op.width, kv_row(l) * op.value_width);
                    let factor = Some(scale * grad_score);
                    let grad_values = grad_values.as_mut().unwrap_or(&mut keys);
                    add_weighted(&mut grad_values[v..v + op.value_width], Some(weight), || dout.to_vec());
                    add_weighted(&mut keys[k..k + op.width], factor, || q.clone());
                    let dq = &mut queries[mh * op.width..(mh + 1) * op.width];
                    add_weighted(dq, factor, || row(&inputs.keys, kv_row(l), op.width));
                    if let Some(bias) = &mut bias {
                        bias[l * op.heads + h] += grad_score;
                    }
                }
            }
        }
    }
    Ok(TargetAttentionGradientReference { queries, keys, values: grad_values, bias })
}

/// Checks the gradients that come in.
fn check_gradients(
    operation: &'static str,
    op: &TargetAttention,
    batch: &Batch,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<()> {
    let shape = [dim("M", batch.targets().rows()), dim("H", op.heads), dim("d_v", op.value_width)];
    expect(operation, "grad_out", grad_out.len(), &shape)?;
    if let Some(grad_lse) = grad_lse {
        expect(operation, "grad_lse", grad_lse.len(), &shape[..2])?;
        if op.weighting != Weighting::Softmax {
            return Err(Error::Unsupported {
                operation,
                what: format!("grad_lse with {:?} weights", op.weighting),
                supported: "grad_lse with Softmax weights".into(),
            });
        }
    }
    Ok(())
}

/// For each behaviour its weight and the gradient of its score, `None` where it is removed. `grad_weight(i)` is the gradient of
/// the weight of behaviour `i`, asked only of those that are not removed.
fn pairs(
    weighting: Weighting,
    scores: &[f64],
    grad_weight: impl Fn(usize) -> f64,
    grad_lse: f64,
) -> Vec<Option<(f64, f64)>> {
    let (weights, _) = weights(weighting, scores);
    if weighting == Weighting::Softmax {
        let grads = softmax_backward(&weights, grad_weight, grad_lse);
        return weights.into_iter().zip(grads).map(|(weight, grad)| weight.zip(grad)).collect();
    }
    let pair = |(index, weight): (usize, Option<f64>)| {
        Some((weight?, derivative(weighting, scores[index], scores.len()) * grad_weight(index)))
    };
    weights.into_iter().enumerate().map(pair).collect()
}

/// The derivative of a weight by its score, of the weightings in which a score changes its own weight alone.
fn derivative(weighting: Weighting, s: f64, behaviours: usize) -> f64 {
    match weighting {
        Weighting::Relu if s > 0.0 => 1.0,
        Weighting::Relu if s.is_nan() => s,
        Weighting::Relu => 0.0,
        Weighting::Silu { divisor } => {
            sigmoid(s) * (1.0 + s * sigmoid(-s)) / silu_divisor(divisor, behaviours)
        }
        Weighting::Softmax | Weighting::Identity => 1.0,
    }
}

/// The gradients of [`merge_attention`](crate::reference::merge_attention) in `f64`, of the first and the second part.
///
/// `grad_out` is the gradient of the merged output, `[M, H, d_v]`; `grad_lse` that of the merged log-sum-exp, `[M, H]`, where one
/// comes in. With the parts' weights `w_i = exp(lse_i − lse)`:
///
/// ```text
/// dout_i = w_i·grad_out            dlse_i = w_i·(⟨grad_out, out_i⟩ − ⟨grad_out, out⟩ + grad_lse)
/// ```
///
/// A part whose log-sum-exp is `-∞` gets zeros, whatever its row holds. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`TargetAttention::check_merge`]; [`Error::Shape`] for a `grad_out` or `grad_lse` of the wrong length.
pub fn merge_attention_backward<T: Element>(
    op: &TargetAttention,
    first: PartialAttention<'_, Host, T>,
    second: PartialAttention<'_, Host, T>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<(PartialAttentionGradientReference, PartialAttentionGradientReference)> {
    let rows = op.check_merge_in(MERGE, &first, &second)?;
    let outs = [wide(MERGE, &first.out)?, wide(MERGE, &second.out)?];
    merge_backward(op, rows, &outs, [&first.lse, &second.lse], (grad_out, grad_lse))
}

/// [`merge_attention_backward`] of widened rows.
fn merge_backward(
    op: &TargetAttention,
    rows: usize,
    outs: &[Vec<f32>; 2],
    lses: [&[f32]; 2],
    (grad_out, grad_lse): (&[f64], Option<&[f64]>),
) -> Result<(PartialAttentionGradientReference, PartialAttentionGradientReference)> {
    let width = op.value_width;
    let shape = [dim("M·H", rows), dim("d_v", width)];
    expect(MERGE, "grad_out", grad_out.len(), &shape)?;
    if let Some(grad_lse) = grad_lse {
        expect(MERGE, "grad_lse", grad_lse.len(), &shape[..1])?;
    }
    let zeros = || -> Result<PartialAttentionGradientReference> {
        let (out, lse) = (filled(MERGE, grad_out.len(), 0.0)?, filled(MERGE, rows, 0.0)?);
        Ok(PartialAttentionGradientReference { out, lse })
    };
    let mut grads = [zeros()?, zeros()?];
    for m in 0..rows {
        let dout = &grad_out[m * width..(m + 1) * width];
        let dlse = grad_lse.map_or(0.0, |grad_lse| grad_lse[m]);
        let (weights, _) = softmax(&lses.map(|lses| f64::from(lses[m])));
        let grad_lses = softmax_backward(&weights, |part| dot(dout, &row(&outs[part], m, width)), dlse);
        for (part, grad) in grads.iter_mut().enumerate() {
            add_weighted(&mut grad.out[m * width..(m + 1) * width], weights[part], || dout.to_vec());
            grad.lse[m] = grad_lses[part].unwrap_or(0.0);
        }
    }
    let [first, second] = grads;
    Ok((first, second))
}
