//! Target attention on the CPU. A piece reads its span of the history once, in blocks: the scores of a block against
//! sixteen query rows stay in the L1 cache, are turned into weights there, and multiply the block's values, which are
//! still in cache too.
//!
//! Lanes are query rows: the candidates of a tile times the heads that share a key/value head.

mod backward;
mod lane_rows;
mod merge;

pub(in crate::cpu) use backward::{GatheredAttention, GatheredGradients};
pub(in crate::cpu) use lane_rows::{KeyBlock, LaneRows};

use crate::cpu::Cpu;
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::target_attention::lane_rows::WideInputs;
use crate::cpu::threads::split_rows;
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, NarrowRows, Row, with_default_floats};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionGradients, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    TargetAttentionSaved,
};
use crate::plan::Plan;

impl TargetAttentionOps for Cpu {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| attend(self.instructions, op, batch, &inputs, outputs))
    }

    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        saved: TargetAttentionSaved<'_, Host, T>,
        grad_out: TargetAttentionGradOut<'_, Host, T>,
        grads: TargetAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        let pass = (op, inputs);
        with_default_floats(|| backward::backward(self.instructions, batch, pass, (saved, grad_out), grads))
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| merge::merge(op, &first, &second, outputs))
    }

    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        grad_out: TargetAttentionGradOut<'_, Host, T>,
        first_grads: PartialAttentionGradients<'_, Host, G>,
        second_grads: PartialAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        with_default_floats(|| merge::backward(op, [first, second], grad_out, [first_grads, second_grads]))
    }
}

/// The number of key elements in a block: with the scores and the values, at most half of an L2 cache of 256 KiB.
const BLOCK: usize = 8192;

pub(super) fn attend<T: Element>(
    instructions: Instructions,
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, T>,
    outputs: TargetAttentionOutputs<'_, Host, T>,
) -> Result<()> {
    op.check(batch, inputs)?;
    op.check_outputs(batch, &outputs)?;
    let plan = pieces::cut(batch, (pieces::ROWS / (op.heads / op.kv_heads)).max(1), pieces::STEP);
    let rows = || plan.tiles.iter().map(|tile| tile.rows);
    let out = NarrowRows::new(outputs.out.into_slice()).split(rows(), op.heads * op.value_width);
    let lse: Vec<Option<&mut [f32]>> = match outputs.lse {
        Some(lse) => split_rows(rows(), lse.into_slice(), op.heads).into_iter().map(Some).collect(),
        None => rows().map(|_| None).collect(),
    };
    let outputs = out.into_iter().zip(lse).collect();
    attend_rows(instructions, op, (batch, &plan), WideInputs::new(inputs), outputs);
    Ok(())
}

/// [`attend`], whatever is stored; `outputs` by tile.
fn attend_rows(
    instructions: Instructions,
    op: &TargetAttention,
    (batch, plan): (&Batch, &Plan),
    inputs: WideInputs<'_>,
    outputs: Vec<(NarrowRows<'_>, Option<&mut [f32]>)>,
) {
    pieces::run(
        plan,
        outputs,
        |piece| {
            let length = batch.histories().range(piece.user).len();
            instructions.run(Attend { op, inputs, piece, length })
        },
        |all, next| instructions.run(Combine { all, next }),
        |groups, (out, lse)| instructions.run(Finish { op, groups, out, lse }),
    );
}

/// Up to [`LANES`] query rows, one per lane, with their sums.
struct Group {
    rows: LaneRows,
    /// The queries: `[d]`, one lane per row, or `[FEW, d]` if there are few rows.
    queries: Vec<Row>,
    pooling: TilePooling,
}

/// The query rows of some candidates of a user with a history of this length.
fn groups(op: &TargetAttention, queries: &[f32], length: usize) -> Vec<Group> {
    let group = |rows: LaneRows| {
        let queries = rows.pack(op, queries, op.width, rows.are_few(op.width));
        let pooling = TilePooling::new(op.weighting, rows.count, op.value_width).with_history(length);
        Group { queries, pooling, rows }
    };
    LaneRows::of(op, queries.len() / (op.width * op.heads)).map(group).collect()
}

/// One piece: the weighted sums of its query rows over its span of the history.
struct Attend<'a> {
    op: &'a TargetAttention,
    inputs: WideInputs<'a>,
    piece: PieceRows,
    /// Of the user's history.
    length: usize,
}

impl Kernel for Attend<'_> {
    type Output = Vec<Group>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Group> {
        let Self { op, inputs, piece, length } = self;
        let query_width = op.heads * op.width;
        let mut groups = groups(
            op,
            &inputs.queries.to_vec(piece.targets.start * query_width..piece.targets.end * query_width),
            length,
        );
        let (key_width, value_width) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
        let block = (BLOCK / op.width.max(op.value_width)).clamp(LANES, 256);
        let (mut scores, mut weights) = (vec![[0.0; LANES]; block], vec![[0.0; LANES]; block]);
        for start in piece.history.clone().step_by(block) {
            let rows = start..piece.history.end.min(start + block);
            let scores = &mut scores[..rows.len()];
            let keys = inputs.keys.widen(l, rows.start * key_width..rows.end * key_width, &mut key_scratch);
            let values = match &inputs.values {
                Some(values) => {
                    values.widen(l, rows.start * value_width..rows.end * value_width, &mut value_scratch)
                }
                None => keys,
            };
            for group in &mut groups {
                let block = KeyBlock { keys, bias: inputs.bias, first: rows.start };
                group.rows.scores(l, op, &group.queries, block, scores);
                let values = &values[group.rows.kv_head * op.value_width..];
                group.pooling.add(l, scores, &mut weights[..rows.len()], values, value_width);
            }
        }
        groups
    }
}

/// Adds the sums of the next piece of the tile.
struct Combine<'a> {
    all: &'a mut Vec<Group>,
    next: Vec<Group>,
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (all, next) in self.all.iter_mut().zip(self.next) {
            all.pooling.combine(l, next.pooling);
        }
    }
}

/// Writes the rows of a tile.
struct Finish<'a> {
    op: &'a TargetAttention,
    groups: Vec<Group>,
    out: NarrowRows<'a>,
    lse: Option<&'a mut [f32]>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let width = self.op.value_width;
        let mut numbers = vec![0.0; width];
        for mut group in self.groups {
            let lses = group.pooling.finish(l);
            for (lane, lse) in lses.into_iter().enumerate().take(group.rows.count) {
                let row = group.rows.row(self.op, lane);
                let sums = group.pooling.weighted_values();
                numbers.iter_mut().zip(sums).for_each(|(number, sums)| *number = sums[lane]);
                self.out.write(l, row * width, &numbers);
                if let Some(out) = &mut self.lse {
                    out[row] = lse;
                }
            }
        }
    }
}
