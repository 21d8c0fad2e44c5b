//! Look-ups in embedding tables on the CPU. Work is cut into chunks of about [`ROWS`] rows: short bags share a chunk, long
//! ones are cut into several, whose sums are combined in order.

mod backward;
mod chunks;
mod update_rows;
mod weights;

use crate::cpu::Cpu;
use crate::cpu::gather::AHEAD;
use crate::cpu::lookup::backward::Backward;
use crate::cpu::lookup::chunks::{Chunk, ROWS, cut};
use crate::cpu::lookup::update_rows::update;
use crate::cpu::lookup::weights::SumWeightedBags;
use crate::cpu::sorted_ids::sort_into;
use crate::cpu::tables::{pool, prefetch_rows, read_rows};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes, add, add_pairs, with_default_floats};
use crate::element::Element;
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
        with_default_floats(|| lookup(self.instructions, op, &bags, &inputs, outputs))
    }

    fn sort_ids_into(&self, column: IdColumn<'_, Host>, out: SortedIdsMut<'_, Host>) -> Result<()> {
        column.check_outputs(&out)?;
        sort_into("sort_ids", &column, out)
    }

    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        saved: LookupSaved<'_, Host>,
        grad_out: LookupGradOut<'_, Host>,
        grads: LookupGradients<'_, Host>,
    ) -> Result<()> {
        let backward = Backward { instructions: self.instructions, op, bags: &bags, inputs: &inputs };
        with_default_floats(|| backward.run(&saved, &grad_out, grads))
    }

    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, Host, T>,
        state: OptimiserState<'_, Host>,
        gradient: SparseGradient<'_, Host>,
    ) -> Result<()> {
        with_default_floats(|| update(self.instructions, op, table, state, &gradient))
    }
}

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
        let weights = inputs.weights.as_ref().map(|weights| &weights[..ids.len()]);
        match bags {
            Bags::Each => read(instructions, tables, ids, out),
            Bags::Sum(bags) => sum(instructions, tables, ids, bags, Pooling::Sum(weights), out),
            Bags::Mean(bags) => {
                let skips = op.ids == IdPolicy::Skip;
                sum(instructions, tables, ids, bags, Pooling::Mean { skips }, out);
            }
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

/// How the rows of a bag are pooled.
#[derive(Clone, Copy)]
enum Pooling<'a> {
    /// With a weight for each id, if there are any.
    Sum(Option<&'a [f32]>),
    /// Of all ids, or without those outside their tables.
    Mean { skips: bool },
}

/// The sums, or means, of the rows of bags.
fn sum(
    instructions: Instructions,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    bags: &Jagged,
    pooling: Pooling<'_>,
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
    for_each(items, |(chunk, out)| match pooling {
        Pooling::Sum(Some(weights)) => {
            instructions.run(SumWeightedBags { tables, ids, weights, bags, chunk, width, out });
        }
        _ => instructions.run(SumBags { tables, ids, bags, pooling, chunk, width, out }),
    });
    let later: Vec<usize> =
        (0..chunks.len()).filter(|&i| is_later(i)).map(|i| chunks[i].bags.start).collect();
    let mut partials = &mut partials[..];
    for cut_bag in later.chunk_by(|a, b| a == b) {
        let (own, rest) = std::mem::take(&mut partials).split_at_mut(cut_bag.len() * width);
        partials = rest;
        let bag = cut_bag[0];
        let sum = &mut out[bag * width..(bag + 1) * width];
        add_pairs(own, width);
        add(sum, own);
        if let Pooling::Mean { skips } = pooling {
            let rows = bags.range(bag);
            let ids = &ids[rows.start * tables.len()..rows.end * tables.len()];
            instructions.run(Average { tables, ids, skips, sum });
        }
    }
}

/// Sums the rows of a chunk, by bag.
struct SumBags<'a> {
    tables: &'a [Table<'a, Host>],
    ids: &'a [u32],
    bags: &'a Jagged,
    pooling: Pooling<'a>,
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
            if let Pooling::Mean { skips } = self.pooling
                && rows == bag
            {
                let ids = &ids[..bag.len() * tables.len()];
                Average { tables, ids, skips, sum: out }.run(l);
            }
        }
    }
}

/// Makes the mean of a bag of its sum.
struct Average<'a> {
    tables: &'a [Table<'a, Host>],
    /// The ids of the bag.
    ids: &'a [u32],
    /// Ids outside their tables do not count.
    skips: bool,
    sum: &'a mut [f32],
}

impl Kernel for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { tables, ids, skips, sum } = self;
        if !skips {
            return Divide { tables, ids, sum }.run(l);
        }
        let (mut left, mut inside) = (sum, Vec::new());
        for (feature, table) in tables.iter().enumerate() {
            let (own, rest) = left.split_at_mut(table.width);
            left = rest;
            let column = ids.iter().skip(feature).step_by(tables.len()).copied();
            inside.clear();
            inside.extend(column.filter(|&id| (id as usize) < table.rows));
            Divide { tables: &tables[feature..=feature], ids: &inside, sum: own }.run(l);
        }
    }
}

/// Divides the sum of a bag by its length. An empty bag stays zeros.
struct Divide<'a> {
    tables: &'a [Table<'a, Host>],
    /// The ids of the bag.
    ids: &'a [u32],
    sum: &'a mut [f32],
}

impl Kernel for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { tables, ids, sum } = self;
        let rows = ids.len() / tables.len();
        if rows <= 1 {
            return;
        }
        let mut finite = true;
        for value in sum.iter_mut() {
            finite &= value.is_finite();
            *value /= rows as f32;
        }
        if finite {
            return;
        }
        // The sum of numbers whose mean is finite may exceed f32.
        let (mut row, mut exact) = (vec![0.0; sum.len()], vec![0.0; sum.len()]);
        for ids in ids.chunks_exact(tables.len()) {
            read_rows(l, tables, ids, &mut row, sum.len());
            exact.iter_mut().zip(&row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sum.iter_mut().zip(exact).for_each(|(mean, sum)| *mean = (sum / rows as f64) as f32);
    }
}
