//! Look-ups in embedding tables on the CPU. Work is cut into chunks of about [`ROWS`] rows: short bags share a chunk, long
//! ones are cut into several, whose sums are combined in order.

use std::ops::Range;

use crate::cpu::Cpu;
use crate::cpu::gather::AHEAD;
use crate::cpu::tables::{pool, prefetch_rows, read_rows};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes, add};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Jagged;
use crate::ops::*;

impl LookupOps for Cpu {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        outputs: LookupOutputs<'_, Host>,
    ) -> Result<()> {
        lookup(self.instructions, op, &bags, &inputs, outputs)
    }
}

/// About how many rows make a chunk; a bag of more than twice as many is cut.
const ROWS: usize = 1024;

pub(super) fn lookup(
    instructions: Instructions,
    op: &Lookup,
    bags: &Bags<'_, Jagged>,
    inputs: &LookupInputs<'_, Host>,
    outputs: LookupOutputs<'_, Host>,
) -> Result<()> {
    let rows = op.check(bags, inputs)?;
    op.check_outputs(rows, inputs, &outputs)?;
    let used = match bags {
        Bags::Each => rows,
        Bags::Sum(bags) | Bags::Mean(bags) => bags.total(),
    };
    let ids = &inputs.ids[..used * inputs.tables.len()];
    check_host_ids("lookup", "ids", op.ids, inputs.tables, ids)?;
    let second = outputs.second.map(|out| (inputs.second_tables, out));
    for (tables, out) in [(inputs.tables, outputs.out)].into_iter().chain(second) {
        let out = out.into_slice();
        match bags {
            Bags::Each => read(instructions, tables, ids, out),
            Bags::Sum(bags) => sum(instructions, tables, ids, bags, false, out),
            Bags::Mean(bags) => sum(instructions, tables, ids, bags, true, out),
        }
    }
    Ok(())
}

fn read(instructions: Instructions, tables: &[Table<'_, Host>], ids: &[u32], out: &mut [f32]) {
    let width = total_width(tables).max(1);
    let chunks = ids.chunks(ROWS * tables.len()).zip(out.chunks_mut(ROWS * width)).collect();
    for_each(chunks, |(ids, out)| instructions.run(Read { tables, ids, width, out }));
}

/// Reads the rows that a chunk of ids names.
struct Read<'a> {
    tables: &'a [Table<'a, Host>],
    ids: &'a [u32],
    width: usize,
    out: &'a mut [f32],
}

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let block = AHEAD * self.tables.len();
        for (i, (ids, out)) in self.ids.chunks(block).zip(self.out.chunks_mut(AHEAD * self.width)).enumerate()
        {
            let next = self.ids.len().min((i + 1) * block)..self.ids.len().min((i + 2) * block);
            prefetch_rows(self.tables, &self.ids[next]);
            read_rows(l, self.tables, ids, out, self.width);
        }
    }
}

/// The sums, or means, of the rows of bags.
fn sum(
    instructions: Instructions,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    bags: &Jagged,
    mean: bool,
    out: &mut [f32],
) {
    let width = total_width(tables);
    let chunks = cut(bags);
    // The first chunk of a cut bag writes the output, each later one a row of `partials`.
    let is_later = |i: usize| chunks[i].rows.start > bags.range(chunks[i].bags.start).start;
    let mut partials = vec![0.0; (0..chunks.len()).filter(|&i| is_later(i)).count() * width];
    let (mut own, mut partial) = (&mut *out, partials.chunks_exact_mut(width));
    let mut items = Vec::with_capacity(chunks.len());
    for (i, chunk) in chunks.iter().enumerate() {
        let rows = if is_later(i) {
            partial.next().unwrap_or_default()
        } else {
            let (rows, rest) = std::mem::take(&mut own).split_at_mut(chunk.bags.len() * width);
            own = rest;
            rows
        };
        items.push((chunk, rows));
    }
    for_each(items, |(chunk, out)| instructions.run(SumBags { tables, ids, bags, mean, chunk, width, out }));
    let later = (0..chunks.len()).filter(|&i| is_later(i));
    for (i, partial) in later.zip(partials.chunks_exact(width)) {
        let bag = chunks[i].bags.start;
        let sum = &mut out[bag * width..(bag + 1) * width];
        add(sum, partial);
        if mean && chunks[i].rows.end == bags.range(bag).end {
            divide(sum, bags.range(bag).len());
        }
    }
}

/// Some whole bags, or a span of a long one.
struct Chunk {
    bags: Range<usize>,
    rows: Range<usize>,
}

fn cut(bags: &Jagged) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (bag, rows) in bags.ranges().enumerate() {
        if let Some(last) = chunks.last_mut()
            && last.rows.len() + last.bags.len() + rows.len() < ROWS
        {
            (last.bags.end, last.rows.end) = (bag + 1, rows.end);
            continue;
        }
        let count = (rows.len() / ROWS).max(1);
        let edge = |i: usize| if i == count { rows.end } else { rows.start + i * ROWS };
        chunks.extend((0..count).map(|i| Chunk { bags: bag..bag + 1, rows: edge(i)..edge(i + 1) }));
    }
    chunks
}

/// Sums the rows of a chunk, by bag.
struct SumBags<'a> {
    tables: &'a [Table<'a, Host>],
    ids: &'a [u32],
    bags: &'a Jagged,
    mean: bool,
    chunk: &'a Chunk,
    width: usize,
    /// One row per bag of the chunk.
    out: &'a mut [f32],
}

impl Kernel for SumBags<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { tables, bags, chunk, .. } = self;
        let mut scratch = Vec::new();
        for (bag, out) in chunk.bags.clone().zip(self.out.chunks_exact_mut(self.width)) {
            let bag = bags.range(bag);
            let rows = bag.start.max(chunk.rows.start)..bag.end.min(chunk.rows.end);
            let ids = &self.ids[rows.start * tables.len()..chunk.rows.end * tables.len()];
            pool(l, tables, ids, rows.len(), None, &mut scratch, out);
            if self.mean && rows == bag {
                divide(out, bag.len());
            }
        }
    }
}

/// Divides the sum of a bag by its length. An empty bag stays zeros.
#[inline(always)]
fn divide(sum: &mut [f32], length: usize) {
    if length > 1 {
        sum.iter_mut().for_each(|value| *value /= length as f32);
    }
}
