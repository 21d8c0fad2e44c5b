//! Bucket sums: a history is read once, and each behaviour is hashed and added while it is in cache. Long histories are
//! cut into spans, whose sums are combined in order.

use std::collections::HashMap;
use std::ops::Range;

use crate::cpu::sdim::buckets::{BucketRows, NO_ROW};
use crate::cpu::sdim::signatures::Signatures;
use crate::cpu::spans::{Span, spans};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{
    Instructions, Kernel, LANES, Lanes, Row, WideRows, add, add_lanes, load_each, prefetch_rows,
};
use crate::host::Host;
use crate::memory::View;
use crate::ops::Sdim;

/// The number of behaviours in a block: they and their projections stay in the L1 cache, and no row of a tile of the hash's
/// product is computed in vain.
pub(super) const BLOCK: usize = 48;

/// The behaviours whose sums are computed before they are added to older ones: rounding errors grow with this number and the
/// number of parts, not with their product.
const PART: usize = 5 * BLOCK;

/// What rows are multiplied by: 1 by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weights<'a> {
    /// `[N]`.
    of_rows: Option<&'a [f32]>,
    negative: bool,
}

impl<'a> Weights<'a> {
    /// The weights of the caller, or 1, or the same with the other sign.
    pub(super) fn new(given: &Option<View<'a, Host, f32>>, negative: bool) -> Self {
        Self { of_rows: given.as_ref().map(View::as_slice), negative }
    }

    /// Multiplies rows `[n, d]`, of which the first is row `first` of all rows, if there are weights.
    #[inline(always)]
    pub(super) fn multiply(&self, first: usize, width: usize, rows: &mut [f32]) {
        for (row, i) in rows.chunks_exact_mut(width).zip(first..) {
            let weight = self.of_rows.map_or(1.0, |weights| weights[i]);
            let weight = if self.negative { -weight } else { weight };
            row.iter_mut().for_each(|x| *x *= weight);
        }
    }

    /// Whether all are 1.
    pub(super) fn are_one(&self) -> bool {
        self.of_rows.is_none() && !self.negative
    }
}

/// The behaviours of all users and their signatures.
pub(super) struct Behaviours<'a> {
    pub(super) op: Sdim,
    /// `[N, d]`.
    pub(super) rows: WideRows<'a>,
    pub(super) signatures: &'a Signatures<'a>,
    pub(super) weights: Weights<'a>,
}

impl Behaviours<'_> {
    /// Adds the behaviours of each history to its sums, and writes their signatures `[n, G]` to `kept`, if given.
    pub(super) fn add_to<M: BucketRows>(
        &self,
        instructions: Instructions,
        histories: impl Iterator<Item = Range<usize>> + Clone,
        bucket_rows: impl Fn(usize) -> M + Sync,
        mut sums: Vec<&mut [f32]>,
        mut kept: Option<&mut [u16]>,
    ) {
        // A span has many more rows than sums, so that combining partial sums costs little next to its work.
        let most = sums.iter().map(|sums| sums.len() / self.op.width).max().unwrap_or(0);
        let spans = spans(histories, (8 * most).max(8 * BLOCK));
        // The first span of a history adds to its sums, each later one to partial sums of its own.
        let is_later = |i: usize| i > 0 && spans[i - 1].owner == spans[i].owner;
        let partial = |i: usize| if is_later(i) { sums[spans[i].owner].len() } else { 0 };
        let mut partials: Vec<Vec<f32>> = (0..spans.len()).map(|i| vec![0.0; partial(i)]).collect();
        let mut own = sums.iter_mut();
        let mut items = Vec::with_capacity(spans.len());
        for (i, (span, partial)) in spans.iter().zip(&mut partials).enumerate() {
            let sums = if is_later(i) { partial } else { own.next().map_or(&mut [][..], |sums| sums) };
            let kept = kept.as_mut().and_then(|kept| kept.split_off_mut(..span.rows.len() * self.op.groups));
            items.push((span, sums, kept));
        }
        for_each(few_rows(items), |items: Vec<Item<'_>>| {
            if items.len() > 1 && !self.signatures.reads_rows() {
                items.iter().for_each(|(span, sums, _)| self.prefetch(span, &bucket_rows(span.owner), sums));
            }
            for (span, sums, kept) in items {
                let (rows, bucket_rows) = (span.rows.clone(), bucket_rows(span.owner));
                instructions.run(AddRows { behaviours: self, rows, bucket_rows, sums, kept });
            }
        });
        for (span, partial) in spans.iter().zip(&partials).filter(|(_, partial)| !partial.is_empty()) {
            add(sums[span.owner], partial);
        }
    }
}

