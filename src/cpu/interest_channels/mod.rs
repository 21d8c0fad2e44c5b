//! Interest channels on the CPU.
//!
//! The axes of all candidates are put at right angles first (`axes.rs`). Then pieces of histories are searched for what each
//! channel keeps (`route.rs`); scores live as long as a block of behaviours. When a tile's pieces are finished, the rows that its
//! channels keep are read again and added up.

mod axes;
mod backward;
mod inputs;
mod kept;
mod route;

use std::ops::Range;

use crate::cpu::Cpu;
use crate::cpu::interest_channels::axes::Axes;
use crate::cpu::interest_channels::inputs::Inputs;
use crate::cpu::interest_channels::kept::{KeptRows, normalise};
use crate::cpu::interest_channels::route::{Route, lists};
use crate::cpu::pieces;
use crate::cpu::selection::{Best, find_best};
use crate::cpu::threads::split_rows;
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows, with_default_floats};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::*;

impl InterestChannelsOps for Cpu {
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &Batch,
        inputs: InterestChannelsInputs<'_, Host, T>,
        outputs: InterestChannelsOutputs<'_, Host, T>,
    ) -> Result<()> {
        op.check(batch, &inputs)?;
        op.check_outputs(batch, &outputs)?;
        let (matrices, history) =
            (WideRows::new(inputs.axes.as_slice()), WideRows::new(inputs.history.as_slice()));
        let out = NarrowRows::new(outputs.out.into_slice());
        with_default_floats(|| {
            let axes = Axes::new("interest_channels", op, matrices, batch.targets().total())?;
            write(self.instructions, batch, &Inputs { op, axes: &axes, history }, out, outputs.kept);
            Ok(())
        })
    }

    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &Batch,
        inputs: InterestChannelsInputs<'_, Host, T>,
        saved: InterestChannelsSaved<'_, Host>,
        grad_out: View<'_, Host, T>,
        grads: InterestChannelsGradients<'_, Host, G>,
    ) -> Result<()> {
        op.check_backward(batch, &inputs, &saved, grad_out.len(), &grads)?;
        op.check_given(backward::NAME, batch, &saved.kept)?;
        let matrices = WideRows::new(inputs.axes.as_slice());
        let history = WideRows::new(inputs.history.as_slice());
        let grad_out = WideRows::new(grad_out.as_slice());
        let of_axes = grads.axes.map(|rows| NarrowRows::new(rows.into_slice()));
        let of_history = grads.history.map(|rows| NarrowRows::new(rows.into_slice()));
        with_default_floats(|| {
            let axes = Axes::new(backward::NAME, op, matrices, batch.targets().total())?;
            let inputs = Inputs { op, axes: &axes, history };
            let pass = backward::Pass { inputs, matrices, kept: saved.kept, grad_out };
            backward::write(self.instructions, batch, &pass, of_axes, of_history)
        })
    }
}

/// Positions, scores and counts of a tile.
type Lists<'a> = (&'a mut [u32], &'a mut [f32], &'a mut [u32]);

/// Writes the output, and what is kept if that is asked for.
fn write(
    instructions: Instructions,
    batch: &Batch,
    inputs: &Inputs<'_>,
    out: NarrowRows<'_>,
    kept: Option<SelectionMut<'_, Host>>,
) {
    let Inputs { op, axes, history } = *inputs;
    let (channels, top_k) = (op.channels, op.top_k);
    let plan = pieces::cut(batch, (pieces::ROWS / channels).max(1), pieces::STEP);
    let candidates = || plan.tiles.iter().map(|tile| tile.rows);
    let out = out.split(candidates(), channels * op.width);
    let mut kept = kept.map(|kept| {
        let rows = || candidates().map(|rows| rows * channels);
        let positions = split_rows(rows(), kept.positions.into_slice(), top_k);
        let scores = split_rows(rows(), kept.scores.into_slice(), top_k);
        let counts = split_rows(rows(), kept.counts.into_slice(), 1);
        positions.into_iter().zip(scores).zip(counts)
    });
    let tile = |(tile, out): (&crate::plan::Tile, _)| {
        let lists = kept.as_mut().and_then(Iterator::next);
        let lists = lists.map(|((positions, scores), counts)| (positions, scores, counts));
        (batch.histories().range(tile.user), out, lists)
    };
    let outputs: Vec<(Range<usize>, NarrowRows<'_>, Option<Lists<'_>>)> =
        plan.tiles.iter().zip(out).map(tile).collect();
    find_best(
        &plan,
        (lists(op), top_k),
        outputs,
        |part| {
            let first = batch.histories().range(part.user).start;
            instructions.run(Route { op, axes, history, part, first })
        },
        |targets, best, (history, out, lists)| {
            instructions.run(Pool { inputs, targets, best, history, out, lists });
        },
    );
}

/// Writes the outputs of a tile.
struct Pool<'a> {
    inputs: &'a Inputs<'a>,
    targets: Range<usize>,
    best: Vec<Best>,
    /// Of the user.
    history: Range<usize>,
    out: NarrowRows<'a>,
    lists: Option<Lists<'a>>,
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { inputs: Inputs { op, axes, history: rows }, targets, best, history, mut out, mut lists } =
            self;
        let (channels, width) = (op.channels, op.width);
        let mut best = best.into_iter();
        let mut kept = KeptRows::new(op, *rows);
        let mut sum = vec![0.0; width];
        for (candidate, m) in targets.enumerate() {
            let routed: Vec<Best> = best.by_ref().take(channels).collect();
            let all: Vec<Best> = match op.among {
                KeptAmong::All => best.by_ref().take(channels).collect(),
                KeptAmong::Routed => Vec::new(),
            };
            let mut all = all.into_iter();
            for (i, routed) in routed.into_iter().enumerate() {
                let found: Vec<(u32, f32)> = match all.next() {
                    Some(all) => routed.into_sorted_among(all).collect(),
                    None => routed.into_sorted().collect(),
                };
                let list = candidate * channels + i;
                if let Some(lists) = &mut lists {
                    write_list(op.top_k, list, &found, lists);
                }
                kept.load(l, found.iter().map(|&(position, _)| history.start + position as usize));
                kept.weigh(found.iter().map(|&(_, score)| score), history.len());
                if let Some(norm) = kept.pool(l, &mut sum) {
                    normalise(&mut sum, norm);
                }
                if !axes.is_finite[m] {
                    sum.fill(f32::NAN);
                }
                out.write(l, list * width, &sum);
            }
        }
    }
}

/// Writes what a channel keeps.
fn write_list(top_k: usize, list: usize, found: &[(u32, f32)], (positions, scores, counts): &mut Lists<'_>) {
    let positions = &mut positions[list * top_k..(list + 1) * top_k];
    let scores = &mut scores[list * top_k..(list + 1) * top_k];
    positions.fill(EMPTY_SLOT);
    scores.fill(f32::NEG_INFINITY);
    counts[list] = found.len() as u32;
    for (&(position, score), slot) in found.iter().zip(positions.iter_mut().zip(scores)) {
        (*slot.0, *slot.1) = (position, score);
    }
}
