//! The gather: the sums of a candidate's buckets, normalised and averaged.

use std::ops::Range;

use crate::cpu::gather::{WeightedRows, sum_rows};
use crate::cpu::sdim::buckets::BucketRows;
use crate::cpu::vector::{Kernel, Lanes, NarrowRows, dot_lanes};
use crate::jagged::Jagged;
use crate::ops::Sdim;

/// The number of candidates in a tile.
const CANDIDATES: usize = 256;

/// User, candidates and their output rows.
pub(super) type Tile<'a> = (usize, Range<usize>, NarrowRows<'a>);

/// Cuts the consecutive candidates of some users, and the rows of their output, into tiles.
pub(super) fn tiles<'a>(
    op: &Sdim,
    targets: impl Iterator<Item = (usize, Range<usize>)>,
    mut out: NarrowRows<'a>,
) -> Vec<Tile<'a>> {
    let mut tiles = Vec::new();
    for (user, targets) in targets {
        for start in targets.clone().step_by(CANDIDATES) {
            let tile = start..targets.end.min(start + CANDIDATES);
            let rows = out.split_off(tile.len() * op.width);
            tiles.push((user, tile, rows));
        }
    }
    tiles
}

/// Groups the users of a batch so that the sums that the candidates of a group may read take at most 16 MiB (or one user).
pub(super) fn user_groups(op: &Sdim, targets: &Jagged) -> Vec<Range<usize>> {
    const MOST: usize = (16 << 20) / size_of::<f32>();
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut taken = 0;
    for (user, targets) in targets.ranges().enumerate() {
        let sums = targets.len().min(op.buckets()) * op.groups * op.width;
        match groups.last_mut() {
            Some(users) if taken + sums <= MOST => (users.end, taken) = (user + 1, taken + sums),
            _ => {
                groups.push(user..user + 1);
                taken = sums;
            }
        }
    }
    groups
}

/// Averages the sums that some candidates of one user read.
pub(super) struct Average<'a, M> {
    pub(super) op: &'a Sdim,
    /// `[n, G]`.
    pub(super) signatures: &'a [u32],
    /// The user's sums, `d` numbers each, and the mapping from buckets to them.
    pub(super) sums: &'a [f32],
    pub(super) bucket_rows: M,
    /// `[n, d]`.
    pub(super) out: NarrowRows<'a>,
}

impl<M: BucketRows> Kernel for Average<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let Sdim { width, groups, .. } = *self.op;
        // If many candidates share buckets, compute the length of each sum once.
        let share = self.signatures.len() * width >= self.sums.len();
        let mut shared = Vec::new();
        if share {
            for sum in self.sums.chunks_exact(width) {
                shared.push(weight(l, self.op, sum));
            }
        }
        // A mean of rows that are not divided is at most the largest number, but its sum may exceed f32.
        let mut may_overflow = !self.op.normalise || shared.contains(&0.0);
        let mut buckets = Buckets { sums: self.sums, width, wanted: vec![(0.0, 0); groups] };
        let mut mean = vec![0.0; width];
        for (i, signatures) in self.signatures.chunks_exact(groups).enumerate() {
            let wanted = buckets.wanted.iter_mut().zip(signatures).enumerate();
            // Always found: the sums were made for the signatures of these candidates.
            let wanted = wanted
                .map(|(group, (wanted, &signature))| (wanted, self.bucket_rows.sum_row(group, signature)));
            if share {
                wanted.for_each(|(wanted, row)| *wanted = (shared[row], row * width));
            } else {
                for (wanted, row) in wanted {
                    let weight = weight(l, self.op, &self.sums[row * width..(row + 1) * width]);
                    may_overflow |= weight == 0.0;
                    *wanted = (weight, row * width);
                }
            }
            let place = match &mut self.out {
                NarrowRows::F32(rows) => &mut rows[i * width..(i + 1) * width],
                _ => &mut mean[..],
            };
            sum_rows(l, groups, &buckets, place);
            if may_overflow {
                buckets.average_carefully(self.op.normalise, place);
            }
            if !matches!(self.out, NarrowRows::F32(_)) {
                self.out.write(l, i * width, &mean);
            }
        }
    }
}

/// The sums that one candidate reads.
struct Buckets<'a> {
    sums: &'a [f32],
    width: usize,
    /// Weight and first number of the row, by group.
    wanted: Vec<(f32, usize)>,
}

impl Buckets<'_> {
    /// Recomputes in `f64` a mean that is not finite, and one with a weight of 0: there the square of a row's length is not
    /// finite in `f32`, although the length may be.
    #[cold]
    fn average_carefully(&self, normalise: bool, mean: &mut [f32]) {
        if mean.iter().all(|value| value.is_finite()) && self.wanted.iter().all(|&(weight, _)| weight != 0.0)
        {
            return;
        }
        let mut exact = vec![0.0; self.width];
        for k in 0..self.wanted.len() {
            let row = || self.get(k).1.iter().map(|&value| f64::from(value));
            let length = row().map(|value| value * value).sum::<f64>().sqrt();
            // Not f64::max: it would turn NaN into the other number.
            let length = if length < Sdim::MIN_NORM.into() { Sdim::MIN_NORM.into() } else { length };
            let divisor = if normalise { length } else { 1.0 } * self.wanted.len() as f64;
            exact.iter_mut().zip(row()).for_each(|(sum, value)| *sum += value / divisor);
        }
        mean.iter_mut().zip(exact).for_each(|(mean, exact)| *mean = exact as f32);
    }
}

impl WeightedRows for Buckets<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        let (weight, start) = self.wanted[k];
        (weight, &self.sums[start..start + self.width])
    }

    /// Nothing to do: a user's sums are few, and stay in cache.
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// The weight of a sum in the mean: `1/G`, divided by the length of the sum; 0 if the square of the length exceeds `f32`.
#[inline(always)]
fn weight<L: Lanes>(l: L, op: &Sdim, sum: &[f32]) -> f32 {
    if !op.normalise {
        return 1.0 / op.groups as f32;
    }
    let length = dot_lanes(l, sum, sum).sqrt();
    // Not f32::max: it would turn NaN into the other number.
    let length = if length < Sdim::MIN_NORM { Sdim::MIN_NORM } else { length };
    1.0 / (length * op.groups as f32)
}
