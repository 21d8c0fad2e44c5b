//! The gather: a candidate's buckets, normalised and averaged.

use std::ops::Range;

use super::sums::Slots;
use crate::cpu::gather::{WeightedRows, sum_rows};
use crate::cpu::vector::{Kernel, Lanes, dot_lanes, store};
use crate::element::Element;
use crate::ops::Sdim;

/// How many candidates of one user make a piece of work.
const CANDIDATES: usize = 256;

/// Cuts the candidates of some users, which lie one behind the other, and the rows of their output into pieces of
/// work: user, candidates, rows of output.
pub(super) fn pieces<'a, T>(
    op: &Sdim,
    targets: impl Iterator<Item = (usize, Range<usize>)>,
    mut out: &'a mut [T],
) -> Vec<(usize, Range<usize>, &'a mut [T])> {
    let mut pieces = Vec::new();
    for (user, targets) in targets {
        for start in targets.clone().step_by(CANDIDATES) {
            let piece = start..targets.end.min(start + CANDIDATES);
            let (rows, rest) = std::mem::take(&mut out).split_at_mut(piece.len() * op.width);
            pieces.push((user, piece, rows));
            out = rest;
        }
    }
    pieces
}

/// Averages the sums that some candidates of one user ask for.
pub(super) struct Average<'a, T, M> {
    pub(super) op: &'a Sdim,
    /// `[n, G]`.
    pub(super) signatures: &'a [u32],
    /// The user's sums, `d` numbers each, and which bucket has which.
    pub(super) sums: &'a [f32],
    pub(super) slots: M,
    /// `[n, d]`.
    pub(super) out: &'a mut [T],
}

impl<T: Element, M: Slots> Kernel for Average<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Sdim { width, groups, .. } = *self.op;
        // Many candidates share a bucket: its length is computed once.
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
                // A candidate was asked before there were sums: it has all that it asks for.
                let Some(slot) = self.slots.slot(group, signature) else { continue };
                let sum = &self.sums[slot * width..(slot + 1) * width];
                let weight = if share { shared[slot] } else { weight(l, self.op, sum) };
                buckets.wanted[group] = (weight, slot);
            }
            sum_rows(l, groups, &buckets, &mut mean);
            store(out, &mean);
        }
    }
}

/// The sums that one candidate asks for.
struct Buckets<'a> {
    sums: &'a [f32],
    width: usize,
    /// Weight and row, by group.
    wanted: Vec<(f32, usize)>,
}

impl WeightedRows for Buckets<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        let (weight, slot) = self.wanted[k];
        (weight, &self.sums[slot * self.width..(slot + 1) * self.width])
    }

    /// A user's sums are in the cache: they are few.
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// What a sum counts with: one of `G`, divided by its length.
#[inline(always)]
fn weight<L: Lanes>(l: L, op: &Sdim, sum: &[f32]) -> f32 {
    let length = if op.normalise { dot_lanes(l, sum, sum).sqrt().max(Sdim::MIN_NORM) } else { 1.0 };
    1.0 / (length * op.groups as f32)
}
