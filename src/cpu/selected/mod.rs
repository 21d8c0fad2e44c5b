//! Attention over a selection on the CPU, and histograms of its similarities.
//!
//! A task computes some candidates, one after the other: it gathers the rows that a candidate keeps (in place, where they are `f32`),
//! and computes scores, weights and the weighted sum while they are in cache. A candidate's result does not depend on any other.

mod backward;
mod histogram;
mod history;
mod kept;
mod pass;
mod tables;

use std::ops::Range;

use crate::cpu::Cpu;
use crate::cpu::search::score_rows;
use crate::cpu::selected::backward::{backward, backward_of_tables};
use crate::cpu::selected::histogram::{CountNewest, count};
use crate::cpu::selected::kept::{CANDIDATES, Candidate, Kept, WideInputs};
use crate::cpu::threads::{for_each, split_rows};
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, with_default_floats};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::ViewMut;
use crate::ops::*;

impl SelectedOps for Cpu {
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedAttentionInputs<'_, Host, T>,
        outputs: SelectedAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        op.check(batch, &inputs)?;
        op.check_outputs(batch, &outputs)?;
        inputs.selection.check_host("selected_attention", batch, op.top_k)?;
        let out = NarrowRows::new(outputs.out.into_slice());
        let lse = outputs.lse.map(ViewMut::into_slice);
        let inputs = WideInputs::new(&inputs);
        with_default_floats(|| attend(self.instructions, op, batch, &inputs, out, lse));
        Ok(())
    }

    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedAttentionInputs<'_, Host, T>,
        grad_out: SelectedAttentionGradOut<'_, Host, T>,
        grads: SelectedAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        with_default_floats(|| backward(self.instructions, op, batch, (&inputs, &grad_out), grads))
    }

    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedTableInputs<'_, Host, T>,
        outputs: SelectedAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        op.check_tables(batch, &inputs)?;
        op.check_table_outputs(batch, &outputs)?;
        inputs.selection.check_host("selected_table_attention", batch, op.top_k)?;
        op.check_history_ids("selected_table_attention", batch, &inputs)?;
        let out = NarrowRows::new(outputs.out.into_slice());
        let lse = outputs.lse.map(ViewMut::into_slice);
        let inputs = WideInputs::of_tables(&inputs);
        with_default_floats(|| attend(self.instructions, op, batch, &inputs, out, lse));
        Ok(())
    }

    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedTableInputs<'_, Host, T>,
        grad_out: SelectedAttentionGradOut<'_, Host, T>,
        grads: SelectedTableGradients<'_, Host, G>,
    ) -> Result<()> {
        with_default_floats(|| backward_of_tables(self.instructions, op, batch, (&inputs, &grad_out), grads))
    }

    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &Batch,
        selection: Selection<'_, Host>,
        out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        op.check(batch, &selection)?;
        op.check_output("similarity_histogram", batch, out.len())?;
        selection.check_counts("similarity_histogram", batch, op.top_k)?;
        with_default_floats(|| count(self.instructions, op, batch, &selection, out.into_slice()));
        Ok(())
    }

    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Batch,
        inputs: SimilarityInputs<'_, Host>,
        out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        op.check_newest(search, batch, &inputs)?;
        op.check_output("newest_histogram", batch, out.len())?;
        let with = CountNewest { instructions: self.instructions, op, batch, out: out.into_slice() };
        with_default_floats(|| score_rows(search, &inputs, with));
        Ok(())
    }
}

/// Attention over a selection whose arguments are checked.
fn attend(
    instructions: Instructions,
    op: &SelectedAttention,
    batch: &Batch,
    inputs: &WideInputs<'_>,
    out: NarrowRows<'_>,
    lse: Option<&mut [f32]>,
) {
    let each = |(history, targets): (Range<usize>, Range<usize>)| {
        targets.map(move |m| Candidate { m, history: history.start })
    };
    let candidates: Vec<Candidate> = batch.requests().flat_map(each).collect();
    let lengths = || candidates.chunks(CANDIDATES).map(<[Candidate]>::len);
    let out = out.split(lengths(), op.heads * op.value_width);
    let mut lse = lse.map(|lse| split_rows(lengths(), lse, op.heads).into_iter());
    let task = |(candidates, out)| {
        let lse = lse.as_mut().and_then(Iterator::next);
        Attend { op, inputs, candidates, out, lse }
    };
    let tasks = candidates.chunks(CANDIDATES).zip(out).map(task).collect();
    for_each(tasks, |task: Attend<'_>| instructions.run(task));
}

/// The outputs of some candidates.
struct Attend<'a> {
    op: &'a SelectedAttention,
    inputs: &'a WideInputs<'a>,
    candidates: &'a [Candidate],
    out: NarrowRows<'a>,
    lse: Option<&'a mut [f32]>,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { op, inputs, candidates, mut out, mut lse } = self;
        let width = op.value_width;
        let mut kept = Kept::new(op, inputs, (false, true));
        let mut rows = vec![0.0; op.heads * width];
        for (i, candidate) in candidates.iter().enumerate() {
            kept.load(l, *candidate);
            for h in 0..op.heads {
                let (max, sum) = kept.weigh(l, candidate.m, h, false);
                kept.mean(l, h, &mut rows[h * width..(h + 1) * width]);
                if let Some(lse) = &mut lse {
                    lse[i * op.heads + h] = max + sum.ln();
                }
            }
            out.write(l, i * rows.len(), &rows);
        }
    }
}
