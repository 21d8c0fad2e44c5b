//! The reference of attention over a selection whose values are rows of embedding tables, and of its gradients. Formulas:
//! [`SelectedOps::selected_table_attention_into`].

use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::lookup_backward::SparseGradientReference;
use crate::reference::selected::{Given, attention};
use crate::reference::selected_backward::{RowSums, Sums};
use crate::reference::target_attention::TargetAttentionReference;
use crate::reference::widened::selected_tables_in_f32;

const NAME: &str = "selected_table_attention";
const BACKWARD: &str = "selected_table_attention_backward";

/// Attention over a selection from tables in `f64`: the output and the log-sum-exp. Rows are looked up, and those of 8-bit tables decoded,
/// in `f64`.
///
/// # Errors
/// Those of [`SelectedAttention::check_tables`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a count above `K`, a counted
/// position outside its history, and, by [`IdPolicy`], for an id outside its table.
pub fn selected_table_attention<T: Element>(
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &SelectedTableInputs<'_, Host, T>,
) -> Result<TargetAttentionReference> {
    selected_tables_in_f32(NAME, inputs, |inputs| {
        op.check_tables(batch, inputs)?;
        op.check_history_ids(NAME, batch, inputs)?;
        attention(NAME, op, batch, &Given::of_tables(inputs))
    })
}

/// Exact gradients of attention over a selection from tables.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SelectedTableGradientReference {
    /// `[M, H, d]`.
    pub queries: Vec<f64>,
    /// `[N, H_kv, d]`; empty unless keys are rows.
    pub keys: Vec<f64>,
    /// One for each table of keys.
    pub key_tables: Vec<SparseGradientReference>,
    /// One for each table of values; where the values are the keys, the sums of both gradients.
    pub values: Vec<SparseGradientReference>,
    /// `[N, H]`; `None` without a bias.
    pub bias: Option<Vec<f64>>,
    /// `[H, 3]`; `None` without `gammas`.
    pub gammas: Option<Vec<f64>>,
    /// `[M, K]`; zeros in empty slots.
    pub similarities: Vec<f64>,
}

/// The gradients of [`selected_table_attention`] in `f64`: those of
/// [`selected_attention_backward`](crate::reference::selected_attention_backward), of which each table's are added up by id.
///
/// The gradient of a table has rows for the ids of the kept behaviours that some head counts; of a table of keys, some head whose scores
/// count (`γ₁` or `γ₃` is not 0). Ids outside their table (possible only with [`IdPolicy::Zero`]) have none. The gradient of an int8 table is
/// that of its decoded rows.
///
/// # Errors
/// Those of [`selected_table_attention`]; [`Error::Shape`](crate::Error::Shape) for a `grad_out` or `grad_lse` of the wrong length.
pub fn selected_table_attention_backward<T: Element>(
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &SelectedTableInputs<'_, Host, T>,
    grad_out: &[f64],
    grad_lse: Option<&[f64]>,
) -> Result<SelectedTableGradientReference> {
    selected_tables_in_f32(BACKWARD, inputs, |inputs| {
        op.check_tables_in(BACKWARD, batch, inputs)?;
        op.check_grad_out(BACKWARD, batch, grad_out.len(), grad_lse.map(<[f64]>::len))?;
        inputs.selection.check_host(BACKWARD, batch, op.top_k)?;
        op.check_history_ids(BACKWARD, batch, inputs)?;
        let given = Given::of_tables(inputs);
        let is_aliased = matches!(inputs.keys, SelectedKeys::Values);
        let mut sums = Sums::new(BACKWARD, &given, is_aliased, inputs.selection.scores.len())?;
        sums.add_all(op, batch, &given, grad_out, grad_lse)?;
        let Sums { queries, keys, values, bias, gammas, similarities } = sums;
        let (keys, key_tables, values) = match (keys, values) {
            (keys @ RowSums::Rows(_), values) => (keys.into_rows(), Vec::new(), values),
            (keys, None) => (Vec::new(), Vec::new(), Some(keys)),
            (keys, values) => (Vec::new(), keys.into_tables()?, values),
        };
        let values = values.map(RowSums::into_tables).transpose()?.unwrap_or_default();
        Ok(SelectedTableGradientReference { queries, keys, key_tables, values, bias, gammas, similarities })
    })
}
