//! The reference of the gradients of attention over a selection. Formula: [`selected_attention_backward`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{add_weighted, dot, row, softmax, softmax_backward};
use crate::reference::selected::{Kept, gammas, kept, term};
use crate::reference::widened::selected_in_f32;

const NAME: &str = "selected_attention_backward";

/// Exact gradients of attention over a selection, in the shapes of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SelectedAttentionGradientReference {
    /// `[M, H, d]`.
    pub queries: Vec<f64>,
    /// `[N, H_kv, d]`; where the keys are the values, the sum of both gradients.
    pub keys: Vec<f64>,
    /// `[N, H_kv, d_v]`; `None` where the keys are the values.
    pub values: Option<Vec<f64>>,
    /// `[N, H]`; `None` without a bias.
    pub bias: Option<Vec<f64>>,
    /// `[H, 3]`; `None` without `gammas`.
    pub gammas: Option<Vec<f64>>,
    /// `[M, K]`; zeros in empty slots.
    pub similarities: Vec<f64>,
}

/// The gradients of [`selected_attention`](crate::reference::selected_attention) in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, H, d_v]`; `grad_lse` that of the log-sum-exp, `[M, H]`, where one comes in. With the
/// weights `w` of one candidate and head, over its kept behaviours `l`:
///
/// ```text
/// dw_l = ⟨grad_out, v_l⟩            D = Σ w_l·dw_l
/// dα_l = w_l·(dw_l − D + grad_lse)
/// ds_l = dα_l·(γ₁ + γ₃·R_l)         dR[m,l] = Σ_h dα_l·(γ₂ + γ₃·s_l)
/// dγ[h] = Σ dα_l·(s_l, R_l, s_l·R_l)        over all candidates
/// dv_l = Σ w_l·grad_out   dk_l = scale·Σ ds_l·q   dq = scale·Σ_l ds_l·k_l   dbias[l,h] = Σ_m ds_l
/// ```
///
/// A removed behaviour gets zeros, whatever it holds; what is not removed counts, with a weight of 0 too. Terms that a γ of 0 leaves out
/// of `α` are left out of `ds` and `dR` as well; `dγ` has all three. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`selected_attention`](crate::reference::selected_attention); [`Error::Shape`](crate::Error::Shape) for a `grad_out` or
/// `grad_lse` of the wrong length.
pub fn selected_attention_backward<T: Element>(
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &SelectedAttentionInputs<'_, Host, T>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<SelectedAttentionGradientReference> {
    selected_in_f32(NAME, inputs, |inputs| backward(op, batch, inputs, grad_out, grad_lse))
}

/// [`selected_attention_backward`] of widened inputs.
fn backward(
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &SelectedAttentionInputs<'_, Host, f32>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<SelectedAttentionGradientReference> {
    op.check_backward_in(batch, inputs, grad_out.len(), grad_lse.map(<[f64]>::len))?;
    inputs.selection.check_host(NAME, batch, op.top_k)?;
    let zeros = |length: usize| filled(NAME, length, 0.0);
    let mut grads = SelectedAttentionGradientReference {
        queries: zeros(inputs.queries.len())?,
        keys: zeros(inputs.keys.len())?,
        values: inputs.values.map(|values| zeros(values.len())).transpose()?,
        bias: inputs.bias.map(|bias| zeros(bias.len())).transpose()?,
        gammas: inputs.gammas.map(|gammas| zeros(gammas.len())).transpose()?,
        similarities: zeros(inputs.selection.scores.len())?,
    };
    let values = inputs.values.unwrap_or(inputs.keys);
    for (history, targets) in batch.requests() {
        for m in targets {
            for h in 0..op.heads {
                let mh = m * op.heads + h;
                let dout = &grad_out[mh * op.value_width..(mh + 1) * op.value_width];
                let dlse = grad_lse.map_or(0.0, |grad_lse| grad_lse[mh]);
                let kept = kept(op, inputs, history.clone(), m, h);
                let alphas: Vec<f64> = kept.iter().map(|kept| kept.alpha).collect();
                let (weights, _) = softmax(&alphas);
                let kv_row = |index: usize| kept[index].behaviour * op.kv_heads + op.kv_head(h);
                let grad_weight = |index: usize| dot(dout, &row(&values, kv_row(index), op.value_width));
                let grad_alphas = softmax_backward(&weights, grad_weight, dlse);
                for (kept, pair) in kept.iter().zip(weights.iter().zip(grad_alphas)) {
                    if let (Some(weight), Some(grad_alpha)) = pair {
                        grads.add(op, inputs, (mh, h), dout, (kept, *weight, grad_alpha));
                    }
                }
            }
        }
    }
    Ok(grads)
}

impl SelectedAttentionGradientReference {
    /// Adds what one kept behaviour of one query contributes.
    fn add(
        &mut self,
        op: &SelectedAttention,
        inputs: &SelectedAttentionInputs<'_, Host, f32>,
        (mh, h): (usize, usize),
        dout: &[f64],
        (kept, weight, grad_alpha): (&Kept, f64, f64),
    ) {
        let (s, r) = (kept.score, kept.similarity);
        let [first, second, third] = gammas(inputs, h);
        let kv_row = kept.behaviour * op.kv_heads + op.kv_head(h);
        let (k, v) = (kv_row * op.width, kv_row * op.value_width);
        let values = self.values.as_mut().unwrap_or(&mut self.keys);
        add_weighted(&mut values[v..v + op.value_width], Some(weight), || dout.to_vec());
        if let Some(gammas) = &mut self.gammas {
            for (grad, factor) in gammas[3 * h..3 * h + 3].iter_mut().zip([s, r, s * r]) {
                *grad += grad_alpha * factor;
            }
        }
        if second != 0.0 || third != 0.0 {
            self.similarities[kept.slot] += grad_alpha * (second + term(third, s));
        }
        if first != 0.0 || third != 0.0 {
            let grad_score = grad_alpha * (first + term(third, r));
            let factor = Some(f64::from(op.effective_scale()) * grad_score);
            let query = || row(&inputs.queries, mh, op.width);
            add_weighted(&mut self.keys[k..k + op.width], factor, query);
            let dq = &mut self.queries[mh * op.width..(mh + 1) * op.width];
            add_weighted(dq, factor, || row(&inputs.keys, kv_row, op.width));
            if let Some(bias) = &mut self.bias {
                bias[kept.behaviour * op.heads + h] += grad_score;
            }
        }
    }
}
