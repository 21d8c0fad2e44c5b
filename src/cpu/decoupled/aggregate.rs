//! Sums of representation rows, weighted by the softmax of scores.

use std::ops::Range;

use crate::cpu::decoupled::scores::{BLOCK, Scorer, blocks};
use crate::cpu::gather::AHEAD;
use crate::cpu::pieces::PieceRows;
use crate::cpu::tables::{pool, prefetch_rows, read_rows};
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{Kernel, LANES, Lanes, exp};
use crate::host::Host;
use crate::ops::*;

/// The behaviours of its user that a candidate keeps.
pub(super) struct Kept {
    /// Row numbers over all users.
    pub(super) behaviours: Vec<usize>,
    pub(super) scores: Vec<f32>,
}

/// The weighted sum over the behaviours that candidate `m` keeps.
pub(super) struct Aggregate<'a> {
    pub(super) op: &'a Decoupled,
    pub(super) inputs: &'a AggregateInputs<'a, Host>,
    pub(super) m: usize,
    pub(super) kept: Kept,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Aggregate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { op, inputs, m, kept: Kept { behaviours, mut scores }, out } = self;
        let features = op.features();
        let sum = softmax_weights(l, &mut scores);
        // Behaviours of weight 0 (a score of -∞) are skipped, whatever their rows hold.
        let mut ids = Vec::with_capacity(behaviours.len() * features);
        let mut weights = Vec::with_capacity(behaviours.len());
        for (&behaviour, &weight) in behaviours.iter().zip(&scores) {
            if weight != 0.0 {
                ids.extend_from_slice(&inputs.history_ids[behaviour * features..(behaviour + 1) * features]);
                weights.push(weight);
            }
        }
        prefetch_rows(inputs.representation, &ids[..ids.len().min(AHEAD * features)]);
        pool(l, inputs.representation, &ids, weights.len(), Some(&weights), &mut Vec::new(), out);
        if sum != 0.0 {
            for value in &mut *out {
                *value /= sum;
            }
        }
        multiply_by_target(l, op, inputs, m, out);
    }
}

/// Turns scores into `exp(score − max)` and returns their sum.
#[inline(always)]
fn softmax_weights<L: Lanes>(l: L, scores: &mut [f32]) -> f32 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // If no score is above -∞, any finite shift gives weights of 0 (and NaN for NaN).
    let shift = l.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
    let mut sums = l.splat(0.0);
    for scores in scores.chunks_mut(LANES) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        lanes[..scores.len()].copy_from_slice(scores);
        let weights = exp(l, l.sub(l.load(&lanes), shift));
        sums = l.add(sums, weights);
        l.store(&mut lanes, weights);
        scores.copy_from_slice(&lanes[..scores.len()]);
    }
    l.sum(sums)
}

/// Multiplies an output row by the candidate's own representation, where the operation asks for it.
#[inline(always)]
fn multiply_by_target<L: Lanes>(
    l: L,
    op: &Decoupled,
    inputs: &AggregateInputs<'_, Host>,
    m: usize,
    out: &mut [f32],
) {
    if !op.multiply_target {
        return;
    }
    let features = op.features();
    let mut target = vec![0.0; out.len()];
    let ids = &inputs.target_ids[m * features..(m + 1) * features];
    read_rows(l, inputs.representation, ids, &mut target, out.len());
    for (out, target) in out.iter_mut().zip(target) {
        *out *= target;
    }
}

/// One piece without a top-K: the sums over every behaviour of its span.
pub(super) struct AttendToAll<'a> {
    pub(super) op: &'a Decoupled,
    pub(super) search: &'a SearchInputs<'a, Host>,
    pub(super) aggregate: &'a AggregateInputs<'a, Host>,
    pub(super) piece: PieceRows,
}

/// The sums of some candidates, in groups of [`LANES`].
pub(super) struct Sums {
    targets: Range<usize>,
    groups: Vec<TilePooling>,
}

impl Kernel for AttendToAll<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Sums {
        let Self { op, search, aggregate, piece: PieceRows { targets, history } } = self;
        let (features, width) = (op.features(), total_width(aggregate.representation));
        let mut scorer = Scorer::new(l, op, search, targets.clone());
        let mut groups = Vec::new();
        for i in 0..scorer.groups() {
            let used = LANES.min(targets.len() - i * LANES);
            groups.push(TilePooling::new(Weighting::Softmax, used, width));
        }
        let mut scores = [[0.0; LANES]; BLOCK];
        let mut rows = vec![0.0; BLOCK * width];
        for (block, next) in blocks(&history) {
            let ids = &aggregate.history_ids[block.start * features..block.end * features];
            prefetch_rows(aggregate.representation, ids);
            scorer.gather(l, block.clone(), next);
            read_rows(l, aggregate.representation, ids, &mut rows, width);
            let scores = &mut scores[..block.len()];
            for (i, group) in groups.iter_mut().enumerate() {
                scorer.scores(l, i, scores);
                group.add(l, scores, &rows[..block.len() * width], width);
            }
        }
        Sums { targets, groups }
    }
}

/// Adds the sums of the next piece of the tile.
pub(super) struct Combine<'a> {
    pub(super) all: &'a mut Sums,
    pub(super) next: Sums,
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (all, next) in self.all.groups.iter_mut().zip(&self.next.groups) {
            all.combine(l, next);
        }
    }
}

/// Writes the output rows of a tile.
pub(super) struct Finish<'a> {
    pub(super) op: &'a Decoupled,
    pub(super) inputs: &'a AggregateInputs<'a, Host>,
    pub(super) sums: Sums,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let width = total_width(self.inputs.representation);
        let mut out = self.out.chunks_exact_mut(width);
        let mut m = self.sums.targets.start;
        for mut group in self.sums.groups {
            group.finish(l);
            for (lane, out) in (0..LANES).zip(&mut out) {
                for (out, sums) in out.iter_mut().zip(group.weighted_values()) {
                    *out = sums[lane];
                }
                multiply_by_target(l, self.op, self.inputs, m, out);
                m += 1;
            }
        }
    }
}
