//! Decoupled search and aggregation on the CPU.

mod aggregate;
mod backward;
mod scores;

use crate::cpu::Cpu;
use crate::cpu::pieces;
use crate::cpu::selection::Selecting;
use crate::cpu::threads::{for_each, split_rows};
use crate::cpu::vector::{Instructions, with_default_floats};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{View, ViewMut};
use crate::ops::*;
use aggregate::{Aggregate, AttendToAll, Combine, Finish};
use backward::{aggregate_backward, attend_backward, search_backward};
use scores::TableScores;

impl DecoupledOps for Cpu {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        with_default_floats(|| search(self.instructions, op, batch, &inputs, out))
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| aggregate(self.instructions, op, batch, &inputs, &selection, out))
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| attend(self.instructions, op, batch, &inputs, out))
    }

    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        selection: Selection<'_, Host>,
        grad_scores: View<'_, Host, f32>,
        grads: SearchGradients<'_, Host>,
    ) -> Result<()> {
        let given = (&inputs, &selection);
        with_default_floats(|| search_backward(self.instructions, op, batch, given, grad_scores, grads))
    }

    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        grad_out: View<'_, Host, f32>,
        grads: AggregateGradients<'_, Host>,
    ) -> Result<()> {
        let given = (&inputs, &selection);
        with_default_floats(|| aggregate_backward(self.instructions, op, batch, given, grad_out, grads))
    }

    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        saved: DecoupledSaved<'_, Host>,
        grad_out: View<'_, Host, f32>,
        grads: DecoupledGradients<'_, Host>,
    ) -> Result<()> {
        let given = (&inputs, &saved);
        with_default_floats(|| attend_backward(self.instructions, op, batch, given, grad_out, grads))
    }
}

pub(super) fn search(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
    out: SelectionMut<'_, Host>,
) -> Result<()> {
    const NAME: &str = "decoupled_search";
    let top_k = op.check_search(batch, inputs)?;
    op.check_search_outputs(batch, top_k, &out)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let scoring = &TableScores { op, inputs };
    Selecting { instructions, scoring, top_k }.write(batch, out);
    Ok(())
}

pub(super) fn aggregate(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    selection: &Selection<'_, Host>,
    out: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "decoupled_aggregate";
    let top_k = op.check_aggregate(batch, inputs, selection)?;
    op.check_output(NAME, batch, inputs.representation, out.len())?;
    selection.check_host(NAME, batch, top_k)?;
    op.check_host_ids(NAME, batch, inputs.representation, &inputs.history_ids, &inputs.target_ids)?;
    let starts = batch.requests().flat_map(|(history, targets)| targets.map(move |m| (m, history.start)));
    let rows = out.into_slice().chunks_exact_mut(total_width(inputs.representation));
    for_each(starts.zip(rows).collect(), |((m, start), out): ((usize, usize), &mut [f32])| {
        let slots = m * top_k..m * top_k + selection.counts[m] as usize;
        let positions = &selection.positions[slots.clone()];
        let behaviours = positions.iter().map(|&position| start + position as usize);
        let kept = behaviours.zip(selection.scores[slots].iter().copied()).collect();
        instructions.run(Aggregate { op, inputs, m, kept, out });
    });
    Ok(())
}

pub(super) fn attend(
    instructions: Instructions,
    op: &Decoupled,
    batch: &Batch,
    inputs: &DecoupledInputs<'_, Host>,
    out: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "decoupled_attend";
    op.check_attend(batch, inputs)?;
    op.check_output(NAME, batch, inputs.representation, out.len())?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.history_ids, &inputs.target_ids)?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let search = &SearchInputs { attention, history_ids, target_ids };
    let inputs = &AggregateInputs { representation, history_ids, target_ids };
    let plan = pieces::cut(batch, pieces::ROWS, pieces::STEP);
    let width = total_width(representation);
    let out = split_rows(plan.tiles.iter().map(|tile| tile.rows), out.into_slice(), width);
    let Some(top_k) = op.top_k else {
        pieces::run(
            &plan,
            out,
            |piece| instructions.run(AttendToAll { op, search, aggregate: inputs, piece }),
            |all, next| instructions.run(Combine { all, next }),
            |sums, out| instructions.run(Finish { op, inputs, sums, out }),
        );
        return Ok(());
    };
    let starts: Vec<usize> =
        batch.requests().flat_map(|(history, targets)| targets.map(move |_| history.start)).collect();
    let scoring = &TableScores { op, inputs: search };
    Selecting { instructions, scoring, top_k }.run(batch, &plan, out, |targets, best, out| {
        for ((m, best), out) in targets.zip(best).zip(out.chunks_exact_mut(width)) {
            let kept = best.into_sorted().map(|(position, score)| (starts[m] + position as usize, score));
            instructions.run(Aggregate { op, inputs, m, kept: kept.collect(), out });
        }
    });
    Ok(())
}
