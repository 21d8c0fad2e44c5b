//! Search by rows, packed signs and keys on the CPU.

mod codes;
mod newest;
mod pack;
mod rows;
mod signs;

use crate::cpu::Cpu;
use crate::cpu::selection::{Scoring, Selecting};
use crate::cpu::vector::{Instructions, WideRows, with_default_floats};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{View, ViewMut};
use crate::ops::*;
use codes::CodeScores;
use newest::write_newest;
use rows::{Numbers, RowScores};
use signs::SignScores;

impl SearchOps for Cpu {
    fn search_into(
        &self,
        op: &Search,
        batch: &Batch,
        inputs: SimilarityInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        op.check(batch, &inputs)?;
        op.check_outputs(batch, &out)?;
        with_default_floats(|| search(self.instructions, op, batch, &inputs, out));
        Ok(())
    }

    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, Host, T>,
        rotations: View<'_, Host, f32>,
        mut out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        let count = op.check(rows.len(), rotations.len())?;
        op.check_output(count, out.len())?;
        let rows = WideRows::new(rows.as_slice());
        with_default_floats(|| pack::pack(self.instructions, op, rows, &rotations, &mut out));
        Ok(())
    }
}

/// Searches with inputs that are checked: candidates and behaviours are stored alike, as the score takes them.
fn search(
    instructions: Instructions,
    op: &Search,
    batch: &Batch,
    inputs: &SimilarityInputs<'_, Host>,
    out: SelectionMut<'_, Host>,
) {
    let top_k = op.top_k;
    match (&inputs.queries, &inputs.keys) {
        (SearchRows::Keys(queries), SearchRows::Keys(keys)) => {
            write_newest(instructions, top_k, batch, (queries, keys), out);
        }
        (SearchRows::Signs(queries), SearchRows::Signs(keys)) => {
            let scoring = &SignScores { bits: op.width, queries, keys };
            Selecting { instructions, scoring, top_k }.write(batch, out);
        }
        _ => score_rows(op, inputs, Write { instructions, top_k, batch, out }),
    }
}

/// What is done with the scores of rows. (A trait instead of a closure, because scores of codes and of rows are of different types.)
pub(in crate::cpu) trait WithScores {
    fn run<S: Scoring>(self, scoring: &S);
}

/// Passes on dot products or cosines of inputs that are checked.
pub(in crate::cpu) fn score_rows(op: &Search, inputs: &SimilarityInputs<'_, Host>, with: impl WithScores) {
    let bias = inputs.bias.map(|bias| bias.as_slice());
    match (&inputs.queries, &inputs.keys) {
        (SearchRows::Codes(queries), SearchRows::Codes(keys)) if op.width <= codes::MAX_WIDTH => {
            with.run(&CodeScores { op, queries, keys, bias });
        }
        (queries, keys) => {
            with.run(&RowScores { op, queries: Numbers::of(queries), keys: Numbers::of(keys), bias });
        }
    }
}

/// Writes a selection.
struct Write<'a> {
    instructions: Instructions,
    top_k: usize,
    batch: &'a Batch,
    out: SelectionMut<'a, Host>,
}

impl WithScores for Write<'_> {
    fn run<S: Scoring>(self, scoring: &S) {
        let Self { instructions, top_k, batch, out } = self;
        Selecting { instructions, scoring, top_k }.write(batch, out);
    }
}
