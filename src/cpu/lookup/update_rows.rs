//! Optimisers on rows of a table: a thread updates the rows of some consecutive ids.

use crate::cpu::gather::AHEAD;
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, dot_lanes, prefetch_rows};
use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, reserve};
use crate::ops::*;

const NAME: &str = "update_rows";

/// The rows that a thread updates at a time.
const ROWS: usize = 512;

/// Checks everything, then updates the rows of a table that have a gradient.
pub(super) fn update<T: Element>(
    instructions: Instructions,
    op: &Optimiser,
    table: TableMut<'_, Host, T>,
    state: OptimiserState<'_, Host>,
    gradient: &SparseGradient<'_, Host>,
) -> Result<()> {
    op.check_update(&table, &state, gradient)?;
    let count = check_host_gradient(table.rows, gradient)?;
    let width = table.width;
    let ids = &gradient.ids.as_slice()[..count];
    let rows = &gradient.rows.as_slice()[..count * width];
    let (first, second, first_width) = match state {
        OptimiserState::Moments { first, second } => (first.into_slice(), second.into_slice(), width),
        OptimiserState::Sums(sums) => {
            let is_row_wise = matches!(op.method, OptimiserMethod::RowWiseAdagrad { .. });
            (sums.into_slice(), &mut [][..], if is_row_wise { 1 } else { width })
        }
        _ => (&mut [][..], &mut [][..], 0),
    };
    let second_width = if second.is_empty() { 0 } else { width };
    let step = Step::of(op);
    let mut tables = split_by_id(table.data.into_slice(), width, ids)?.into_iter();
    let mut firsts = split_by_id(first, first_width, ids)?.into_iter();
    let mut seconds = split_by_id(second, second_width, ids)?.into_iter();
    let chunks = ids.chunks(ROWS).zip(rows.chunks(ROWS * width));
    let mut items = reserve(NAME, ids.len().div_ceil(ROWS))?;
    items.extend(chunks.map(|(ids, rows)| Update {
        step,
        ids,
        rows,
        width,
        table: NarrowRows::new(tables.next().unwrap_or_default()),
        first: firsts.next().unwrap_or_default(),
        first_width,
        second: seconds.next().unwrap_or_default(),
    }));
    update_all(instructions, items);
    Ok(())
}

/// [`update`], whatever is stored.
fn update_all(instructions: Instructions, updates: Vec<Update<'_>>) {
    for_each(updates, |update| instructions.run(update));
}

/// For each chunk of ids, the rows from that of its first id to that of its last.
fn split_by_id<'a, T>(mut rows: &'a mut [T], width: usize, ids: &[u32]) -> Result<Vec<&'a mut [T]>> {
    let mut parts = reserve(NAME, ids.len().div_ceil(ROWS))?;
    let mut before = 0;
    for ids in ids.chunks(ROWS) {
        let (start, end) = (ids[0] as usize * width, (ids[ids.len() - 1] as usize + 1) * width);
        let (_, rest) = std::mem::take(&mut rows).split_at_mut(start - before);
        let (own, rest) = rest.split_at_mut(end - start);
        parts.push(own);
        (rows, before) = (rest, end);
    }
    Ok(parts)
}

/// A step, with what is the same for all rows computed once.
#[derive(Clone, Copy)]
struct Step {
    method: OptimiserMethod,
    rate: f32,
    /// What remains of a weight.
    kept: f32,
    /// The factors that correct the bias of Adam's moments.
    corrections: [f32; 2],
}

impl Step {
    fn of(op: &Optimiser) -> Self {
        let kept = 1.0 - f64::from(op.rate) * f64::from(op.weight_decay);
        let corrections = match op.method {
            OptimiserMethod::Adam { beta1, beta2, step, .. } => {
                [beta1, beta2].map(|beta| (1.0 / (1.0 - f64::from(beta).powf(step as f64))) as f32)
            }
            _ => [1.0; 2],
        };
        Self { method: op.method, rate: op.rate, kept: kept as f32, corrections }
    }

    /// Updates a row and its state.
    #[inline(always)]
    fn run<L: Lanes>(self, l: L, row: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32]) {
        let Self { rate, kept, corrections: [mean, square], .. } = self;
        match self.method {
            OptimiserMethod::Sgd => {
                row.iter_mut().zip(g).for_each(|(w, g)| *w = kept * *w - rate * g);
            }
            OptimiserMethod::RowWiseAdagrad { eps } => {
                first[0] += dot_lanes(l, g, g) / g.len() as f32;
                let factor = rate / (first[0].sqrt() + eps);
                row.iter_mut().zip(g).for_each(|(w, g)| *w = kept * *w - factor * g);
            }
            OptimiserMethod::Adagrad { eps } => {
                for ((w, g), s) in row.iter_mut().zip(g).zip(first) {
                    *s += g * g;
                    *w = kept * *w - rate * (g / (s.sqrt() + eps));
                }
            }
            OptimiserMethod::Adam { beta1, beta2, eps, .. } => {
                // 1 − β in f64: the difference of two numbers close to each other.
                let [new1, new2] = [beta1, beta2].map(|beta| (1.0 - f64::from(beta)) as f32);
                for (((w, g), m), v) in row.iter_mut().zip(g).zip(first).zip(second) {
                    *m = beta1 * *m + new1 * g;
                    *v = beta2 * *v + new2 * (g * g);
                    *w = kept * *w - rate * (*m * mean / ((*v * square).sqrt() + eps));
                }
            }
        }
    }
}

/// Updates the rows of some ids.
struct Update<'a> {
    step: Step,
    ids: &'a [u32],
    /// The gradient of each id.
    rows: &'a [f32],
    width: usize,
    /// From the row of the first id to that of the last; so are the states.
    table: NarrowRows<'a>,
    first: &'a mut [f32],
    first_width: usize,
    second: &'a mut [f32],
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { step, ids, rows, width, mut table, first, first_width, second } = self;
        let second_width = if second.is_empty() { 0 } else { width };
        let base = ids[0];
        let place = |id: &u32| (id - base) as usize;
        let mut wide = vec![0.0; width];
        for (i, (block, rows)) in ids.chunks(AHEAD).zip(rows.chunks(AHEAD * width)).enumerate() {
            let next = &ids[ids.len().min((i + 1) * AHEAD)..ids.len().min((i + 2) * AHEAD)];
            table.prefetch(width, next.iter().map(place));
            prefetch_rows(first, first_width, next.iter().map(place));
            prefetch_rows(second, second_width, next.iter().map(place));
            for (id, g) in block.iter().zip(rows.chunks_exact(width)) {
                let start = place(id);
                let first = &mut first[start * first_width..(start + 1) * first_width];
                let second = &mut second[start * second_width..(start + 1) * second_width];
                let row = start * width..(start + 1) * width;
                if let NarrowRows::F32(rows) = &mut table {
                    step.run(l, &mut rows[row], g, first, second);
                } else {
                    table.read(l, row, &mut wide);
                    step.run(l, &mut wide, g, first, second);
                    table.write(l, start * width, &wide);
                }
            }
        }
    }
}
