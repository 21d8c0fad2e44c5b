//! Weighted sums of bags, and the gradient of the weights.

use crate::cpu::gather::AHEAD;
use crate::cpu::lookup::chunks::Chunk;
use crate::cpu::tables::{pool, prefetch_rows, read_row};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes, dot_lanes};
use crate::host::Host;
use crate::jagged::Jagged;
use crate::ops::Table;

/// Sums the weighted rows of a chunk, by bag.
pub(super) struct SumWeightedBags<'a> {
    pub(super) tables: &'a [Table<'a, Host>],
    pub(super) ids: &'a [u32],
    /// One for each id.
    pub(super) weights: &'a [f32],
    pub(super) bags: &'a Jagged,
    pub(super) chunk: &'a Chunk,
    pub(super) width: usize,
    /// One row per bag of the chunk.
    pub(super) out: &'a mut [f32],
}

impl Kernel for SumWeightedBags<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (features, rows) = (self.tables.len(), self.chunk.rows.clone());
        let (mut ids, mut weights) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let (mut scratch, mut start) = (Vec::new(), 0);
        for (feature, table) in self.tables.iter().enumerate() {
            let places = rows.clone().map(|row| row * features + feature);
            ids.clear();
            ids.extend(places.clone().map(|place| self.ids[place]));
            // An id outside adds nothing, whatever its weight.
            let weight = |(place, &id): (usize, &u32)| {
                if (id as usize) < table.rows { self.weights[place] } else { 0.0 }
            };
            weights.clear();
            weights.extend(places.zip(&ids).map(weight));
            for (bag, out) in self.chunk.bags.clone().zip(self.out.chunks_exact_mut(self.width)) {
                let bag = self.bags.range(bag);
                let (first, end) =
                    (bag.start.max(rows.start) - rows.start, bag.end.min(rows.end) - rows.start);
                let (tables, out) = (&self.tables[feature..=feature], &mut out[start..start + table.width]);
                pool(l, tables, &ids[first..], end - first, Some(&weights[first..]), &mut scratch, out);
            }
            start += table.width;
        }
    }
}

/// Rows of ids that a thread takes at a time.
const ROWS: usize = 512;

/// Products that are added up before their sum is added to the others.
const BLOCK: usize = 4096;

/// Writes, or adds, the products of the rows that ids name with the gradients of their bags.
pub(super) fn weight_gradient(
    instructions: Instructions,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    bag_of: &[u32],
    grad: &[f32],
    adds: bool,
    out: &mut [f32],
) {
    let features = tables.len();
    let chunks = ids.chunks(ROWS * features).zip(bag_of.chunks(ROWS)).zip(out.chunks_mut(ROWS * features));
    for_each(chunks.collect(), |((ids, bag_of), out)| {
        instructions.run(RowProducts { tables, ids, bag_of, grad, adds, out });
    });
}

struct RowProducts<'a> {
    tables: &'a [Table<'a, Host>],
    ids: &'a [u32],
    /// The bag of each row of ids.
    bag_of: &'a [u32],
    /// `[bags, Σ width]`.
    grad: &'a [f32],
    adds: bool,
    out: &'a mut [f32],
}

impl Kernel for RowProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { tables, ids, bag_of, grad, .. } = self;
        let features = tables.len();
        let width: usize = tables.iter().map(|table| table.width).sum();
        let mut scratch = vec![0.0; width];
        let rows = ids.chunks_exact(features).zip(bag_of).zip(self.out.chunks_exact_mut(features));
        for (i, ((own, &bag), out)) in rows.enumerate() {
            if i.is_multiple_of(AHEAD) {
                let next = ids.len().min((i + AHEAD) * features)..ids.len().min((i + 2 * AHEAD) * features);
                prefetch_rows(tables, &ids[next]);
            }
            let mut start = bag as usize * width;
            for ((table, &id), out) in tables.iter().zip(own).zip(out) {
                let grad = &grad[start..start + table.width];
                start += table.width;
                let mut sum = 0.0;
                if (id as usize) < table.rows {
                    let row = &mut scratch[..table.width];
                    read_row(l, table, id, row);
                    for (row, grad) in row.chunks(BLOCK).zip(grad.chunks(BLOCK)) {
                        sum += dot_lanes(l, row, grad);
                    }
                }
                *out = if self.adds { *out + sum } else { sum };
            }
        }
    }
}
