//! Scores of behaviours against sixteen candidates at a time. A block of rows is gathered, the next one is prefetched, and
//! all candidates read the block from the L1 cache.

use std::ops::Range;

use crate::cpu::tables::{prefetch_rows, read_rows};
use crate::cpu::vector::{FEW, LANES, Lanes, Row, product, product_of_few};
use crate::host::Host;
use crate::ops::*;

/// The number of behaviours in a block.
pub(super) const BLOCK: usize = 64;

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Scorer<'a> {
    inputs: &'a SearchInputs<'a, Host>,
    width: usize,
    /// For each group of sixteen candidates, multiplied by the features' scales: a score is one dot product, times a factor.
    groups: Vec<Group>,
    factor: f32,
    rows: Vec<f32>,
}

/// Up to sixteen candidates.
struct Group {
    count: usize,
    /// `[Σ a]`, one lane per candidate, or `[FEW, Σ a]` if there are few. As target attention does it: its backward pass computes
    /// the same scores again, and where scores are large, another order of additions would be another softmax.
    rows: Vec<Row>,
    are_few: bool,
}

impl<'a> Scorer<'a> {
    #[inline(always)]
    pub(super) fn new<L: Lanes>(
        l: L,
        op: &Decoupled,
        inputs: &'a SearchInputs<'a, Host>,
        targets: Range<usize>,
    ) -> Self {
        let (features, width) = (op.features(), total_width(inputs.attention));
        let (scales, factor) = op.split_scales();
        let mut groups = Vec::new();
        let mut query = vec![0.0; width];
        for first in targets.clone().step_by(LANES) {
            let count = LANES.min(targets.end - first);
            let are_few = count <= FEW && width.is_multiple_of(LANES);
            let mut rows = vec![[0.0; LANES]; if are_few { FEW * width / LANES } else { width }];
            for lane in 0..count {
                let ids = &inputs.target_ids[(first + lane) * features..(first + lane + 1) * features];
                read_rows(l, inputs.attention, ids, &mut query, width);
                let (start, step) = if are_few { (lane * width, 1) } else { (lane, LANES) };
                let mut places = rows.as_flattened_mut()[start..].iter_mut().step_by(step).zip(&query);
                for (table, scale) in inputs.attention.iter().zip(&scales) {
                    places.by_ref().take(table.width).for_each(|(place, value)| *place = scale * value);
                }
            }
            groups.push(Group { count, rows, are_few });
        }
        Self { inputs, width, groups, factor, rows: vec![0.0; BLOCK * width] }
    }

    /// The number of groups of [`LANES`] candidates.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Gathers a block of behaviours for [`scores`](Self::scores), and prefetches the `next` one.
    #[inline(always)]
    pub(super) fn gather<L: Lanes>(&mut self, l: L, block: Range<usize>, next: Range<usize>) {
        let SearchInputs { attention, history_ids, .. } = *self.inputs;
        let features = attention.len();
        read_rows(
            l,
            attention,
            &history_ids[block.start * features..block.end * features],
            &mut self.rows,
            self.width,
        );
        prefetch_rows(attention, &history_ids[next.start * features..next.end * features]);
    }

    /// Computes the scores of the block's first behaviours against the candidates of a group. Lanes without a candidate
    /// hold 0. Equal rows have equal scores.
    #[inline(always)]
    pub(super) fn scores<L: Lanes>(&self, l: L, group: usize, scores: &mut [Row]) {
        let Group { count: used, rows, are_few } = &self.groups[group];
        let count = scores.len();
        if *are_few {
            product_of_few(l, &self.rows, self.width, count, (rows, *used), |i, dots| {
                scores[i] = [0.0; LANES];
                scores[i][..FEW].copy_from_slice(&dots.map(|dot| self.factor * dot));
            });
        } else {
            let factor = l.splat(self.factor);
            product(l, &self.rows, self.width, count, rows, |i, sums| {
                l.store(&mut scores[i], l.mul(sums, factor));
            });
        }
    }
}

/// Cuts a span of a history into blocks; each comes with the block after it.
pub(super) fn blocks(history: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let end = history.end;
    let next = move |start: usize| end.min(start + BLOCK);
    history.clone().step_by(BLOCK).map(move |start| (start..next(start), next(start)..next(next(start))))
}