impl Behaviours<'_> {
    /// Prefetches the sums that the behaviours of a span are added to.
    fn prefetch<M: BucketRows>(&self, span: &Span, bucket_rows: &M, sums: &[f32]) {
        let Sdim { width, groups, .. } = self.op;
        let (mut signatures, mut rows) = (vec![0; span.rows.len() * groups], Vec::new());
        self.signatures.copy_given(span.rows.start, &mut signatures);
        bucket_rows.sum_rows(groups, &signatures, &mut rows);
        prefetch_rows(sums, width, rows.into_iter().filter(|&row| row != NO_ROW));
    }
}

/// The rows of short histories that are added together: kept tables of many users are in no cache, and their rows are waited for once.
const FEW_ROWS: usize = 16;

/// A span, its sums, and where its signatures are kept, if they are.
type Item<'a> = (&'a Span, &'a mut [f32], Option<&'a mut [u16]>);

/// Consecutive spans, together [`FEW_ROWS`] behaviours or one span.
fn few_rows(items: Vec<Item<'_>>) -> Vec<Vec<Item<'_>>> {
    let (mut few, mut rows) = (Vec::<Vec<Item<'_>>>::new(), 0);
    for item in items {
        let count = item.0.rows.len();
        match few.last_mut() {
            Some(last) if rows + count <= FEW_ROWS => {
                last.push(item);
                rows += count;
            }
            _ => {
                few.push(vec![item]);
                rows = count;
            }
        }
    }
    few
}

/// Adds some behaviours to sums.
struct AddRows<'a, M> {
    behaviours: &'a Behaviours<'a>,
    rows: Range<usize>,
    bucket_rows: M,
    sums: &'a mut [f32],
    /// Where the signatures go, if they are kept.
    kept: Option<&'a mut [u16]>,
}

impl<M: BucketRows> Kernel for AddRows<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { behaviours, rows, bucket_rows, sums, kept } = self;
        let Sdim { width, groups, .. } = behaviours.op;
        let block = |rows: Range<usize>| AddBlock { behaviours, rows, bucket_rows: &bucket_rows };
        let mut scratch = Scratch { kept: kept.unwrap_or_default(), ..Default::default() };
        if rows.len() <= PART {
            for rows in parts(rows, BLOCK) {
                block(rows).run(l, &mut scratch, sums);
            }
        } else if sums.len() / width <= PART.saturating_mul(groups) / 16 {
            // Few sums: adding all of them after each part costs little.
            let mut part = vec![0.0; sums.len()];
            for rows in parts(rows, PART) {
                for rows in parts(rows, BLOCK) {
                    block(rows).run(l, &mut scratch, &mut part);
                }
                add_lanes(l, sums, &part);
                part.fill(0.0);
            }
        } else {
            let mut often = Often::new(sums.len() / width);
            for rows in parts(rows, BLOCK) {
                block(rows).run(l, &mut scratch, sums);
                for &sum_row in scratch.sum_rows.iter().filter(|&&sum_row| sum_row != NO_ROW) {
                    often.count(sum_row, width, sums);
                }
            }
            often.finish(width, sums);
        }
    }
}

/// Cuts a range into parts of `length`.
fn parts(range: Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(length).map(move |start| start..range.end.min(start + length))
}

/// Among many sums, those that many behaviours are added to: every [`PART`] of them are put aside.
struct Often {
    counts: Vec<u32>,
    aside: HashMap<usize, Vec<f32>>,
}

impl Often {
    fn new(sum_rows: usize) -> Self {
        Self { counts: vec![0; sum_rows], aside: HashMap::new() }
    }

