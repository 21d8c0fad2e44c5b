//! The reference of what runs over a selection. Formulas: [`SelectedAttention`], [`SimilarityHistogram`].

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{add_weighted, dot, row, softmax};
use crate::reference::lookup::concatenate;
use crate::reference::search::search_scores;
use crate::reference::target_attention::TargetAttentionReference;
use crate::reference::widened::selected_in_f32;

const NAME: &str = "selected_attention";

/// Attention over a selection in `f64`: the output and the log-sum-exp.
///
/// # Errors
/// Those of [`SelectedAttention::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a count above `K` or a counted position
/// outside its history.
pub fn selected_attention<T: Element>(
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &SelectedAttentionInputs<'_, Host, T>,
) -> Result<TargetAttentionReference> {
    selected_in_f32(NAME, inputs, |inputs| {
        op.check(batch, inputs)?;
        attention(NAME, op, batch, &Given::of(inputs))
    })
}

/// Rows of all behaviours: given, or looked up by their ids.
#[derive(Clone, Copy)]
pub(super) enum Behaviours<'a> {
    Rows(&'a [f32]),
    Tables(&'a [Table<'a, Host>], &'a [u32]),
}

impl Behaviours<'_> {
    /// The row of a head of a behaviour, which has `heads` of this width.
    pub(super) fn row(&self, behaviour: usize, (head, heads, width): (usize, usize, usize)) -> Vec<f64> {
        match self {
            Self::Rows(rows) => row(rows, behaviour * heads + head, width),
            Self::Tables(tables, ids) => {
                let features = tables.len();
                let all = concatenate(tables, &ids[behaviour * features..(behaviour + 1) * features]);
                all[head * width..(head + 1) * width].to_vec()
            }
        }
    }
}

/// What attention over a selection reads.
pub(super) struct Given<'a> {
    pub(super) queries: &'a [f32],
    pub(super) keys: Behaviours<'a>,
    pub(super) values: Behaviours<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) gammas: Option<&'a [f32]>,
    selection: Selection<'a, Host>,
}

impl<'a> Given<'a> {
    pub(super) fn of(inputs: &SelectedAttentionInputs<'a, Host, f32>) -> Self {
        Self {
            queries: inputs.queries.as_slice(),
            keys: Behaviours::Rows(inputs.keys.as_slice()),
            values: Behaviours::Rows(inputs.values.unwrap_or(inputs.keys).as_slice()),
            bias: inputs.bias.map(|bias| bias.as_slice()),
            gammas: inputs.gammas.map(|gammas| gammas.as_slice()),
            selection: inputs.selection,
        }
    }

    pub(super) fn of_tables(inputs: &SelectedTableInputs<'a, Host, f32>) -> Self {
        let ids = inputs.history_ids.as_slice();
        let values = Behaviours::Tables(inputs.values, ids);
        Self {
            queries: inputs.queries.as_slice(),
            keys: match inputs.keys {
                SelectedKeys::Rows(keys) => Behaviours::Rows(keys.as_slice()),
                SelectedKeys::Tables(tables) => Behaviours::Tables(tables, ids),
                SelectedKeys::Values => values,
            },
            values,
            bias: inputs.bias.map(|bias| bias.as_slice()),
            gammas: inputs.gammas.map(|gammas| gammas.as_slice()),
            selection: inputs.selection,
        }
    }
}

/// Attention over a selection whose arguments are checked, but for the selection's numbers.
pub(super) fn attention(
    operation: &'static str,
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &Given<'_>,
) -> Result<TargetAttentionReference> {
    inputs.selection.check_host(operation, batch, op.top_k)?;
    let rows = batch.targets().rows() * op.heads;
    let mut out = filled(operation, op.output_length(batch)?, 0.0)?;
    let mut lse = filled(operation, rows, f64::NEG_INFINITY)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            for h in 0..op.heads {
                let mh = m * op.heads + h;
                let kept = kept(op, inputs, history.clone(), m, h);
                let alphas: Vec<f64> = kept.iter().map(|kept| kept.alpha).collect();
                let (weights, lse_mh) = softmax(&alphas);
                lse[mh] = lse_mh;
                let out = &mut out[mh * op.value_width..(mh + 1) * op.value_width];
                let head = (op.kv_head(h), op.kv_heads, op.value_width);
                for (kept, weight) in kept.iter().zip(weights) {
                    add_weighted(out, weight, || inputs.values.row(kept.behaviour, head));
                }
            }
        }
    }
    Ok(TargetAttentionReference { out, lse })
}

