//! TIN on the CPU: target attention whose blocks of keys, which are the values too, are sums of behaviours and positions. A block is summed
//! into scratch that stays in the cache, once for all of a tile's candidates.

mod backward;
mod rows;

use crate::cpu::Cpu;
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::target_attention::{KeyBlock, LaneRows};
use crate::cpu::threads::split_rows;
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::tin::backward::{Gradients, Incoming, summed_targets};
use crate::cpu::tin::rows::PositionedRows;
use crate::cpu::vector::{
    Instructions, Kernel, LANES, Lanes, NarrowRows, Row, WideRows, with_default_floats,
};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{View, ViewMut};
use crate::ops::{TargetAttention, Tin, TinGradients, TinInputs, TinOps, TinOutputs, TinSaved, Weighting};

impl TinOps for Cpu {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &Batch,
        inputs: TinInputs<'_, Host, T>,
        outputs: TinOutputs<'_, Host, T>,
    ) -> Result<()> {
        op.check(batch, &inputs)?;
        op.check_outputs(batch, &outputs)?;
        op.check_host_positions("tin", batch, &inputs)?;
        let out = NarrowRows::new(outputs.out.into_slice());
        let pooled = outputs.pooled.map(|pooled| NarrowRows::new(pooled.into_slice()));
        let lse = outputs.lse.map(ViewMut::into_slice);
        with_default_floats(|| {
            let rows = PositionedRows::new(op, batch, &inputs);
            attend(self.instructions, op, batch, &rows, Some((out, pooled, lse)), None);
        });
        Ok(())
    }

    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &Batch,
        inputs: TinInputs<'_, Host, T>,
        saved: TinSaved<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grads: TinGradients<'_, Host, G>,
    ) -> Result<()> {
        op.check_backward(batch, &inputs, &saved, grad_out.len(), &grads)?;
        op.check_host_positions("tin_backward", batch, &inputs)?;
        let used = batch.targets().total() * op.width;
        let wide = |rows: View<'_, Host, T>| WideRows::new(rows.as_slice()).to_vec(0..used);
        let (grad_out, pooled) = (wide(grad_out), wide(saved.pooled));
        let lse = &saved.lse.as_slice()[..batch.targets().total()];
        let grads = Gradients {
            targets: grads.targets.map(|rows| NarrowRows::new(rows.into_slice())),
            history: grads.history.map(|rows| NarrowRows::new(rows.into_slice())),
            positions: grads.positions.map(|rows| NarrowRows::new(rows.into_slice())),
        };
        with_default_floats(|| {
            let rows = PositionedRows::new(op, batch, &inputs);
            let targets = summed_targets(self.instructions, batch, &rows);
            let (mut max, mut sum) = (lse.to_vec(), vec![1.0; lse.len()]);
            // Above this magnitude an lse is too coarse for weights (docs/decisions/gradients.md).
            if lse.iter().any(|lse| lse.is_finite() && lse.abs() > 256.0) {
                attend(self.instructions, op, batch, &rows, None, Some([&mut max, &mut sum]));
            }
            let incoming = Incoming { grad_out: &grad_out, pooled: &pooled, state: [&max, &sum] };
            backward::write(self.instructions, batch, &rows, &targets, &incoming, grads)
        })
    }
}

/// The outputs: of all candidates, or of a tile.
type Outputs<'a> = (NarrowRows<'a>, Option<NarrowRows<'a>>, Option<&'a mut [f32]>);

/// The largest score of each candidate, and `Σ exp(score − max)`.
type States<'a> = [&'a mut [f32]; 2];

/// Computes what is asked for: the outputs, or the states.
fn attend(
    instructions: Instructions,
    op: &Tin,
    batch: &Batch,
    rows: &PositionedRows<'_>,
    outputs: Option<Outputs<'_>>,
    states: Option<States<'_>>,
) {
    let plan = pieces::cut(batch, pieces::ROWS, pieces::STEP);
    let lengths = || plan.tiles.iter().map(|tile| tile.rows);
    let mut outputs = outputs.map(|(out, pooled, lse)| {
        let out = out.split(lengths(), op.width);
        let mut pooled = pooled.map(|pooled| pooled.split(lengths(), op.width).into_iter());
        let mut lse = lse.map(|lse| split_rows(lengths(), lse, 1).into_iter());
        let tile = |out| {
            let pooled = pooled.as_mut().and_then(Iterator::next);
            (out, pooled, lse.as_mut().and_then(Iterator::next))
        };
        out.into_iter().map(tile).collect::<Vec<Outputs<'_>>>().into_iter()
    });
    let mut states = states.map(|states| states.map(|numbers| split_rows(lengths(), numbers, 1).into_iter()));
    let tile = |_| {
        let states = states.as_mut().and_then(|[max, sum]| Some([max.next()?, sum.next()?]));
        (outputs.as_mut().and_then(Iterator::next), states)
    };
    let outputs: Vec<(Option<Outputs<'_>>, Option<States<'_>>)> = plan.tiles.iter().map(tile).collect();
    // Keys and values are the same rows.
    let attention = &TargetAttention::new(op.width).with_scale(op.effective_scale());
    pieces::run(
        &plan,
        outputs,
        |piece| instructions.run(Attend { attention, rows, piece }),
        |all, next| instructions.run(Combine { all, next }),
        |tile, (outputs, states)| match (outputs, states) {
            (Some(outputs), _) => instructions.run(Finish { op, attention, tile, outputs }),
            (None, Some(states)) => write_states(attention, tile, states),
            (None, None) => {}
        },
    );
}