    /// Counts a behaviour that was added to a sum.
    #[inline(always)]
    fn count(&mut self, sum_row: usize, width: usize, sums: &mut [f32]) {
        self.counts[sum_row] += 1;
        if self.counts[sum_row] == PART as u32 {
            self.counts[sum_row] = 0;
            let sum = &mut sums[sum_row * width..(sum_row + 1) * width];
            add(self.aside.entry(sum_row).or_insert_with(|| vec![0.0; width]), sum);
            sum.fill(0.0);
        }
    }

    /// Adds what was put aside.
    fn finish(self, width: usize, sums: &mut [f32]) {
        for (sum_row, aside) in self.aside {
            add(&mut sums[sum_row * width..(sum_row + 1) * width], &aside);
        }
    }
}

/// Adds a block of behaviours.
struct AddBlock<'a, M> {
    behaviours: &'a Behaviours<'a>,
    rows: Range<usize>,
    bucket_rows: &'a M,
}

/// Scratch of blocks; `sum_rows` are those of the last block.
#[derive(Default)]
struct Scratch<'a> {
    widened: Vec<f32>,
    weighted: Vec<f32>,
    projections: Vec<Row>,
    signatures: Vec<u32>,
    sum_rows: Vec<usize>,
    /// Where the signatures of the blocks that are left go; empty if they are not kept.
    kept: &'a mut [u16],
}

impl<M: BucketRows> AddBlock<'_, M> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L, scratch: &mut Scratch<'_>, sums: &mut [f32]) {
        let Behaviours { op: Sdim { width, groups, .. }, rows, signatures, weights } = *self.behaviours;
        let Range { start, end } = self.rows;
        let rows = rows.widen(l, start * width..end * width, &mut scratch.widened);
        scratch.signatures.resize((end - start) * groups, 0);
        signatures.fill(l, start, rows, &mut scratch.projections, &mut scratch.signatures);
        if let Some(kept) = scratch.kept.split_off_mut(..scratch.signatures.len()) {
            kept.iter_mut().zip(&scratch.signatures).for_each(|(kept, &signature)| *kept = signature as u16);
        }
        self.bucket_rows.sum_rows(groups, &scratch.signatures, &mut scratch.sum_rows);
        let rows = if weights.are_one() {
            rows
        } else {
            scratch.weighted.clear();
            scratch.weighted.extend_from_slice(rows);
            weights.multiply(start, width, &mut scratch.weighted);
            &scratch.weighted
        };
        let sum_rows = &scratch.sum_rows[..];
        let whole = width / LANES;
        let mut column = 0;
        while column < whole {
            column += match whole - column {
                4.. => self.add_columns::<L, 4>(l, rows, sum_rows, column * LANES, sums),
                _ => self.add_columns::<L, 1>(l, rows, sum_rows, column * LANES, sums),
            };
        }
        if whole * LANES < width {
            self.add_tails(rows, sum_rows, whole * LANES, sums);
        }
    }

    /// Adds `V` vectors of columns of a block of rows; returns `V`.
    #[inline(always)]
    fn add_columns<L: Lanes, const V: usize>(
        &self,
        l: L,
        rows: &[f32],
        sum_rows: &[usize],
        column: usize,
        sums: &mut [f32],
    ) -> usize {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, sum_rows) in rows.chunks_exact(width).zip(sum_rows.chunks_exact(groups)) {
            let (row, _) = row[column..column + V * LANES].as_chunks::<LANES>();
            let row: &[Row; V] = row.try_into().expect("V vectors");
            let row = load_each(l, row);
            for &sum_row in sum_rows {
                if sum_row == NO_ROW {
                    continue;
                }
                let (sum, _) = sums[sum_row * width + column..][..V * LANES].as_chunks_mut::<LANES>();
                for v in 0..V {
                    let updated = l.add(l.load(&sum[v]), row[v]);
                    l.store(&mut sum[v], updated);
                }
            }
        }
        V
    }

    /// Adds the columns after the last whole vector.
    #[inline(always)]
    fn add_tails(&self, rows: &[f32], sum_rows: &[usize], column: usize, sums: &mut [f32]) {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, sum_rows) in rows.chunks_exact(width).zip(sum_rows.chunks_exact(groups)) {
            for &sum_row in sum_rows.iter().filter(|&&sum_row| sum_row != NO_ROW) {
                let sum = &mut sums[sum_row * width..(sum_row + 1) * width];
                sum[column..].iter_mut().zip(&row[column..]).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}
