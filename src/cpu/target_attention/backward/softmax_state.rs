//! The softmax states of query rows whose `lse` is too coarse.
//!
//! `exp(score − lse)` is a weight as exact as `lse`. Where `lse` is large, `ln Σ` is lost in its rounding: of `n` behaviours
//! that are all masked with `f32::MIN`, each would get the weight 1. There, maximum and sum are computed again.

use crate::cpu::spans::Span;
use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::lane_rows::{KeyBlock, LaneRows};
use crate::cpu::threads::map;
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes};
use crate::ops::Weighting;

/// Weights from an `lse` of up to this magnitude have a relative error of at most `2⁻¹⁶` from its rounding.
const COARSE: f32 = 256.0;

/// Behaviours per block.
const BLOCK: usize = 64;

/// The weights of one query row are `exp(score − max) / sum`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoftmaxState {
    max: f32,
    sum: f32,
}

impl SoftmaxState {
    const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// The state of these scores: the largest, and `Σ exp(score − max)`.
    pub(super) fn new(max: f32, sum: f32) -> Self {
        Self { max, sum }
    }

    /// The state that a saved `lse` stands for.
    pub(super) fn of(lse: f32) -> Self {
        Self { max: lse, sum: 1.0 }
    }

    /// `(shift, factor)`, with which weights are `exp(score − shift) · factor`.
    pub(super) fn shift_and_factor(self) -> (f32, f32) {
        match self.max {
            // Everything is removed.
            f32::NEG_INFINITY => (0.0, 1.0),
            // As in the forward pass, where a score of +∞ makes NaN of all weights.
            f32::INFINITY => (f32::NAN, 1.0),
            max => (max, 1.0 / self.sum),
        }
    }

    fn combine(self, next: Self) -> Self {
        let max = if self.max < next.max { next.max } else { self.max };
        let share = |state: Self| if state.sum == 0.0 { 0.0 } else { state.sum * (state.max - max).exp() };
        Self { max, sum: share(self) + share(next) }
    }
}

/// For each user the states of its query rows, `[C, H]`, where any of them is needed.
pub(super) fn softmax_states(
    instructions: Instructions,
    pass: &Pass<'_>,
    spans: &[Span],
    rows: impl Fn(&Span) -> SpanRows,
) -> Vec<Option<Vec<SoftmaxState>>> {
    let users = spans.last().map_or(0, |span| span.owner + 1);
    let mut states = vec![None; users];
    let Some((_, lse)) = pass.saved else { return states };
    let heads = pass.op.heads;
    let is_coarse = |lse: &f32| lse.is_finite() && lse.abs() > COARSE;
    let is_needed =
        |rows: &SpanRows| lse[rows.targets.start * heads..rows.targets.end * heads].iter().any(is_coarse);
    let tasks =
        spans.iter().map(|span| (span.owner, rows(span))).filter(|(_, rows)| is_needed(rows)).collect();
    let partials = map(tasks, |(user, rows)| (user, instructions.run(States { pass, rows })));
    for (user, partial) in partials {
        let state: &mut Vec<SoftmaxState> =
            states[user].get_or_insert_with(|| vec![SoftmaxState::EMPTY; partial.len()]);
        state.iter_mut().zip(partial).for_each(|(state, next)| *state = state.combine(next));
    }
    states
}

/// The states of a user's query rows over one span.
struct States<'a> {
    pass: &'a Pass<'a>,
    rows: SpanRows,
}

impl Kernel for States<'_> {
    type Output = Vec<SoftmaxState>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<SoftmaxState> {
        let Self { pass: Pass { op, inputs, .. }, rows: SpanRows { history, targets, .. } } = self;
        let query = op.heads * op.width;
        let queries = inputs.queries.to_vec(targets.start * query..targets.end * query);
        let mut states = vec![SoftmaxState::EMPTY; targets.len() * op.heads];
        let row = op.kv_heads * op.width;
        let mut scratch = Vec::new();
        for rows in LaneRows::of(op, targets.len()) {
            let packed = rows.pack(op, &queries, op.width, rows.are_few(op.width));
            let mut pooling = TilePooling::new(Weighting::Softmax, rows.count, 0);
            for start in history.clone().step_by(BLOCK) {
                let end = history.end.min(start + BLOCK);
                let keys = inputs.keys.widen(l, start * row..end * row, &mut scratch);
                let (mut scores, mut weights) = ([[0.0; LANES]; BLOCK], [[0.0; LANES]; BLOCK]);
                let scores = &mut scores[..end - start];
                let block = KeyBlock { keys, bias: inputs.bias, first: start };
                rows.scores(l, op, &packed, block, scores);
                pooling.add(l, scores, &mut weights[..end - start], &[], 1);
            }
            let (max, sum) = pooling.softmax_state();
            for lane in 0..rows.count {
                states[rows.row(op, lane)] = SoftmaxState { max: max[lane], sum: sum[lane] };
            }
        }
        states
    }
}
