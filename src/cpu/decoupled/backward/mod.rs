//! Gradients of decoupled embeddings on the CPU.
//!
//! From a selection, the gradient of a kept behaviour's rows is a number times rows of its candidate, so only the numbers are stored:
//! a weight and the gradient of a score. The ids of the kept behaviours are sorted, and each id adds up its rows
//! (`table_gradient.rs`). Over all behaviours (`all.rs`), the gradients of a bounded number of behaviours are computed at a time.

mod all;
mod kept;

use crate::cpu::decoupled::search;
use crate::cpu::gradient_rows::{Asked, GradientRows, Ids, write};
use crate::cpu::vector::Instructions;
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::*;
use kept::{Kept, Wanted};

pub(super) fn search_backward(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    (inputs, selection): (&SearchInputs<'_, Host>, &Selection<'_, Host>),
    grad_scores: View<'_, Host, f32>,
    grads: SearchGradients<'_, Host>,
) -> Result<()> {
    const NAME: &str = "decoupled_search_backward";
    let top_k = op.check_search_backward(batch, inputs, selection, grad_scores.len(), &grads)?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let mut asked = Asked::new(inputs.attention, grads.attention, true);
    if !asked.is_any() {
        return Ok(());
    }
    let mut kept = Kept::new(NAME, op.features(), batch, (&inputs.history_ids, top_k), selection)?;
    kept.take_grads(selection, &grad_scores, top_k);
    kept.split_scales(op);
    let pass = Pass { operation: NAME, instructions, op, target_ids: &inputs.target_ids };
    pass.write(&kept, Some((&mut asked, inputs.attention)), None)
}

pub(super) fn aggregate_backward(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    (inputs, selection): (&AggregateInputs<'_, Host>, &Selection<'_, Host>),
    grad_out: View<'_, Host, f32>,
    grads: AggregateGradients<'_, Host>,
) -> Result<()> {
    const NAME: &str = "decoupled_aggregate_backward";
    let top_k = op.check_aggregate_backward(batch, inputs, selection, grad_out.len(), &grads)?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.representation, &inputs.history_ids, &inputs.target_ids)?;
    let mut asked = Asked::new(inputs.representation, grads.representation, op.multiply_target);
    if !asked.is_any() && grads.scores.is_none() {
        return Ok(());
    }
    let mut kept = Kept::new(NAME, op.features(), batch, (&inputs.history_ids, top_k), selection)?;
    let pass = Pass { operation: NAME, instructions, op, target_ids: &inputs.target_ids };
    let rows = pass.weigh(&mut kept, inputs, &grad_out, (grads.scores.is_some(), asked.is_any()))?;
    if let Some(scores) = grads.scores {
        kept.write_grads(selection, scores.into_slice(), top_k);
    }
    pass.write(&kept, None, Some((&mut asked, rows.views(&grad_out))))
}

pub(super) fn attend_backward(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    (inputs, saved): (&DecoupledInputs<'_, Host>, &DecoupledSaved<'_, Host>),
    grad_out: View<'_, Host, f32>,
    grads: DecoupledGradients<'_, Host>,
) -> Result<()> {
    const NAME: &str = "decoupled_attend_backward";
    op.check_attend_backward(batch, inputs, saved, grad_out.len(), &grads)?;
    if let (Some(selection), Some(top_k)) = (&saved.selection, op.top_k) {
        selection.check_host(NAME, batch, top_k)?;
    }
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    op.check_host_ids(NAME, batch, attention, &history_ids, &target_ids)?;
    let attention_asked = Asked::new(attention, grads.attention, true);
    let mut representation_asked = Asked::new(representation, grads.representation, op.multiply_target);
    if !attention_asked.is_any() && !representation_asked.is_any() {
        return Ok(());
    }
    let pass = Pass { operation: NAME, instructions, op, target_ids: &target_ids };
    // Where everything is kept, a selection would be as large as all scores.
    let longest = batch.histories().max_length();
    let Some(top_k) = op.top_k.filter(|&top_k| saved.selection.is_some() || top_k < longest) else {
        return all::backward(&pass, batch, inputs, &grad_out, [attention_asked, representation_asked]);
    };
    let found;
    let selection = match &saved.selection {
        Some(selection) => selection,
        None => {
            found = searched(instructions, op, batch, &SearchInputs { attention, history_ids, target_ids })?;
            &found.selection()
        }
    };
    let mut kept = Kept::new(NAME, op.features(), batch, (&history_ids, top_k), selection)?;
    let inputs = &AggregateInputs { representation, history_ids, target_ids };
    let wanted = (attention_asked.is_any(), representation_asked.is_any());
    let rows = pass.weigh(&mut kept, inputs, &grad_out, wanted)?;
    kept.split_scales(op);
    let mut attention_asked = attention_asked;
    pass.write(
        &kept,
        Some((&mut attention_asked, attention)),
        Some((&mut representation_asked, rows.views(&grad_out))),
    )
}

