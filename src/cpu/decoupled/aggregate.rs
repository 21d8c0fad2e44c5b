//! Sums of representation rows, weighted by the softmax of scores.

use std::ops::Range;

use crate::cpu::decoupled::scores::Scorer;
use crate::cpu::gather::AHEAD;
use crate::cpu::pieces::PieceRows;
use crate::cpu::selection::{BLOCK, blocks};
use crate::cpu::softmax::{PART, softmax_weights};
use crate::cpu::tables::{pool, prefetch_rows, read_rows};
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{Kernel, LANES, Lanes, add};
use crate::host::Host;
use crate::ops::*;

/// The behaviours that a candidate keeps: row numbers over all users, and scores.
pub(super) type Kept = Vec<(usize, f32)>;

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
        let Self { op, inputs, m, kept, out } = self;
        let features = op.features();
        // A score of -∞ removes a behaviour, whatever its row holds.
        let mut ids = Vec::with_capacity(kept.len() * features);
        let mut weights = Vec::with_capacity(kept.len());
        for (behaviour, score) in kept {
            if score != f32::NEG_INFINITY {
                ids.extend_from_slice(&inputs.history_ids[behaviour * features..(behaviour + 1) * features]);
                weights.push(score);
            }
        }
        let (_, sum) = softmax_weights(l, &mut weights);
        let tables = inputs.representation;
        prefetch_rows(tables, &ids[..ids.len().min(AHEAD * features)]);
        let (mut scratch, mut part) = (Vec::new(), Vec::new());
        let first = &weights[..weights.len().min(PART)];
        pool(l, tables, &ids, first.len(), Some(first), &mut scratch, out);
        for (ids, weights) in ids.chunks(PART * features).zip(weights.chunks(PART)).skip(1) {
            part.resize(out.len(), 0.0);
            pool(l, tables, ids, weights.len(), Some(weights), &mut scratch, &mut part);
            add(out, &part);
        }
        let finite = out.iter().fold(true, |finite, value| finite & value.is_finite());
        if weights.is_empty() {
            // Nothing is kept: zeros.
        } else if finite {
            for value in &mut *out {
                *value /= sum;
            }
        } else {
            aggregate_exactly(l, tables, &ids, &weights, sum, out);
        }
        multiply_by_target(l, op, inputs, m, out);
    }
}

/// Computes in `f64` a weighted mean whose sum is not finite in `f32`. It is at most the largest value, which a rounding error
/// may exceed.
pub(super) fn aggregate_exactly<L: Lanes>(
    l: L,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    weights: &[f32],
    sum: f32,
    out: &mut [f32],
) {
    let (mut row, mut sums) = (vec![0.0; out.len()], vec![0.0f64; out.len()]);
    for (ids, &weight) in ids.chunks_exact(tables.len()).zip(weights) {
        read_rows(l, tables, ids, &mut row, out.len());
        sums.iter_mut().zip(&row).for_each(|(sum, value)| *sum += f64::from(weight) * f64::from(*value));
    }
    for (out, weighted) in out.iter_mut().zip(sums) {
        let mean = weighted / f64::from(sum);
        *out =
            if mean.is_finite() { mean.clamp(f32::MIN.into(), f32::MAX.into()) as f32 } else { mean as f32 };
    }
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
    pub(super) targets: Range<usize>,
    pub(super) groups: Vec<TilePooling>,
}

impl Kernel for AttendToAll<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Sums {
        let Self { op, search, aggregate, piece: PieceRows { targets, history, .. } } = self;
        let (features, width) = (op.features(), total_width(aggregate.representation));
        let mut scorer = Scorer::new(l, op, search, targets.clone());
        let mut groups = Vec::new();
        for i in 0..scorer.groups() {
            let used = LANES.min(targets.len() - i * LANES);
            groups.push(TilePooling::new(Weighting::Softmax, used, width));
        }
        let (mut scores, mut weights) = ([[0.0; LANES]; BLOCK], [[0.0; LANES]; BLOCK]);
        let mut rows = vec![0.0; BLOCK * width];
        for (block, next) in blocks(&history) {
            let ids = &aggregate.history_ids[block.start * features..block.end * features];
            prefetch_rows(aggregate.representation, ids);
            scorer.gather(l, block.clone(), next);
            read_rows(l, aggregate.representation, ids, &mut rows, width);
            let scores = &mut scores[..block.len()];
            for (i, group) in groups.iter_mut().enumerate() {
                scorer.scores(l, i, scores);
                group.add(l, scores, &mut weights[..block.len()], &rows[..block.len() * width], width);
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
        for (all, next) in self.all.groups.iter_mut().zip(self.next.groups) {
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
