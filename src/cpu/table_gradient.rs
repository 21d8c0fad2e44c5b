//! Sums by id into the gradient of a table. Work is cut into chunks of about [`ROWS`] positions: short runs of equal ids share a
//! chunk, long ones are cut into several, whose sums are combined by pairs. The ids alone decide where.

use std::ops::Range;

use crate::cpu::gather::{AHEAD, WeightedRows, sum_rows};
use crate::cpu::sorted_ids::Sorted;
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, add, add_pairs};
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::ops::TableGradient;

/// A gradient row for each position of a column of ids.
pub(super) trait RowsByPosition: Sync {
    /// The weight and the row of a position, as wide as the table.
    fn row(&self, position: u32) -> (f32, &[f32]);

    /// Prefetches the rows of positions.
    fn prefetch(&self, positions: &[u32]);
}

/// About how many positions make a chunk.
const ROWS: usize = 1024;

/// Runs at least as long are cut.
const LONG: usize = 2 * CUT_ROWS;

/// The positions of a chunk of a run that is cut. The last has less than twice as many, which is the longest chain of additions.
const CUT_ROWS: usize = 192;

/// Writes `Σ weight·row` over the positions of each id into the gradient of a table of rows of `width`.
pub(super) fn sum_by_id<R: RowsByPosition>(
    operation: &'static str,
    instructions: Instructions,
    sorted: &Sorted<'_>,
    rows: &R,
    width: usize,
    gradient: TableGradient<'_, Host>,
) -> Result<()> {
    let count = sorted.ids.len();
    match gradient {
        TableGradient::Sparse(gradient) => {
            gradient.count.into_slice()[0] = count as u32;
            gradient.ids.into_slice()[..count].copy_from_slice(sorted.ids);
            let out = &mut gradient.rows.into_slice()[..count * width];
            sum_runs(operation, instructions, sorted, rows, width, out, |run| run)
        }
        TableGradient::Dense(out) => {
            let out = out.into_slice();
            for_each(out.chunks_mut(ROWS * LANES).collect(), |out| out.fill(0.0));
            sum_runs(operation, instructions, sorted, rows, width, out, |run| sorted.ids[run] as usize)
        }
    }
}

/// Sums each run into the row of `out` that `place` names; places ascend.
fn sum_runs<R: RowsByPosition>(
    operation: &'static str,
    instructions: Instructions,
    sorted: &Sorted<'_>,
    rows: &R,
    width: usize,
    out: &mut [f32],
    place: impl Fn(usize) -> usize + Sync,
) -> Result<()> {
    let chunks = cut(operation, sorted)?;
    // The first chunk of a cut run writes the output, each later one a row of `partials`.
    let is_later = |chunk: &Chunk| chunk.positions.start > sorted.starts[chunk.runs.start] as usize;
    let later: Vec<usize> =
        chunks.iter().filter(|chunk| is_later(chunk)).map(|chunk| chunk.runs.start).collect();
    let mut partials = filled(operation, later.len().saturating_mul(width), 0.0)?;
    let (mut own, mut partial, mut before) = (&mut *out, partials.chunks_exact_mut(width), 0);
    let mut items = reserve(operation, chunks.len())?;
    for chunk in &chunks {
        let rows = if is_later(chunk) {
            partial.next().unwrap_or_default()
        } else {
            // From the row of the first run to that of the last.
            let (first, end) = (place(chunk.runs.start), place(chunk.runs.end - 1) + 1);
            let (_, rest) = std::mem::take(&mut own).split_at_mut((first - before) * width);
            let (rows, rest) = rest.split_at_mut((end - first) * width);
            (own, before) = (rest, end);
            rows
        };
        items.push((chunk, rows));
    }
    for_each(items, |(chunk, out)| {
        instructions.run(SumRuns { sorted, rows, place: &place, chunk, width, out });
    });
    let mut partials = &mut partials[..];
    for run in later.chunk_by(|a, b| a == b) {
        let (own, rest) = std::mem::take(&mut partials).split_at_mut(run.len() * width);
        partials = rest;
        add_pairs(own, width);
        let start = place(run[0]) * width;
        add(&mut out[start..start + width], own);
    }
    Ok(())
}

