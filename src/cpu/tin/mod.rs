//! TIN on the CPU: target attention whose blocks of keys, which are the values too, are sums of behaviours and positions. A block is summed
//! into scratch that stays in the cache, once for all of a tile's candidates.

use std::borrow::Cow;
use std::ops::Range;

use crate::cpu::Cpu;
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::target_attention::{KeyBlock, LaneRows};
use crate::cpu::threads::split_rows;
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{
    Instructions, Kernel, LANES, Lanes, NarrowRows, Row, WideRows, add_lanes, with_default_floats,
};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::ViewMut;
use crate::ops::{TargetAttention, Tin, TinInputs, TinOps, TinOutputs, Weighting};

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
            attend(self.instructions, op, batch, &rows, (out, pooled, lse));
        });
        Ok(())
    }
}

/// Rows of behaviours and candidates, and of the positions that are added to them.
struct PositionedRows<'a> {
    op: &'a Tin,
    targets: WideRows<'a>,
    history: WideRows<'a>,
    /// `[P, d]`.
    positions: Cow<'a, [f32]>,
    history_positions: Option<&'a [u32]>,
    target_positions: Option<&'a [u32]>,
    /// For each candidate the end of its user's history.
    ends: Vec<usize>,
}

impl<'a> PositionedRows<'a> {
    fn new<T: Element>(op: &'a Tin, batch: &Batch, inputs: &TinInputs<'a, Host, T>) -> Self {
        let positions = match WideRows::new(inputs.positions.as_slice()) {
            WideRows::F32(rows) => Cow::Borrowed(rows),
            rows => Cow::Owned(rows.to_vec(0..op.positions * op.width)),
        };
        let ends = batch.requests().flat_map(|(history, targets)| targets.map(move |_| history.end));
        Self {
            op,
            targets: WideRows::new(inputs.targets.as_slice()),
            history: WideRows::new(inputs.history.as_slice()),
            positions,
            history_positions: inputs.history_positions.map(|positions| positions.as_slice()),
            target_positions: inputs.target_positions.map(|positions| positions.as_slice()),
            ends: ends.collect(),
        }
    }

    /// A row of the table of positions.
    #[inline(always)]
    fn position(&self, position: usize) -> &[f32] {
        &self.positions[position * self.op.width..][..self.op.width]
    }

    /// `ṽ` of some candidates.
    #[inline(always)]
    fn targets<L: Lanes>(&self, l: L, targets: Range<usize>) -> Vec<f32> {
        let width = self.op.width;
        let mut rows = self.targets.to_vec(targets.start * width..targets.end * width);
        for (m, row) in targets.zip(rows.chunks_exact_mut(width)) {
            let position = self.target_positions.map_or(0, |positions| positions[m] as usize);
            add_lanes(l, row, self.position(position));
        }
        rows
    }

    /// `ẽ` of some behaviours of a history that ends there.
    #[inline(always)]
    fn behaviours<L: Lanes>(&self, l: L, rows: Range<usize>, end: usize, out: &mut [f32]) {
        let width = self.op.width;
        self.history.widen_to(l, rows.start * width..rows.end * width, out);
        for (behaviour, out) in rows.zip(out.chunks_exact_mut(width)) {
            let position = match self.history_positions {
                Some(positions) => positions[behaviour] as usize,
                None => (end - behaviour).min(self.op.positions - 1),
            };
            add_lanes(l, out, self.position(position));
        }
    }
}

/// The outputs: of all candidates, or of a tile.
type Outputs<'a> = (NarrowRows<'a>, Option<NarrowRows<'a>>, Option<&'a mut [f32]>);

fn attend(
    instructions: Instructions,
    op: &Tin,
    batch: &Batch,
    rows: &PositionedRows<'_>,
    (out, pooled, lse): Outputs<'_>,
) {
    let plan = pieces::cut(batch, pieces::ROWS, pieces::STEP);
    let lengths = || plan.tiles.iter().map(|tile| tile.rows);
    let out = out.split(lengths(), op.width);
    let mut pooled = pooled.map(|pooled| pooled.split(lengths(), op.width).into_iter());
    let mut lse = lse.map(|lse| split_rows(lengths(), lse, 1).into_iter());
    let tile = |out| {
        let pooled = pooled.as_mut().and_then(Iterator::next);
        (out, pooled, lse.as_mut().and_then(Iterator::next))
    };
    let outputs: Vec<Outputs<'_>> = out.into_iter().map(tile).collect();
    // Keys and values are the same rows.
    let attention = &TargetAttention::new(op.width).with_scale(op.effective_scale());
    pieces::run(
        &plan,
        outputs,
        |piece| instructions.run(Attend { attention, rows, piece }),
        |all, next| instructions.run(Combine { all, next }),
        |tile, outputs| instructions.run(Finish { op, attention, tile, outputs }),
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
        let Self { attention, rows, piece: PieceRows { targets, history } } = self;
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
