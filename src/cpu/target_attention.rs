//! Target attention on the CPU. A piece reads its span of the history once, in blocks: the scores of a block against
//! sixteen query rows stay in the L1 cache, are turned into weights there, and multiply the block's values, which are
//! still in cache too.
//!
//! Lanes are query rows: the candidates of a tile times the heads that share a key/value head.

use crate::cpu::Cpu;
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::threads::split_rows;
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{
    FEW, Instructions, Kernel, LANES, Lanes, Row, product, product_of_few, widen_lanes, with_default_floats,
};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{
    PartialAttention, TargetAttention, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
};

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

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| merge_attention(op, &first, &second, outputs))
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
    let plan = pieces::cut(batch, (pieces::ROWS * op.kv_heads / op.heads).max(1), pieces::STEP);
    let rows = || plan.tiles.iter().map(|tile| tile.rows);
    let out = split_rows(rows(), outputs.out.into_slice(), op.heads * op.value_width);
    let lse: Vec<Option<&mut [f32]>> = match outputs.lse {
        Some(lse) => split_rows(rows(), lse.into_slice(), op.heads).into_iter().map(Some).collect(),
        None => rows().map(|_| None).collect(),
    };
    pieces::run(
        &plan,
        out.into_iter().zip(lse).collect(),
        |piece| instructions.run(Attend { op, inputs, piece }),
        |all, next| instructions.run(Combine { all, next }),
        |groups, (out, lse)| instructions.run(Finish { op, groups, out, lse }),
    );
    Ok(())
}

/// Up to [`LANES`] query rows, one per lane, with their sums.
struct Group {
    kv_head: usize,
    /// The first row, counted over the candidates of the tile and the heads that share the key/value head.
    first: usize,
    count: usize,
    /// The queries: `[d]`, one lane per row, or `[FEW, d]` if there are few rows.
    queries: Vec<Row>,
    pooling: TilePooling,
}

impl Group {
    /// The index of a lane's row among the tile's rows `[targets, H]`.
    fn row(&self, op: &TargetAttention, lane: usize) -> usize {
        let shared = op.heads / op.kv_heads;
        let row = self.first + lane;
        row / shared * op.heads + self.kv_head * shared + row % shared
    }

    /// Whether there are so few query rows that lanes run along the width of the keys instead.
    fn are_few(&self, op: &TargetAttention) -> bool {
        self.count <= FEW && op.width.is_multiple_of(LANES)
    }
}

fn groups<T: Element>(op: &TargetAttention, queries: &[T]) -> Vec<Group> {
    let rows = queries.len() / (op.width * op.kv_heads);
    let mut groups = Vec::new();
    for kv_head in 0..op.kv_heads {
        for first in (0..rows).step_by(LANES) {
            let count = LANES.min(rows - first);
            let pooling = TilePooling::new(op.weighting, count, op.value_width);
            let mut group = Group { kv_head, first, count, queries: Vec::new(), pooling };
            let are_few = group.are_few(op);
            let mut packed = vec![[0.0; LANES]; if are_few { FEW * op.width / LANES } else { op.width }];
            for lane in 0..count {
                let query = &queries[group.row(op, lane) * op.width..][..op.width];
                let (start, step) = if are_few { (lane * op.width, 1) } else { (lane, LANES) };
                let place = packed.as_flattened_mut()[start..].iter_mut().step_by(step);
                place.zip(query).for_each(|(number, value)| *number = value.to_f32());
            }
            group.queries = packed;
            groups.push(group);
        }
    }
    groups
}

/// One piece: the weighted sums of its query rows over its span of the history.
struct Attend<'a, T: Element> {
    op: &'a TargetAttention,
    inputs: &'a TargetAttentionInputs<'a, Host, T>,
    piece: PieceRows,
}

