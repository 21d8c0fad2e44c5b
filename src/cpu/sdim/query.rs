//! The gather: the sums of a candidate's buckets, normalised and averaged.

use std::ops::Range;

use crate::cpu::gather::{WeightedRows, sum_rows};
use crate::cpu::sdim::sums::BucketRows;
use crate::cpu::vector::{Kernel, Lanes, dot_lanes, store};
use crate::element::Element;
use crate::ops::Sdim;

/// The number of candidates in a tile.
const CANDIDATES: usize = 256;

/// Cuts the consecutive candidates of some users, and the rows of their output, into tiles: user, candidates, output rows.
pub(super) fn tiles<'a, T>(
    op: &Sdim,
    targets: impl Iterator<Item = (usize, Range<usize>)>,
    mut out: &'a mut [T],
) -> Vec<(usize, Range<usize>, &'a mut [T])> {
    let mut tiles = Vec::new();
    for (user, targets) in targets {
        for start in targets.clone().step_by(CANDIDATES) {
            let tile = start..targets.end.min(start + CANDIDATES);
            let (rows, rest) = std::mem::take(&mut out).split_at_mut(tile.len() * op.width);
            tiles.push((user, tile, rows));
            out = rest;
        }
    }
    tiles
}

/// Averages the sums that some candidates of one user read.
pub(super) struct Average<'a, T, M> {
    pub(super) op: &'a Sdim,
    /// `[n, G]`.
    pub(super) signatures: &'a [u32],
    /// The user's sums, `d` numbers each, and the mapping from buckets to them.
    pub(super) sums: &'a [f32],
    pub(super) bucket_rows: M,
    /// `[n, d]`.
    pub(super) out: &'a mut [T],
}

impl<T: Element, M: BucketRows> Kernel for Average<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Sdim { width, groups, .. } = *self.op;
        // If many candidates share buckets, compute the length of each sum once.
        let share = self.signatures.len() * width >= self.sums.len();
        let mut shared = Vec::new();
        if share {
            for sum in self.sums.chunks_exact(width) {
                shared.push(weight(l, self.op, sum));
            }
        }
        let mut buckets = Buckets { sums: self.sums, width, wanted: vec![(0.0, 0); groups] };
        let mut mean = vec![0.0; width];
        for (signatures, out) in self.signatures.chunks_exact(groups).zip(self.out.chunks_exact_mut(width)) {
            for (group, &signature) in signatures.iter().enumerate() {
                // Always found: the sums were made for the signatures of these candidates.
                let Some(sum_row) = self.bucket_rows.sum_row(group, signature) else { continue };
                let sum = &self.sums[sum_row * width..(sum_row + 1) * width];
                let weight = if share { shared[sum_row] } else { weight(l, self.op, sum) };
                buckets.wanted[group] = (weight, sum_row);
            }
            sum_rows(l, groups, &buckets, &mut mean);
            store(out, &mean);
        }
    }
}

/// The sums that one candidate reads.
struct Buckets<'a> {
    sums: &'a [f32],
    width: usize,
    /// Weight and row, by group.
    wanted: Vec<(f32, usize)>,
}

impl WeightedRows for Buckets<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        let (weight, sum_row) = self.wanted[k];
        (weight, &self.sums[sum_row * self.width..(sum_row + 1) * self.width])
    }

    /// Nothing to do: a user's sums are few, and stay in cache.
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// The weight of a sum in the mean: `1/G`, divided by the length of the sum.
#[inline(always)]
fn weight<L: Lanes>(l: L, op: &Sdim, sum: &[f32]) -> f32 {
    let length = if op.normalise { dot_lanes(l, sum, sum).sqrt().max(Sdim::MIN_NORM) } else { 1.0 };
    1.0 / (length * op.groups as f32)
}