/// Some whole runs, or a span of a long one.
struct Chunk {
    runs: Range<usize>,
    positions: Range<usize>,
}

fn cut(operation: &'static str, sorted: &Sorted<'_>) -> Result<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = reserve(operation, 2 * sorted.positions.len().div_ceil(CUT_ROWS))?;
    let mut open = false;
    for (run, pair) in sorted.starts.windows(2).enumerate() {
        let positions = pair[0] as usize..pair[1] as usize;
        if positions.len() >= LONG {
            let count = positions.len() / CUT_ROWS;
            let edge = |i: usize| if i == count { positions.end } else { positions.start + i * CUT_ROWS };
            chunks.extend((0..count).map(|i| Chunk { runs: run..run + 1, positions: edge(i)..edge(i + 1) }));
            open = false;
            continue;
        }
        match chunks.last_mut().filter(|last| open && positions.end - last.positions.start <= ROWS) {
            Some(last) => (last.runs.end, last.positions.end) = (run + 1, positions.end),
            None => chunks.push(Chunk { runs: run..run + 1, positions }),
        }
        open = true;
    }
    Ok(chunks)
}

/// Sums the runs of a chunk.
struct SumRuns<'a, R, P> {
    sorted: &'a Sorted<'a>,
    rows: &'a R,
    place: &'a P,
    chunk: &'a Chunk,
    width: usize,
    /// From the row of the first run to that of the last.
    out: &'a mut [f32],
}

impl<R: RowsByPosition, P: Fn(usize) -> usize> Kernel for SumRuns<'_, R, P> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { sorted, rows, chunk, width, .. } = self;
        let first = (self.place)(chunk.runs.start);
        let positions = &sorted.positions[..chunk.positions.end];
        let mut fetched = chunk.positions.start;
        for run in chunk.runs.clone() {
            let own = chunk.positions.start.max(sorted.starts[run] as usize)
                ..chunk.positions.end.min(sorted.starts[run + 1] as usize);
            let start = ((self.place)(run) - first) * width;
            let out = &mut self.out[start..start + width];
            while fetched < positions.len().min(own.start + AHEAD) {
                let end = positions.len().min(fetched + AHEAD);
                rows.prefetch(&positions[fetched..end]);
                fetched = end;
            }
            if own.len() == 1 {
                let (weight, row) = rows.row(positions[own.start]);
                scale(l, weight, row, out);
            } else {
                sum_rows(
                    l,
                    own.len(),
                    &Run { rows, positions: &positions[own.start..], length: own.len() },
                    out,
                );
                fetched = fetched.max(own.end);
            }
        }
    }
}

/// The rows of a run; positions go on after it, to the end of its chunk.
struct Run<'a, R> {
    rows: &'a R,
    positions: &'a [u32],
    length: usize,
}

impl<R: RowsByPosition> WeightedRows for Run<'_, R> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        self.rows.row(self.positions[k])
    }

    /// Rows of short runs are prefetched across runs.
    #[inline(always)]
    fn prefetch(&self, k: usize) {
        if self.length > AHEAD {
            let end = self.length.min(k + AHEAD);
            self.rows.prefetch(&self.positions[k.min(end)..end]);
        }
    }
}

/// `out = weight·row`.
#[inline(always)]
fn scale<L: Lanes>(l: L, weight: f32, row: &[f32], out: &mut [f32]) {
    let ((row, row_tail), (out, out_tail)) = (row.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let factor = l.splat(weight);
    for (row, out) in row.iter().zip(out) {
        l.store(out, l.mul(factor, l.load(row)));
    }
    for (value, out) in row_tail.iter().zip(out_tail) {
        *out = weight * value;
    }
}
