//! The reference of decoupled embeddings. Formula: [`Decoupled`].

use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{add_weighted, dot, softmax};
use crate::reference::lookup::{concatenate, table_row};

/// An exact selection.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionReference {
    /// `[M, K]`: positions within the user's history, [`EMPTY_SLOT`] after the last one kept.
    pub positions: Vec<u32>,
    /// `[M, K]`: their scores, `-∞` after the last one kept.
    pub scores: Vec<f64>,
    /// `[M]`: the number of behaviours kept.
    pub counts: Vec<u32>,
}

/// The best behaviours of each candidate.
///
/// # Errors
/// Those of [`Decoupled::check_search`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
pub fn decoupled_search(
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
) -> Result<SelectionReference> {
    const NAME: &str = "decoupled_search";
    let slots = op.selection_length(batch)?;
    let candidates = batch.targets().rows();
    let top_k = op.check_search(batch, inputs)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let mut kept = SelectionReference {
        positions: filled(NAME, slots, EMPTY_SLOT)?,
        scores: filled(NAME, slots, f64::NEG_INFINITY)?,
        counts: filled(NAME, candidates, 0)?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let best = ranked(&scores_of(op, inputs, history.clone(), m), top_k);
            kept.counts[m] = best.len() as u32;
            for (slot, (position, score)) in best.into_iter().enumerate() {
                kept.positions[m * top_k + slot] = position as u32;
                kept.scores[m * top_k + slot] = score;
            }
        }
    }
    Ok(kept)
}

/// The softmax-weighted sum over a selection, `[M, Σ r]`.
///
/// # Errors
/// Those of [`Decoupled::check_aggregate`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for ids by [`IdPolicy`], and always for a
/// count above `K` or a counted position outside its history.
pub fn decoupled_aggregate(
    op: &Decoupled,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    selection: &Selection<'_, Host>,
) -> Result<Vec<f64>> {
    const NAME: &str = "decoupled_aggregate";
    let top_k = op.check_aggregate(batch, inputs, selection)?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.representation, &inputs.history_ids, &inputs.target_ids)?;
    let mut out = filled(NAME, op.output_length(batch, inputs.representation)?, 0.0)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            let slots = m * top_k..m * top_k + selection.counts[m] as usize;
            let kept =
                selection.positions[slots.clone()].iter().map(|&position| history.start + position as usize);
            let scores: Vec<f64> = selection.scores[slots].iter().map(|&score| score.into()).collect();
            aggregate_into(op, inputs, m, kept, &scores, &mut out);
        }
    }
    Ok(out)
}

/// Search and aggregation in one, without rounding the scores to `f32` in between, `[M, Σ r]`.
///
/// # Errors
/// Those of [`Decoupled::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
pub fn decoupled_attend(
    op: &Decoupled,
    batch: &Batch,
    inputs: &DecoupledInputs<'_, Host>,
) -> Result<Vec<f64>> {
    const NAME: &str = "decoupled_attend";
    op.check_attend(batch, inputs)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let mut out = filled(NAME, op.output_length(batch, inputs.representation)?, 0.0)?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let search = SearchInputs { attention, history_ids, target_ids };
    let aggregate = AggregateInputs { representation, history_ids, target_ids };
    for (history, targets) in batch.requests() {
        for m in targets {
            let scores = scores_of(op, &search, history.clone(), m);
            let best = ranked(&scores, op.top_k.unwrap_or(usize::MAX));
            let kept = best.iter().map(|&(position, _)| history.start + position);
            let scores: Vec<f64> = best.iter().map(|&(_, score)| score).collect();
            aggregate_into(op, &aggregate, m, kept, &scores, &mut out);
        }
    }
    Ok(out)
}

/// The scores of one candidate against each behaviour of a history.
pub(super) fn scores_of(
    op: &Decoupled,
    inputs: &SearchInputs<'_, Host>,
    history: std::ops::Range<usize>,
    m: usize,
) -> Vec<f64> {
    let features = op.features();
    let score = |l: usize| {
        let term = |f: usize| {
            let target = table_row(&inputs.attention[f], inputs.target_ids[m * features + f]);
            let behaviour = table_row(&inputs.attention[f], inputs.history_ids[l * features + f]);
            f64::from(op.scales[f]) * dot(&target, &behaviour)
        };
        (0..features).map(term).sum()
    };
    history.map(score).collect()
}

/// The `top_k` best (position, score): score descending, then position ascending, NaN last.
pub(super) fn ranked(scores: &[f64], top_k: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| match (a.1.is_nan(), b.1.is_nan()) {
        // Not total_cmp: it would order -0 after +0, which are equal scores.
        (false, false) => b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(&b.0)),
        (a_nan, b_nan) => a_nan.cmp(&b_nan).then(a.0.cmp(&b.0)),
    });
    order.truncate(top_k);
    order
}

/// Adds the weighted rows of the kept behaviours to the output of candidate `m`.
fn aggregate_into(
    op: &Decoupled,
    inputs: &AggregateInputs<'_, Host>,
    m: usize,
    kept: impl Iterator<Item = usize>,
    scores: &[f64],
    out: &mut [f64],
) {
    let features = op.features();
    let width = total_width(inputs.representation);
    let out = &mut out[m * width..(m + 1) * width];
    for (l, w) in kept.zip(softmax(scores).0) {
        let ids = &inputs.history_ids[l * features..(l + 1) * features];
        add_weighted(out, w, || concatenate(inputs.representation, ids));
    }
    if op.multiply_target {
        let target = concatenate(inputs.representation, &inputs.target_ids[m * features..(m + 1) * features]);
        for (out, r) in out.iter_mut().zip(target) {
            *out *= r;
        }
    }
}