/// The best behaviours.
fn searched(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
) -> Result<SelectionBuffers<Host>> {
    const NAME: &str = "decoupled_attend_backward";
    let slots = op.selection_length(batch)?;
    let (positions, scores) = (filled(NAME, slots, 0)?, filled(NAME, slots, 0.0)?);
    let counts = filled(NAME, batch.targets().rows(), 0)?;
    let mut found =
        SelectionBuffers { positions: positions.into(), scores: scores.into(), counts: counts.into() };
    search(instructions, op, batch, inputs, found.selection_mut())?;
    Ok(found)
}

/// What every step of a backward pass reads.
struct Pass<'a> {
    operation: &'static str,
    instructions: Instructions,
    op: &'a Decoupled,
    target_ids: &'a [u32],
}

/// Gradients of representations that are more than weights, `[M, Σ r]`: with `multiply_target` alone.
struct RepresentationRows {
    products: Option<Vec<f32>>,
    targets: Option<Vec<f32>>,
}

impl RepresentationRows {
    /// The row that a candidate's weights multiply, and the candidate's own.
    fn views<'a>(&'a self, grad_out: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>) {
        (self.products.as_deref().unwrap_or(grad_out), self.targets.as_deref())
    }
}

/// A set of attention tables that are asked for, and the tables.
type AskedAttention<'s, 'a> = (&'s mut Asked<'a>, &'s [Table<'s, Host>]);
/// A set of representation tables, with the views of [`RepresentationRows`].
type AskedRepresentation<'s, 'a> = (&'s mut Asked<'a>, (&'s [f32], Option<&'s [f32]>));

impl Pass<'_> {
    /// Computes weights, and the gradients of scores and of representations that are asked for.
    fn weigh(
        &self,
        kept: &mut Kept,
        inputs: &AggregateInputs<'_, Host>,
        grad_out: &[f32],
        (scores, representation): (bool, bool),
    ) -> Result<RepresentationRows> {
        let rows = |wanted: bool| wanted.then(|| filled(self.operation, grad_out.len(), 0.0)).transpose();
        let mut products = rows(self.op.multiply_target)?;
        let mut targets = rows(self.op.multiply_target && representation)?;
        let wanted = Wanted { scores, products: products.as_deref_mut(), targets: targets.as_deref_mut() };
        kept.gradients(self.instructions, self.op, inputs, grad_out, wanted);
        Ok(RepresentationRows { products, targets })
    }

    /// Writes the gradients of tables.
    fn write<'s, 'a>(
        &self,
        kept: &Kept,
        attention: Option<AskedAttention<'s, 'a>>,
        representation: Option<AskedRepresentation<'s, 'a>>,
    ) -> Result<()> {
        let features = self.op.features();
        let (mut candidates, mut target_ids) = (Vec::new(), Vec::new());
        if attention.is_some() || self.op.multiply_target {
            candidates = reserve(self.operation, kept.targets().count())?;
            target_ids = reserve(self.operation, candidates.capacity().saturating_mul(features))?;
            for m in kept.targets() {
                candidates.push(m as u32);
                target_ids.extend_from_slice(&self.target_ids[m * features..(m + 1) * features]);
            }
        }
        let attention_rows;
        let mut sets = Vec::with_capacity(2);
        let index = &kept.candidates[..];
        if let Some((asked, tables)) = attention.filter(|(asked, _)| asked.is_any()) {
            attention_rows = kept.attention(self.operation, self.instructions, (tables, self.target_ids))?;
            let [queries, targets] = &attention_rows;
            let candidates = Some((&candidates[..], &targets[..]));
            sets.push((asked, GradientRows { weights: Some(&kept.grads), index, rows: queries, candidates }));
        }
        if let Some((asked, (rows, targets))) = representation.filter(|(asked, _)| asked.is_any()) {
            let candidates = targets.map(|targets| (&candidates[..], targets));
            sets.push((asked, GradientRows { weights: Some(&kept.weights), index, rows, candidates }));
        }
        let ids = Ids { features, behaviours: &kept.ids, candidates: &target_ids };
        write(self.operation, self.instructions, &ids, &mut sets)
    }
}