/// The candidates of a tile, and their sums.
struct Tile {
    /// `ṽ`: `[C, d]`.
    targets: Vec<f32>,
    groups: Vec<Group>,
}

/// Up to [`LANES`] candidates, one per lane, with their sums.
struct Group {
    rows: LaneRows,
    queries: Vec<Row>,
    pooling: TilePooling,
}

/// The number of elements in a block, as in target attention.
const BLOCK: usize = 8192;

/// One piece: the weighted sums of its candidates over its span of the history.
struct Attend<'a> {
    attention: &'a TargetAttention,
    rows: &'a PositionedRows<'a>,
    piece: PieceRows,
}

impl Kernel for Attend<'_> {
    type Output = Tile;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Tile {
        let Self { attention, rows, piece: PieceRows { targets, history, .. } } = self;
        let (width, end) = (attention.width, rows.ends[targets.start]);
        let count = targets.len();
        let targets = rows.targets(l, targets);
        let mut groups = Vec::new();
        for lanes in LaneRows::of(attention, count) {
            let queries = lanes.pack(attention, &targets, width, lanes.are_few(width));
            let pooling = TilePooling::new(Weighting::Softmax, lanes.count, width);
            groups.push(Group { rows: lanes, queries, pooling });
        }
        let block = (BLOCK / width).clamp(LANES, 256);
        let (mut scores, mut weights) = (vec![[0.0; LANES]; block], vec![[0.0; LANES]; block]);
        let mut sums = vec![0.0; block.min(history.len()) * width];
        for start in history.clone().step_by(block) {
            let behaviours = start..history.end.min(start + block);
            let (scores, weights) = (&mut scores[..behaviours.len()], &mut weights[..behaviours.len()]);
            let keys = &mut sums[..behaviours.len() * width];
            rows.behaviours(l, behaviours, end, keys);
            for group in &mut groups {
                let block = KeyBlock { keys, bias: None, first: start };
                group.rows.scores(l, attention, &group.queries, block, scores);
                group.pooling.add(l, scores, weights, keys, width);
            }
        }
        Tile { targets, groups }
    }
}

/// Adds the sums of the next piece of the tile.
struct Combine<'a> {
    all: &'a mut Tile,
    next: Tile,
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (all, next) in self.all.groups.iter_mut().zip(self.next.groups) {
            all.pooling.combine(l, next.pooling);
        }
    }
}

/// Writes the rows of a tile.
struct Finish<'a> {
    op: &'a Tin,
    attention: &'a TargetAttention,
    tile: Tile,
    outputs: Outputs<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { op, attention, tile: Tile { targets, groups }, outputs: (mut out, mut pooled, mut lse) } =
            self;
        let mut numbers = vec![0.0; op.width];
        for mut group in groups {
            let lses = group.pooling.finish(l);
            for (lane, sum) in lses.into_iter().enumerate().take(group.rows.count) {
                let row = group.rows.row(attention, lane);
                let sums = group.pooling.weighted_values();
                numbers.iter_mut().zip(sums).for_each(|(number, sums)| *number = sums[lane]);
                if let Some(pooled) = &mut pooled {
                    pooled.write(l, row * op.width, &numbers);
                }
                if op.multiply_target {
                    let target = &targets[row * op.width..(row + 1) * op.width];
                    numbers.iter_mut().zip(target).for_each(|(number, target)| *number *= target);
                }
                out.write(l, row * op.width, &numbers);
                if let Some(lse) = &mut lse {
                    lse[row] = sum;
                }
            }
        }
    }
}

/// Writes the softmax states of a tile.
fn write_states(attention: &TargetAttention, tile: Tile, [max, sum]: States<'_>) {
    for group in tile.groups {
        let (maxima, sums) = group.pooling.softmax_state();
        for lane in 0..group.rows.count {
            let row = group.rows.row(attention, lane);
            (max[row], sum[row]) = (maxima[lane], sums[lane]);
        }
    }
}
