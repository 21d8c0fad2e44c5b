//! The reference of the gradients of attention over a selection. Formula: [`selected_attention_backward`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{add_weighted, dot, row, softmax, softmax_backward};
use crate::reference::lookup_backward::{SparseGradientReference, TableSums};
use crate::reference::selected::{Behaviours, Given, Kept, gammas, kept, term};
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
    selected_in_f32(NAME, inputs, |inputs| {
        op.check_backward_in(batch, inputs, grad_out.len(), grad_lse.map(<[f64]>::len))?;
        inputs.selection.check_host(NAME, batch, op.top_k)?;
        let given = Given::of(inputs);
        let mut sums = Sums::new(NAME, &given, inputs.values.is_none(), inputs.selection.scores.len())?;
        sums.add_all(op, batch, &given, grad_out, grad_lse)?;
        let Sums { queries, keys, values, bias, gammas, similarities } = sums;
        let values = values.map(RowSums::into_rows);
        let keys = keys.into_rows();
        Ok(SelectedAttentionGradientReference { queries, keys, values, bias, gammas, similarities })
    })
}

/// Sums of gradients of behaviours' rows: of each, or by the ids of each.
pub(super) enum RowSums<'a> {
    Rows(Vec<f64>),
    Tables(TableSums, &'a [u32]),
}

impl<'a> RowSums<'a> {
    /// No sums yet.
    fn of(operation: &'static str, behaviours: Behaviours<'a>) -> Result<Self> {
        Ok(match behaviours {
            Behaviours::Rows(rows) => Self::Rows(filled(operation, rows.len(), 0.0)?),
            Behaviours::Tables(tables, ids) => Self::Tables(TableSums::of(operation, tables), ids),
        })
    }

    /// Adds `factor · row` to the row of a head of a behaviour, which has `heads` of this width.
    fn add(
        &mut self,
        behaviour: usize,
        (head, heads, width): (usize, usize, usize),
        factor: f64,
        row: &[f64],
    ) -> Result<()> {
        match self {
            Self::Rows(sums) => {
                let start = (behaviour * heads + head) * width;
                add_weighted(&mut sums[start..start + width], Some(factor), || row.to_vec());
                Ok(())
            }
            Self::Tables(sums, ids) => {
                // The rows of the tables make those of all heads: the others get zeros.
                let mut all = vec![0.0; heads * width];
                add_weighted(&mut all[head * width..(head + 1) * width], Some(factor), || row.to_vec());
                let features = sums.len();
                let ids = &ids[behaviour * features..(behaviour + 1) * features];
                sums.add_concatenated(ids, 1.0, &all)
            }
        }
    }

    /// Those of each behaviour; empty for tables.
    pub(super) fn into_rows(self) -> Vec<f64> {
        match self {
            Self::Rows(sums) => sums,
            Self::Tables(..) => Vec::new(),
        }
    }

    /// Those of tables; empty for rows.
    pub(super) fn into_tables(self) -> Result<Vec<SparseGradientReference>> {
        match self {
            Self::Rows(_) => Ok(Vec::new()),
            Self::Tables(sums, _) => sums.finish(),
        }
    }
}

/// Sums of all gradients.
pub(super) struct Sums<'a> {
    pub(super) queries: Vec<f64>,
    /// Where the keys are the values, of both.
    pub(super) keys: RowSums<'a>,
    pub(super) values: Option<RowSums<'a>>,
    pub(super) bias: Option<Vec<f64>>,
    pub(super) gammas: Option<Vec<f64>>,
    pub(super) similarities: Vec<f64>,
}

impl<'a> Sums<'a> {
    /// No sums yet, of a selection of so many slots.
    pub(super) fn new(
        operation: &'static str,
        given: &Given<'a>,
        is_aliased: bool,
        slots: usize,
    ) -> Result<Self> {
        let zeros = |length: usize| filled(operation, length, 0.0);
        let values = (!is_aliased).then(|| RowSums::of(operation, given.values)).transpose()?;
        Ok(Self {
            queries: zeros(given.queries.len())?,
            keys: RowSums::of(operation, given.keys)?,
            values,
            bias: given.bias.map(|bias| zeros(bias.len())).transpose()?,
            gammas: given.gammas.map(|gammas| zeros(gammas.len())).transpose()?,
            similarities: zeros(slots)?,
        })
    }

    /// Adds what every candidate contributes.
    pub(super) fn add_all(
        &mut self,
        op: &SelectedAttention,
        batch: &Batch,
        given: &Given<'_>,
        grad_out: &[f64],
        grad_lse: Option<&[f64]>,
    ) -> Result<()> {
        for (history, targets) in batch.requests() {
            for m in targets {
                for h in 0..op.heads {
                    let mh = m * op.heads + h;
                    let dout = &grad_out[mh * op.value_width..(mh + 1) * op.value_width];
                    let dlse = grad_lse.map_or(0.0, |grad_lse| grad_lse[mh]);
                    let kept = kept(op, given, history.clone(), m, h);
                    let alphas: Vec<f64> = kept.iter().map(|kept| kept.alpha).collect();
                    let (weights, _) = softmax(&alphas);
                    let head = (op.kv_head(h), op.kv_heads, op.value_width);
                    let grad_weight =
                        |index: usize| dot(dout, &given.values.row(kept[index].behaviour, head));
                    let grad_alphas = softmax_backward(&weights, grad_weight, dlse);
                    for (kept, pair) in kept.iter().zip(weights.iter().zip(grad_alphas)) {
                        if let (Some(weight), Some(grad_alpha)) = pair {
                            self.add(op, given, (mh, h), dout, (kept, *weight, grad_alpha))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what one kept behaviour of one query contributes.
    fn add(
        &mut self,
        op: &SelectedAttention,
        given: &Given<'_>,
        (mh, h): (usize, usize),
        dout: &[f64],
        (kept, weight, grad_alpha): (&Kept, f64, f64),
    ) -> Result<()> {
        let (s, r) = (kept.score, kept.similarity);
        let [first, second, third] = gammas(given, h);
        let values = self.values.as_mut().unwrap_or(&mut self.keys);
        values.add(kept.behaviour, (op.kv_head(h), op.kv_heads, op.value_width), weight, dout)?;
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
            let factor = f64::from(op.effective_scale()) * grad_score;
            let head = (op.kv_head(h), op.kv_heads, op.width);
            self.keys.add(kept.behaviour, head, factor, &row(given.queries, mh, op.width))?;
            let dq = &mut self.queries[mh * op.width..(mh + 1) * op.width];
            add_weighted(dq, Some(factor), || given.keys.row(kept.behaviour, head));
            if let Some(bias) = &mut self.bias {
                bias[kept.behaviour * op.heads + h] += grad_score;
            }
        }
        Ok(())
    }
}
