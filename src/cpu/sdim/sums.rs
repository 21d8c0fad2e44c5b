//! Bucket sums: a history is read once, and each behaviour is hashed and added while it is in cache. Long histories are
//! cut into spans, whose sums are combined in order.

use std::collections::HashMap;
use std::ops::Range;

use crate::cpu::sdim::signatures::Signatures;
use crate::cpu::spans::{Span, spans};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Row, WideRows, add};
use crate::ops::Sdim;

/// The number of behaviours in a block: they and their projections stay in the L1 cache.
pub(super) const BLOCK: usize = 32;

/// The behaviours whose sums are computed before they are added to older ones: rounding errors grow with this number and the
/// number of parts, not with their product.
const PART: usize = 256;

/// The mapping from a user's buckets to its sums.
pub(super) trait BucketRows: Sync {
    /// The row of the bucket's sum, or `None` if no candidate reads the bucket.
    fn sum_row(&self, group: usize, signature: u32) -> Option<usize>;
}

/// Every bucket has a sum: a table `[G, 2^τ, d]`.
pub(super) struct EveryBucket {
    pub(super) buckets: usize,
}

impl BucketRows for EveryBucket {
    #[inline(always)]
    fn sum_row(&self, group: usize, signature: u32) -> Option<usize> {
        Some(group * self.buckets + signature as usize)
    }
}

/// The buckets that some candidates read: one open-addressing hash table per group, from a signature to its sum. If that
/// would be larger than the number of buckets, it is a direct-mapped table of all buckets.
pub(super) struct WantedBuckets {
    /// `[G, capacity]`: a signature and the row of its sum; the row of an empty entry is [`FREE`](Self::FREE).
    entries: Vec<(u32, u32)>,
    capacity: usize,
    count: usize,
}

impl WantedBuckets {
    const FREE: u32 = u32::MAX;

    /// The buckets of the candidates' signatures `[n, G]`.
    pub(super) fn new(op: &Sdim, signatures: &[u32]) -> Self {
        // At most half full, unless it is direct-mapped. Without candidates there is no entry: groups may be any number then.
        let most = 2 * signatures.len() / op.groups;
        let capacity = if most == 0 { 0 } else { op.buckets().min(most.next_power_of_two()) };
        let mut wanted = Self { entries: vec![(0, Self::FREE); op.groups * capacity], capacity, count: 0 };
        for (i, &signature) in signatures.iter().enumerate() {
            let entry = wanted.find(i % op.groups, signature);
            if wanted.entries[entry].1 == Self::FREE {
                wanted.entries[entry] = (signature, wanted.count as u32);
                wanted.count += 1;
            }
        }
        wanted
    }

    /// The number of sums.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The entry of a signature, or the empty entry where it would be inserted.
    #[inline(always)]
    fn find(&self, group: usize, signature: u32) -> usize {
        let mut probe = signature as usize % self.capacity;
        loop {
            let (stored, row) = self.entries[group * self.capacity + probe];
            if row == Self::FREE || stored == signature {
                return group * self.capacity + probe;
            }
            probe = (probe + 1) % self.capacity;
        }
    }
}

impl BucketRows for &WantedBuckets {
    #[inline(always)]
    fn sum_row(&self, group: usize, signature: u32) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let (_, row) = self.entries[self.find(group, signature)];
        (row != WantedBuckets::FREE).then_some(row as usize)
    }
}

/// The behaviours of all users and their signatures.
pub(super) struct Behaviours<'a> {
    pub(super) op: Sdim,
    /// `[N, d]`.
    pub(super) rows: WideRows<'a>,
    pub(super) signatures: &'a Signatures<'a>,
}

impl Behaviours<'_> {
    /// Adds the behaviours of each history to its sums.
    pub(super) fn add_to<M: BucketRows>(
        &self,
        instructions: Instructions,
        histories: impl Iterator<Item = Range<usize>> + Clone,
        bucket_rows: impl Fn(usize) -> M + Sync,
        mut sums: Vec<&mut [f32]>,
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
            items.push((span, sums));
        }
        for_each(items, |(span, sums): (&Span, &mut [f32])| {
            let bucket_rows = bucket_rows(span.owner);
            instructions.run(AddRows { behaviours: self, rows: span.rows.clone(), bucket_rows, sums });
        });
        for (span, partial) in spans.iter().zip(&partials).filter(|(_, partial)| !partial.is_empty()) {
            add(sums[span.owner], partial);
        }
    }
}

