//! The reference of the gradients of decoupled embeddings. Formula: [`decoupled_attend_backward`].

use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{dot, softmax, softmax_backward};
use crate::reference::decoupled::{ranked, scores_of};
use crate::reference::lookup::{concatenate, table_row};
use crate::reference::lookup_backward::{SparseGradientReference, TableSums};

/// Exact gradients of an aggregation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecoupledAggregateGradientReference {
    /// One for each representation table.
    pub representation: Vec<SparseGradientReference>,
    /// `[M, K]`: those of the selection's scores; zeros in empty slots.
    pub scores: Vec<f64>,
}

/// Exact gradients of decoupled embeddings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecoupledGradientReference {
    /// One for each attention table.
    pub attention: Vec<SparseGradientReference>,
    /// One for each representation table.
    pub representation: Vec<SparseGradientReference>,
}

/// The gradients of [`decoupled_aggregate`](crate::reference::decoupled_aggregate) in `f64`: to the representation tables, and to
/// the selection's scores.
///
/// `grad_out` is the gradient of the output, `[M, Σ r]`. Formula, and the rows that the gradients have:
/// [`decoupled_attend_backward`], whose `dscore` is the gradient of the scores here. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`decoupled_aggregate`](crate::reference::decoupled_aggregate); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of
/// the wrong length.
pub fn decoupled_aggregate_backward(
    op: &Decoupled,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    selection: &Selection<'_, Host>,
    grad_out: &[f64],
) -> Result<DecoupledAggregateGradientReference> {
    const NAME: &str = "decoupled_aggregate_backward";
    let top_k = op.check_aggregate_in(NAME, batch, inputs, selection)?;
    check_grad_out(NAME, batch, inputs, grad_out)?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.representation, &inputs.history_ids, &inputs.target_ids)?;
    let mut sums = TableSums::of(NAME, inputs.representation);
    let mut grad_scores = filled(NAME, selection.scores.len(), 0.0)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            let slots = m * top_k..m * top_k + selection.counts[m] as usize;
            let kept: Vec<usize> =
                slots.clone().map(|slot| history.start + selection.positions[slot] as usize).collect();
            let scores: Vec<f64> = slots.clone().map(|slot| selection.scores[slot].into()).collect();
            let grads = aggregate_backward(op, inputs, m, &kept, &scores, grad_out, &mut sums)?;
            for (slot, grad) in slots.zip(grads) {
                grad_scores[slot] = grad.unwrap_or(0.0);
            }
        }
    }
    Ok(DecoupledAggregateGradientReference { representation: sums.finish()?, scores: grad_scores })
}

/// The gradients of [`decoupled_search`](crate::reference::decoupled_search) in `f64`: of each attention table, from those of the
/// scores, `[M, K]`.
///
/// Formula, and the rows that the gradients have: [`decoupled_attend_backward`], with `grad_scores` as its `dscore`. `selection` is what
/// the search kept; of its scores only those that are `-∞` matter.
///
/// # Errors
/// Those of [`decoupled_search`](crate::reference::decoupled_search); [`Error::Shape`](crate::Error::Shape) for a selection or
/// `grad_scores` of the wrong length; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a count above `K` or a counted position
/// outside its history.
pub fn decoupled_search_backward(
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
    selection: &Selection<'_, Host>,
    grad_scores: &[f64],
) -> Result<Vec<SparseGradientReference>> {
    const NAME: &str = "decoupled_search_backward";
    let top_k =
        op.check_search_backward(batch, inputs, selection, grad_scores.len(), &SearchGradients::new())?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let mut sums = TableSums::of(NAME, inputs.attention);
    for (history, targets) in batch.requests() {
        for m in targets {
            let slots = m * top_k..m * top_k + selection.counts[m] as usize;
            for slot in slots.filter(|&slot| selection.scores[slot] != f32::NEG_INFINITY) {
                let l = history.start + selection.positions[slot] as usize;
                score_backward(op, inputs, m, l, grad_scores[slot], &mut sums)?;
            }
        }
    }
    sums.finish()
}

