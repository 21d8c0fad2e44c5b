//! Scores of behaviours against sixteen candidates at a time. A block of rows is gathered, the next one is prefetched, and
//! all candidates read the block from the L1 cache.

use std::ops::Range;

use crate::cpu::tables::{prefetch_rows, read_rows};
use crate::cpu::vector::{LANES, Lanes, Row, product};
use crate::host::Host;
use crate::ops::*;

/// The number of behaviours in a block.
pub(super) const BLOCK: usize = 64;

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Scorer<'a> {
    inputs: &'a SearchInputs<'a, Host>,
    width: usize,
    /// For each group of sixteen candidates `[Σ a]`, multiplied by the features' scales: a score is one dot product.
    groups: Vec<Vec<Row>>,
    rows: Vec<f32>,
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
        let mut groups = Vec::new();
        let mut query = vec![0.0; width];
        for first in targets.clone().step_by(LANES) {
            let mut lanes = vec![[0.0; LANES]; width];
            for m in first..targets.end.min(first + LANES) {
                let ids = &inputs.target_ids[m * features..(m + 1) * features];
                read_rows(l, inputs.attention, ids, &mut query, width);
                let mut lanes = lanes.iter_mut().zip(&query);
                for (table, scale) in inputs.attention.iter().zip(&op.scales) {
                    for (lanes, value) in lanes.by_ref().take(table.width) {
                        lanes[m - first] = scale * value;
                    }
                }
            }
            groups.push(lanes);
        }
        Self { inputs, width, groups, rows: vec![0.0; BLOCK * width] }
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
        let count = scores.len();
        product(l, &self.rows, self.width, count, &self.groups[group], |i, sums| {
            l.store(&mut scores[i], sums)
        });
    }
}

/// Cuts a span of a history into blocks; each comes with the block after it.
pub(super) fn blocks(history: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let end = history.end;
    let next = move |start: usize| end.min(start + BLOCK);
    history.clone().step_by(BLOCK).map(move |start| (start..next(start), next(start)..next(next(start))))
}