/// Adds some behaviours to sums.
struct AddRows<'a, M> {
    behaviours: &'a Behaviours<'a>,
    rows: Range<usize>,
    bucket_rows: M,
    sums: &'a mut [f32],
}

impl<M: BucketRows> Kernel for AddRows<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { behaviours, rows, bucket_rows, sums } = self;
        let Sdim { width, groups, .. } = behaviours.op;
        let block = |rows: Range<usize>| AddBlock { behaviours, rows, bucket_rows: &bucket_rows };
        let mut scratch = Scratch::default();
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
                add(sums, &part);
                part.fill(0.0);
            }
        } else {
            let mut often = Often::new(sums.len() / width);
            for rows in parts(rows, BLOCK) {
                block(rows).run(l, &mut scratch, sums);
                for (i, &signature) in scratch.signatures.iter().enumerate() {
                    if let Some(sum_row) = bucket_rows.sum_row(i % groups, signature) {
                        often.count(sum_row, width, sums);
                    }
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

/// Scratch of blocks; `signatures` are those of the last block.
#[derive(Default)]
struct Scratch {
    widened: Vec<f32>,
    projections: Vec<Row>,
    signatures: Vec<u32>,
}

impl<M: BucketRows> AddBlock<'_, M> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L, scratch: &mut Scratch, sums: &mut [f32]) {
        let Behaviours { op: Sdim { width, groups, .. }, rows, signatures } = *self.behaviours;
        let Range { start, end } = self.rows;
        let rows = rows.widen(l, start * width..end * width, &mut scratch.widened);
        scratch.signatures.resize((end - start) * groups, 0);
        signatures.fill(l, start, rows, &mut scratch.projections, &mut scratch.signatures);
        let signatures = &scratch.signatures[..];
        let whole = width / LANES;
        let mut column = 0;
        while column < whole {
            column += match whole - column {
                4.. => self.add_columns::<L, 4>(l, rows, signatures, column * LANES, sums),
                _ => self.add_columns::<L, 1>(l, rows, signatures, column * LANES, sums),
            };
        }
        if whole * LANES < width {
            self.add_tails(rows, signatures, whole * LANES, sums);
        }
    }

    /// Adds `V` vectors of columns of a block of rows; returns `V`.
    #[inline(always)]
    fn add_columns<L: Lanes, const V: usize>(
        &self,
        l: L,
        rows: &[f32],
        signatures: &[u32],
        column: usize,
        sums: &mut [f32],
    ) -> usize {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, signatures) in rows.chunks_exact(width).zip(signatures.chunks_exact(groups)) {
            let (row, _) = row[column..column + V * LANES].as_chunks::<LANES>();
            let row: [L::V; V] = std::array::from_fn(|v| l.load(&row[v]));
            for (group, &signature) in signatures.iter().enumerate() {
                if let Some(sum_row) = self.bucket_rows.sum_row(group, signature) {
                    let (sum, _) = sums[sum_row * width + column..][..V * LANES].as_chunks_mut::<LANES>();
                    for v in 0..V {
                        let updated = l.add(l.load(&sum[v]), row[v]);
                        l.store(&mut sum[v], updated);
                    }
                }
            }
        }
        V
    }

    /// Adds the columns after the last whole vector.
    #[inline(always)]
    fn add_tails(&self, rows: &[f32], signatures: &[u32], column: usize, sums: &mut [f32]) {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, signatures) in rows.chunks_exact(width).zip(signatures.chunks_exact(groups)) {
            for (group, &signature) in signatures.iter().enumerate() {
                if let Some(sum_row) = self.bucket_rows.sum_row(group, signature) {
                    let sum = &mut sums[sum_row * width..(sum_row + 1) * width];
                    sum[column..].iter_mut().zip(&row[column..]).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}
