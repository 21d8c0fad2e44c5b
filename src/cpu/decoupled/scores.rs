//! Scores of behaviours whose rows are gathered from tables. A block of rows is gathered, and the next one is prefetched.

use std::ops::Range;

use crate::cpu::selection::{BLOCK, Queries, Scoring};
use crate::cpu::tables::{prefetch_rows, read_rows};
use crate::cpu::vector::{Lanes, Row};
use crate::host::Host;
use crate::ops::*;

/// The scores of decoupled embeddings.
pub(super) struct TableScores<'a> {
    pub(super) op: &'a Decoupled,
    pub(super) inputs: &'a SearchInputs<'a, Host>,
}

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Scorer<'a> {
    inputs: &'a SearchInputs<'a, Host>,
    width: usize,
    /// Multiplied by the features' scales: a score is one dot product, times a factor.
    queries: Queries,
    factor: f32,
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
        let (scales, factor) = op.split_scales();
        let queries = Queries::new(targets, width, |m, query| {
            let ids = &inputs.target_ids[m * features..(m + 1) * features];
            read_rows(l, inputs.attention, ids, query, width);
            let mut numbers = query.iter_mut();
            for (table, scale) in inputs.attention.iter().zip(&scales) {
                numbers.by_ref().take(table.width).for_each(|number| *number *= scale);
            }
        });
        Self { inputs, width, queries, factor, rows: vec![0.0; BLOCK * width] }
    }

    /// The number of groups of [`LANES`](crate::cpu::vector::LANES) candidates.
    pub(super) fn groups(&self) -> usize {
        self.queries.groups()
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
        self.queries.products(l, group, &self.rows, scores);
        let factor = l.splat(self.factor);
        for scores in scores {
            let scaled = l.mul(l.load(scores), factor);
            l.store(scores, scaled);
        }
    }
}

impl<'a> Scoring for TableScores<'a> {
    type Block = Scorer<'a>;

    #[inline(always)]
    fn start<L: Lanes>(&self, l: L, targets: Range<usize>) -> Scorer<'a> {
        Scorer::new(l, self.op, self.inputs, targets)
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, l: L, block: &mut Scorer<'a>, rows: Range<usize>, next: Range<usize>) -> usize {
        block.gather(l, rows.clone(), next);
        rows.len()
    }

    #[inline(always)]
    fn scores<L: Lanes>(&self, l: L, block: &Scorer<'a>, group: usize, scores: &mut [Row]) {
        block.scores(l, group, scores);
    }
}
