//! Bucket sums: a history is read once, each behaviour hashed and added while it is in cache. Long histories are cut
//! into parts, whose sums are added in order.

use std::ops::Range;

use super::signatures::Signatures;
use crate::cpu::parts::{Part, parts};
use crate::cpu::tiles::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, add, widen_lanes};
use crate::element::Element;
use crate::ops::Sdim;

/// How many behaviours are hashed at a time: they and their projections stay in the first-level cache.
const BLOCK: usize = 32;

/// Which of a user's sums the behaviours of a bucket go to.
pub(super) trait Slots: Sync {
    /// The sum's row, or `None` where nobody asks for the bucket.
    fn slot(&self, group: usize, signature: u32) -> Option<usize>;
}

/// Every bucket has its sum: a table `[G, 2^τ, d]`.
pub(super) struct EveryBucket {
    pub(super) buckets: usize,
}

impl Slots for EveryBucket {
    #[inline(always)]
    fn slot(&self, group: usize, signature: u32) -> Option<usize> {
        Some(group * self.buckets + signature as usize)
    }
}

/// The buckets that some candidates ask for: an open-addressed table a group, from a signature to its sum. Where that
/// would be larger than all buckets, it is a plain table of them.
pub(super) struct WantedBuckets {
    /// `[G, capacity]`: a signature and its sum's row; the row of a free place is [`FREE`](Self::FREE).
    places: Vec<(u32, u32)>,
    capacity: usize,
    count: usize,
}

impl WantedBuckets {
    const FREE: u32 = u32::MAX;

    /// Those of candidates' signatures `[n, G]`.
    pub(super) fn new(op: &Sdim, signatures: &[u32]) -> Self {
        // At most half full, unless every signature has its own place.
        let capacity = op.buckets().min((2 * signatures.len() / op.groups).next_power_of_two());
        let mut wanted = Self { places: vec![(0, Self::FREE); op.groups * capacity], capacity, count: 0 };
        for (i, &signature) in signatures.iter().enumerate() {
            let place = wanted.place(i % op.groups, signature);
            if wanted.places[place].1 == Self::FREE {
                wanted.places[place] = (signature, wanted.count as u32);
                wanted.count += 1;
            }
        }
        wanted
    }

    /// How many sums there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where a signature is, or the free place where it would be.
    #[inline(always)]
    fn place(&self, group: usize, signature: u32) -> usize {
        let mut place = signature as usize % self.capacity;
        loop {
            let (taken_by, row) = self.places[group * self.capacity + place];
            if row == Self::FREE || taken_by == signature {
                return group * self.capacity + place;
            }
            place = (place + 1) % self.capacity;
        }
    }
}

impl Slots for &WantedBuckets {
    #[inline(always)]
    fn slot(&self, group: usize, signature: u32) -> Option<usize> {
        let (_, row) = self.places[self.place(group, signature)];
        (row != WantedBuckets::FREE).then_some(row as usize)
    }
}

/// Behaviours of many users, and what is known of them.
pub(super) struct Behaviours<'a, T> {
    pub(super) op: Sdim,
    /// `[N, d]`.
    pub(super) rows: &'a [T],
    pub(super) signatures: &'a Signatures<'a>,
}