/// The gradients of [`decoupled_attend`](crate::reference::decoupled_attend) in `f64`: to the representation tables and, through the
/// scores, to the attention tables.
///
/// `grad_out` is the gradient of the output, `[M, Σ r]`. For candidate `m` and its kept behaviours `l`, with `r_l` the concatenated
/// representations, `t` that of the candidate, `g = grad_out[m] ⊙ t` with `multiply_target` and `grad_out[m]` without:
///
/// ```text
/// dR_f[ids[l,f]]        += w_l·g_f
/// dR_f[target_ids[m,f]] += (grad_out[m] ⊙ Σ_l w_l·r_l)_f                 with multiply_target
/// dw_l = ⟨g, r_l⟩          dscore_l = w_l·(dw_l − Σ_i w_i·dw_i)
/// dA_f[target_ids[m,f]] += scale_f·dscore_l·A_f[ids[l,f]]
/// dA_f[ids[l,f]]        += scale_f·dscore_l·A_f[target_ids[m,f]]
/// ```
///
/// The choice of the kept behaviours has no gradient. The gradients have rows for the ids of the kept behaviours, without those that
/// a score of `-∞` removes, and of the candidates that have such a behaviour (to representation tables, with `multiply_target`). Ids
/// outside their table (possible only with [`IdPolicy::Zero`]) have none. The gradient of an int8 table is that of its decoded rows.
/// Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`decoupled_attend`](crate::reference::decoupled_attend); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the
/// wrong length.
pub fn decoupled_attend_backward(
    op: &Decoupled,
    batch: &Batch,
    inputs: &DecoupledInputs<'_, Host>,
    grad_out: &[f64],
) -> Result<DecoupledGradientReference> {
    const NAME: &str = "decoupled_attend_backward";
    op.check_attend_in(NAME, batch, inputs)?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let search = SearchInputs { attention, history_ids, target_ids };
    let aggregate = AggregateInputs { representation, history_ids, target_ids };
    check_grad_out(NAME, batch, &aggregate, grad_out)?;
    op.check_host_ids(NAME, batch, attention, &history_ids, &target_ids)?;
    let mut representation_sums = TableSums::of(NAME, representation);
    let mut attention_sums = TableSums::of(NAME, attention);
    for (history, targets) in batch.requests() {
        for m in targets {
            let scores = scores_of(op, &search, history.clone(), m);
            let best = ranked(&scores, op.top_k.unwrap_or(usize::MAX));
            let kept: Vec<usize> = best.iter().map(|&(position, _)| history.start + position).collect();
            let scores: Vec<f64> = best.iter().map(|&(_, score)| score).collect();
            let sums = &mut representation_sums;
            let grads = aggregate_backward(op, &aggregate, m, &kept, &scores, grad_out, sums)?;
            for (l, grad) in kept.into_iter().zip(grads) {
                if let Some(grad) = grad {
                    score_backward(op, &search, m, l, grad, &mut attention_sums)?;
                }
            }
        }
    }
    let (attention, representation) = (attention_sums.finish()?, representation_sums.finish()?);
    Ok(DecoupledGradientReference { attention, representation })
}

/// Checks the gradient that comes in.
fn check_grad_out(
    operation: &'static str,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    grad_out: &[f64],
) -> Result<()> {
    let shape = [dim("M", batch.targets().rows()), dim("Σ r", total_width(inputs.representation))];
    expect(operation, "grad_out", grad_out.len(), &shape)?;
    Ok(())
}

/// Adds the gradients of the representations that candidate `m` reads, and returns those of its kept behaviours' scores, `None`
/// where a behaviour is removed.
fn aggregate_backward(
    op: &Decoupled,
    inputs: &AggregateInputs<'_, Host>,
    m: usize,
    kept: &[usize],
    scores: &[f64],
    grad_out: &[f64],
    sums: &mut TableSums,
) -> Result<Vec<Option<f64>>> {
    let features = op.features();
    let width = total_width(inputs.representation);
    let grad_out = &grad_out[m * width..(m + 1) * width];
    let behaviour_ids = |l: usize| &inputs.history_ids[l * features..(l + 1) * features];
    let target_ids = &inputs.target_ids[m * features..(m + 1) * features];
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let grad_mean = match op.multiply_target {
        true => product(grad_out, &concatenate(inputs.representation, target_ids)),
        false => grad_out.to_vec(),
    };
    let (weights, _) = softmax(scores);
    let mut mean = vec![0.0; width];
    for (&l, weight) in kept.iter().zip(&weights) {
        if let Some(weight) = *weight {
            sums.add_concatenated(behaviour_ids(l), weight, &grad_mean)?;
            let representation = concatenate(inputs.representation, behaviour_ids(l));
            mean.iter_mut().zip(representation).for_each(|(mean, r)| *mean += weight * r);
        }
    }
    if op.multiply_target && weights.iter().any(Option::is_some) {
        sums.add_concatenated(target_ids, 1.0, &product(grad_out, &mean))?;
    }
    let grad_weight =
        |index: usize| dot(&grad_mean, &concatenate(inputs.representation, behaviour_ids(kept[index])));
    Ok(softmax_backward(&weights, grad_weight, 0.0))
}

/// Adds the gradients of the attention rows that the score of candidate `m` and behaviour `l` reads.
fn score_backward(
    op: &Decoupled,
    inputs: &SearchInputs<'_, Host>,
    m: usize,
    l: usize,
    grad: f64,
    sums: &mut TableSums,
) -> Result<()> {
    let features = op.features();
    for (f, table) in inputs.attention.iter().enumerate() {
        let (target, behaviour) = (inputs.target_ids[m * features + f], inputs.history_ids[l * features + f]);
        let factor = f64::from(op.scales[f]) * grad;
        sums.add(f, target, factor, &table_row(table, behaviour))?;
        sums.add(f, behaviour, factor, &table_row(table, target))?;
    }
    Ok(())
}