impl<T: Element> Kernel for Attend<'_, T> {
    type Output = Vec<Group>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Group> {
        let Self { op, inputs, piece } = self;
        let query_width = op.heads * op.width;
        let mut groups =
            groups(op, &inputs.queries[piece.targets.start * query_width..piece.targets.end * query_width]);
        let (key_width, value_width) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
        let block = (BLOCK / op.width.max(op.value_width)).clamp(LANES, 256);
        let (mut scores, mut weights) = (vec![[0.0; LANES]; block], vec![[0.0; LANES]; block]);
        // Scores are scaled, not queries, which the factor could push out of the range of f32.
        let scale = op.effective_scale();
        for start in piece.history.clone().step_by(block) {
            let rows = start..piece.history.end.min(start + block);
            let scores = &mut scores[..rows.len()];
            let keys = &inputs.keys[rows.start * key_width..rows.end * key_width];
            let keys = widen_lanes(l, keys, &mut key_scratch);
            let values = match &inputs.values {
                Some(values) => {
                    let values = &values[rows.start * value_width..rows.end * value_width];
                    widen_lanes(l, values, &mut value_scratch)
                }
                None => keys,
            };
            for group in &mut groups {
                let keys = &keys[group.kv_head * op.width..];
                if group.are_few(op) {
                    let queries = (&group.queries[..], group.count);
                    product_of_few(l, keys, key_width, rows.len(), queries, |i, dots| {
                        scores[i][..FEW].copy_from_slice(&dots.map(|dot| scale * dot));
                    });
                } else {
                    product(l, keys, key_width, rows.len(), &group.queries, |i, sums| {
                        l.store(&mut scores[i], l.mul(sums, l.splat(scale)));
                    });
                }
                if let Some(bias) = inputs.bias {
                    for (scores, bias) in
                        scores.iter_mut().zip(bias[rows.start * op.heads..].chunks(op.heads))
                    {
                        for (lane, score) in scores[..group.count].iter_mut().enumerate() {
                            *score += bias[group.row(op, lane) % op.heads];
                        }
                    }
                }
                let values = &values[group.kv_head * op.value_width..];
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
struct Finish<'a, T> {
    op: &'a TargetAttention,
    groups: Vec<Group>,
    out: &'a mut [T],
    lse: Option<&'a mut [f32]>,
}

impl<T: Element> Kernel for Finish<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let width = self.op.value_width;
        for mut group in self.groups {
            let lses = group.pooling.finish(l);
            for (lane, lse) in lses.into_iter().enumerate().take(group.count) {
                let row = group.row(self.op, lane);
                let sums = group.pooling.weighted_values();
                for (out, sums) in self.out[row * width..(row + 1) * width].iter_mut().zip(sums) {
                    *out = T::from_f32(sums[lane]);
                }
                if let Some(out) = &mut self.lse {
                    out[row] = lse;
                }
            }
        }
    }
}

/// Merges two results row by row, by their log-sum-exp. A part whose log-sum-exp is `-∞` counts for nothing, whatever its
/// row holds; `+∞` or NaN gives NaN.
fn merge_attention<T: Element>(
    op: &TargetAttention,
    first: &PartialAttention<'_, Host, T>,
    second: &PartialAttention<'_, Host, T>,
    outputs: TargetAttentionOutputs<'_, Host, T>,
) -> Result<()> {
    let rows = op.check_merge(first, second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let mut lse = outputs.lse;
    let [firsts, seconds] =
        [first, second].map(|partial| partial.out.as_slice().chunks_exact(op.value_width));
    let outs = outputs.out.into_slice().chunks_exact_mut(op.value_width);
    for (i, ((out, first_row), second_row)) in outs.zip(firsts).zip(seconds).enumerate() {
        let lses = [first.lse[i], second.lse[i]];
        let removed = lses.map(|lse| lse == f32::NEG_INFINITY);
        let merged = match removed {
            [true, true] => {
                out.fill(T::from_f32(0.0));
                f32::NEG_INFINITY
            }
            [false, true] if lses[0] < f32::INFINITY => {
                out.copy_from_slice(first_row);
                lses[0]
            }
            [true, false] if lses[1] < f32::INFINITY => {
                out.copy_from_slice(second_row);
                lses[1]
            }
            _ => {
                let max = lses[0].max(lses[1]);
                let weights = lses.map(|lse| (lse - max).exp());
                let sum = weights[0] + weights[1];
                merge_rows(weights.map(|weight| weight / sum), first_row, second_row, out);
                max + sum.ln()
            }
        };
        if let Some(lse) = &mut lse {
            lse[i] = merged;
        }
    }
    Ok(())
}

/// `out = weights[0]·a + weights[1]·b`, for weights that add up to 1.
fn merge_rows<T: Element>(weights: [f32; 2], a: &[T], b: &[T], out: &mut [T]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let (a, b) = (a.to_f32(), b.to_f32());
        let merged = weights[0] * a + weights[1] * b;
        // The result is at most the larger number: only a rounding error can exceed the range of f32.
        let overflowed = merged.is_infinite() & a.is_finite() & b.is_finite();
        *out = T::from_f32(if overflowed { f32::MAX.copysign(merged) } else { merged });
    }
}
