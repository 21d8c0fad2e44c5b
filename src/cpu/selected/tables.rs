//! The gradients of the tables that keys and values come from.
//!
//! First each behaviour that someone keeps adds up the gradient of its row, as where rows are given (`history.rs`); then each id adds up
//! those of its behaviours (`gradient_rows.rs`). Behaviours that nobody keeps have no row in between.

use crate::cpu::gradient_rows::{self, Asked, GradientRows, Ids};
use crate::cpu::picked::picked;
use crate::cpu::selected::history::{Sums, UserEntries};
use crate::cpu::selected::pass::Pass;
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes};
use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::jagged::Batch;
use crate::ops::*;

/// The tables, and where their gradients go.
pub(super) struct TableGradients<'a> {
    features: usize,
    /// `[N, F]`.
    ids: &'a [u32],
    keys: Asked<'a>,
    values: Asked<'a>,
}

/// Whose gradients a behaviour's row has.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// Of keys; of keys that are the values, both.
    Keys,
    /// Of values of their own.
    Values,
}

impl<'a> TableGradients<'a> {
    pub(super) fn new<T: Element>(
        inputs: &SelectedTableInputs<'a, Host, T>,
        keys: Vec<Option<TableGradient<'a, Host>>>,
        values: Vec<Option<TableGradient<'a, Host>>>,
    ) -> Self {
        let key_tables: &[Table<'_, Host>] = match inputs.keys {
            SelectedKeys::Tables(tables) => tables,
            _ => &[],
        };
        Self {
            features: inputs.values.len(),
            ids: inputs.history_ids.as_slice(),
            keys: Asked::new(key_tables, keys, false),
            values: Asked::new(inputs.values, values, false),
        }
    }

    /// Writes the gradients that are asked for. `rows` are queries and `grad_out`.
    pub(super) fn write(
        self,
        instructions: Instructions,
        batch: &Batch,
        pass: &Pass<'_>,
        users: &[UserEntries],
        rows: [&[f32]; 2],
    ) -> Result<()> {
        let Self { features, ids, keys, values } = self;
        let of_values = if pass.inputs.values.is_none() { Of::Keys } else { Of::Values };
        for (mut asked, of) in [(keys, Of::Keys), (values, of_values)] {
            if !asked.is_any() {
                continue;
            }
            let kept = KeptRows::new(pass, batch, users, of)?;
            let sums = kept.sum(instructions, pass, users, rows)?;
            let mut own_ids: Vec<u32> = reserve(pass.operation, kept.rows.len().saturating_mul(features))?;
            for row in &kept.rows {
                own_ids.extend_from_slice(&ids[row.behaviour * features..(row.behaviour + 1) * features]);
            }
            let mut index: Vec<u32> = reserve(pass.operation, kept.rows.len())?;
            index.extend((0..kept.rows.len()).map(|row| row as u32));
            let gradient = GradientRows { weights: None, index: &index, rows: &sums, candidates: None };
            let ids = Ids { features, behaviours: &own_ids, candidates: &[] };
            gradient_rows::write(pass.operation, instructions, &ids, &mut [(&mut asked, gradient)])?;
        }
        Ok(())
    }
}

/// A behaviour whose row has a gradient.
#[derive(Clone, Copy)]
struct KeptRow {
    user: usize,
    /// Among the user's behaviours.
    position: usize,
    behaviour: usize,
}

/// The behaviours whose rows have gradients, in the order of the histories.
struct KeptRows {
    of: Of,
    rows: Vec<KeptRow>,
}

/// The behaviours of a task.
const ROWS: usize = 256;

impl KeptRows {
    fn new(pass: &Pass<'_>, batch: &Batch, users: &[UserEntries], of: Of) -> Result<Self> {
        let heads = pass.op.kv_heads;
        let is_aliased = pass.inputs.values.is_none();
        let has_any = |entries: &UserEntries, position: usize| {
            (position * heads..(position + 1) * heads).any(|row| {
                let (grads, weights) = (entries.grads.of(row).0, entries.weights.of(row).0);
                of == Of::Keys && !grads.is_empty() || (of == Of::Values || is_aliased) && !weights.is_empty()
            })
        };
        let mut rows = reserve(pass.operation, pass.op.gradient_capacity(batch))?;
        for (user, (history, entries)) in batch.histories().ranges().zip(users).enumerate() {
            let kept = (0..history.len()).filter(|&position| has_any(entries, position));
            rows.extend(kept.map(|position| KeptRow { user, position, behaviour: history.start + position }));
        }
        Ok(Self { of, rows })
    }

    /// The gradients of the behaviours' rows, `[_, H_kv, d or d_v]`.
    fn sum(
        &self,
        instructions: Instructions,
        pass: &Pass<'_>,
        users: &[UserEntries],
        rows: [&[f32]; 2],
    ) -> Result<Vec<f32>> {
        let head = if self.of == Of::Keys { pass.op.width } else { pass.op.value_width };
        let width = pass.op.kv_heads * head;
        let mut sums = filled(pass.operation, self.rows.len().saturating_mul(width), 0.0)?;
        let parts = self.rows.chunks(ROWS).zip(sums.chunks_mut(ROWS * width));
        let task = |(kept, out)| SumRows { pass, users, rows, of: self.of, kept, head, out };
        for_each(parts.map(task).collect(), |task: SumRows<'_>| instructions.run(task));
        Ok(sums)
    }
}

/// The gradients of some behaviours' rows.
struct SumRows<'a> {
    pass: &'a Pass<'a>,
    users: &'a [UserEntries],
    rows: [&'a [f32]; 2],
    of: Of,
    kept: &'a [KeptRow],
    /// The width of a head.
    head: usize,
    out: &'a mut [f32],
}

impl Kernel for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { pass, users, rows: [queries, grad_out], of, kept, head, out } = self;
        let op = pass.op;
        let mut sums = Sums::new(op, pass.inputs.values.is_none());
        for (kept, out) in kept.iter().zip(out.chunks_exact_mut(op.kv_heads * head)) {
            let entries = &users[kept.user];
            for (h, out) in out.chunks_exact_mut(head).enumerate() {
                let row = kept.position * op.kv_heads + h;
                let (grads, weights) = (entries.grads.of(row), entries.weights.of(row));
                if of == Of::Keys {
                    sums.add_to_keys(l, (queries, grads), (grad_out, weights), op.effective_scale());
                    out.copy_from_slice(&sums.keys);
                } else {
                    let rows = picked(grad_out, op.value_width, weights.0);
                    rows.weighted_sum(l, weights.1, &mut sums.part, out);
                }
            }
        }
    }
}