/// A kept behaviour as a candidate's head sees it.
pub(super) struct Kept {
    /// The behaviour's row.
    pub(super) behaviour: usize,
    /// Its slot in the selection.
    pub(super) slot: usize,
    /// `s`, whether it is left out of `α` or not.
    pub(super) score: f64,
    /// `R`.
    pub(super) similarity: f64,
    /// `α`, `-∞` if the behaviour is removed.
    pub(super) alpha: f64,
}

/// `γ₁`, `γ₂`, `γ₃` of a head.
pub(super) fn gammas(inputs: &Given<'_>, h: usize) -> [f64; 3] {
    inputs.gammas.map_or([1.0, 0.0, 0.0], |gammas| [0, 1, 2].map(|i| gammas[3 * h + i].into()))
}

/// `factor·number`, or nothing if the factor is 0.
pub(super) fn term(factor: f64, number: f64) -> f64 {
    if factor == 0.0 { 0.0 } else { factor * number }
}

/// The behaviours that candidate `m` keeps, in the order of their slots.
pub(super) fn kept(
    op: &SelectedAttention,
    inputs: &Given<'_>,
    history: Range<usize>,
    m: usize,
    h: usize,
) -> Vec<Kept> {
    let selection = &inputs.selection;
    let q = row(inputs.queries, m * op.heads + h, op.width);
    let [first, second, third] = gammas(inputs, h);
    let uses_scores = first != 0.0 || third != 0.0;
    let slot = |slot: usize| {
        let behaviour = history.start + selection.positions[slot] as usize;
        let key = inputs.keys.row(behaviour, (op.kv_head(h), op.kv_heads, op.width));
        let bias = inputs.bias.map_or(0.0, |bias| f64::from(bias[behaviour * op.heads + h]));
        let score = f64::from(op.effective_scale()) * dot(&q, &key) + bias;
        let similarity = f64::from(selection.scores[slot]);
        let is_removed =
            [bias, similarity].contains(&f64::NEG_INFINITY) || uses_scores && score == f64::NEG_INFINITY;
        let alpha = term(first, score) + term(second, similarity) + term(third, score * similarity);
        let alpha = if is_removed { f64::NEG_INFINITY } else { alpha };
        Kept { behaviour, slot, score, similarity, alpha }
    };
    (m * op.top_k..).take(selection.counts[m] as usize).map(slot).collect()
}

/// Histograms of a selection's similarities, `[M, 2n + 1]`.
///
/// # Errors
/// Those of [`SimilarityHistogram::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a count above `K`.
pub fn similarity_histogram(
    op: &SimilarityHistogram,
    batch: &Batch,
    selection: &Selection<'_, Host>,
) -> Result<Vec<u32>> {
    const NAME: &str = "similarity_histogram";
    op.check(batch, selection)?;
    selection.check_counts(NAME, batch, op.top_k)?;
    let mut out = filled(NAME, op.output_length(batch)?, 0)?;
    for m in batch.targets().ranges().flatten() {
        let slots = m * op.top_k..m * op.top_k + selection.counts[m] as usize;
        for bin in selection.scores[slots].iter().filter_map(|&similarity| op.bin(similarity)) {
            out[m * op.bins() + bin] += 1;
        }
    }
    Ok(out)
}

/// Histograms of the similarities of each user's newest behaviours, `[M, 2n + 1]`. Similarities are rounded to `f32`.
///
/// # Errors
/// Those of [`SimilarityHistogram::check_newest`].
pub fn newest_histogram(
    op: &SimilarityHistogram,
    search: &Search,
    batch: &Batch,
    inputs: &SimilarityInputs<'_, Host>,
) -> Result<Vec<u32>> {
    op.check_newest(search, batch, inputs)?;
    let mut out = filled("newest_histogram", op.output_length(batch)?, 0)?;
    for (history, targets) in batch.requests() {
        let newest = history.end.saturating_sub(op.top_k).max(history.start)..history.end;
        for m in targets {
            let similarities = search_scores(search, inputs, newest.clone(), m).into_iter().flatten();
            for bin in similarities.filter_map(|similarity| op.bin(similarity as f32)) {
                out[m * op.bins() + bin] += 1;
            }
        }
    }
    Ok(out)
}