impl<T: Element> Behaviours<'_, T> {
    /// Adds the behaviours of each history to its sums.
    pub(super) fn add_to<M: Slots>(
        &self,
        instructions: Instructions,
        histories: impl Iterator<Item = Range<usize>> + Clone,
        slots: impl Fn(usize) -> M + Sync,
        mut sums: Vec<&mut [f32]>,
    ) {
        // A part has many more rows than sums: next to its work, those of partial sums are little.
        let most = sums.iter().map(|sums| sums.len() / self.op.width).max().unwrap_or(0);
        let parts = parts(histories, (8 * most).max(8 * BLOCK));
        // A history's first part adds to its sums, each later one to partial sums of its own.
        let is_later = |i: usize| i > 0 && parts[i - 1].owner == parts[i].owner;
        let partial = |i: usize| if is_later(i) { sums[parts[i].owner].len() } else { 0 };
        let mut partials: Vec<Vec<f32>> = (0..parts.len()).map(|i| vec![0.0; partial(i)]).collect();
        let mut own = sums.iter_mut();
        let mut items = Vec::with_capacity(parts.len());
        for (i, (part, partial)) in parts.iter().zip(&mut partials).enumerate() {
            let sums = if is_later(i) { partial } else { own.next().map_or(&mut [][..], |sums| sums) };
            items.push((part, sums));
        }
        for_each(items, |(part, sums): (&Part, &mut [f32])| {
            let slots = slots(part.owner);
            instructions.run(AddRows { behaviours: self, rows: part.rows.clone(), slots, sums });
        });
        for (part, partial) in parts.iter().zip(&partials).filter(|(_, partial)| !partial.is_empty()) {
            add(sums[part.owner], partial);
        }
    }
}

/// Adds some behaviours to sums.
struct AddRows<'a, T, M> {
    behaviours: &'a Behaviours<'a, T>,
    rows: Range<usize>,
    slots: M,
    sums: &'a mut [f32],
}

impl<T: Element, M: Slots> Kernel for AddRows<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let Behaviours { op: Sdim { width, groups, .. }, rows, signatures } = *self.behaviours;
        let (mut rows_room, mut projections) = (Vec::new(), Vec::new());
        let mut block_signatures = vec![0; BLOCK * groups];
        for start in self.rows.clone().step_by(BLOCK) {
            let end = self.rows.end.min(start + BLOCK);
            let rows = widen_lanes(l, &rows[start * width..end * width], &mut rows_room);
            let block = &mut block_signatures[..(end - start) * groups];
            signatures.fill(l, start, rows, &mut projections, block);
            let whole = width / LANES;
            let mut column = 0;
            while column < whole {
                column += match whole - column {
                    4.. => self.add_columns::<L, 4>(l, rows, block, column * LANES),
                    _ => self.add_columns::<L, 1>(l, rows, block, column * LANES),
                };
            }
            if whole * LANES < width {
                self.add_tails(rows, block, whole * LANES);
            }
        }
    }
}

impl<T: Element, M: Slots> AddRows<'_, T, M> {
    /// Adds `V` vectors of columns of a block of rows; returns how many vectors that is.
    #[inline(always)]
    fn add_columns<L: Lanes, const V: usize>(
        &mut self,
        l: L,
        rows: &[f32],
        signatures: &[u32],
        column: usize,
    ) -> usize {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, signatures) in rows.chunks_exact(width).zip(signatures.chunks_exact(groups)) {
            let (row, _) = row[column..column + V * LANES].as_chunks::<LANES>();
            let row: [L::V; V] = std::array::from_fn(|v| l.load(&row[v]));
            for (group, &signature) in signatures.iter().enumerate() {
                if let Some(slot) = self.slots.slot(group, signature) {
                    let (sum, _) = self.sums[slot * width + column..][..V * LANES].as_chunks_mut::<LANES>();
                    for v in 0..V {
                        let total = l.add(l.load(&sum[v]), row[v]);
                        l.store(&mut sum[v], total);
                    }
                }
            }
        }
        V
    }

    /// Adds the columns behind the last whole vector.
    #[inline(always)]
    fn add_tails(&mut self, rows: &[f32], signatures: &[u32], column: usize) {
        let Sdim { width, groups, .. } = self.behaviours.op;
        for (row, signatures) in rows.chunks_exact(width).zip(signatures.chunks_exact(groups)) {
            for (group, &signature) in signatures.iter().enumerate() {
                if let Some(slot) = self.slots.slot(group, signature) {
                    let sum = &mut self.sums[slot * width..(slot + 1) * width];
                    sum[column..].iter_mut().zip(&row[column..]).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}
