//! The backward pass of DIN on the CPU, with the first layer folded as in the forward pass: for a candidate `q`,
//! `y = (W_k − W_d + W_p·diag(q))·s + (W_q + W_d)·q + b`.
//!
//! A piece owns some users' behaviours, and so the gradients of their rows. For a few hundred of them at a time it goes over the
//! user's candidates and computes the layers again, block by block (`block.rs`). Everything else is summed per piece: the gradients
//! of the weights, and, where a user's history is cut, those of its candidates; the sums of the pieces are added in their order.
//! With softmax, a first pass over histories of more than one block finds every candidate's normaliser.

use std::ops::Range;

use crate::cpu::din::block::Weighting;
use crate::cpu::din::cut::{Part, cut};
use crate::cpu::din::layers::{BLOCK, Layers};
use crate::cpu::din::rows::WideInputs;
use crate::cpu::din::softmax::Normaliser;
use crate::cpu::din::span::{Backward, Normalise, SPAN, Scratch, TILE, Widen};
use crate::cpu::din::sums::{Sums, Wanted, WriteRows, add_up};
use crate::cpu::threads::{for_each, map};
use crate::cpu::vector::{Instructions, LANES, Matrix, NarrowRows, WideRows};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::{Activation, Din, DinGradients, DinInputs, DinPooling};

/// Blocks whose sums are added in a chain before they are added to the piece's.
const CHAIN: usize = 128;

/// The arguments of a call.
struct Call<'a> {
    instructions: Instructions,
    inputs: WideInputs<'a>,
    grad_out: WideRows<'a>,
    layers: &'a Layers,
    wanted: &'a Wanted,
    /// With softmax, one normaliser for each candidate of a user with more than one block of behaviours.
    softmax: Option<&'a [Normaliser]>,
}

pub(super) fn din_backward<T: Element, G: GradientOf<T>>(
    instructions: Instructions,
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
    grad_out: View<'_, Host, T>,
    mut grads: DinGradients<'_, Host, G>,
) -> Result<()> {
    op.check_backward(batch, inputs, grad_out.len(), &grads)?;
    let Some(wanted) = Wanted::new(&grads, inputs.hidden.len()) else { return Ok(()) };
    let layers = Layers::new(op, inputs);
    let pieces = cut(batch, BLOCK);
    // The rows of every part's behaviours, and of every user's candidates.
    let parts = pieces.iter().flatten().map(|part| part.history.len());
    let history = grads.history.take().map(|rows| NarrowRows::new(rows.into_slice()).split(parts, op.width));
    let users = batch.targets().ranges().map(|targets| targets.len());
    let targets = grads.targets.take().map(|rows| NarrowRows::new(rows.into_slice()).split(users, op.width));
    let call = Call {
        instructions,
        inputs: WideInputs::new(inputs, op.width),
        grad_out: WideRows::new(grad_out.as_slice()),
        layers: &layers,
        wanted: &wanted,
        softmax: None,
    };
    let mut sums = call.run(op.pooling, batch, &pieces, (history, targets));
    for ((layer, sums), units) in inputs.hidden.iter().zip(&mut sums.layers).zip(&layers.units) {
        match &layer.activation {
            Activation::Prelu { alpha } if alpha.len() == 1 && sums.vectors[0].rows() > 0 => {
                add_up(&mut sums.vectors[0], *units);
            }
            _ => {}
        }
    }
    sums.write(op.width, grads);
    Ok(())
}

/// Adds the sums of the pieces: neighbours first, then neighbours of those.
fn in_a_tree(mut sums: Vec<Sums>) -> Option<Sums> {
    while sums.len() > 1 {
        let mut pairs = Vec::with_capacity(sums.len().div_ceil(2));
        let mut all = sums.into_iter();
        while let Some(first) = all.next() {
            pairs.push((first, all.next()));
        }
        sums = map(pairs, |(mut first, second)| {
            if let Some(mut second) = second {
                first.take(&mut second);
            }
            first
        });
    }
    sums.pop()
}

/// Adds the partial gradients of the candidates whose users' histories are cut, in the order of the history.
fn add_targets(
    instructions: Instructions,
    mut outputs: Vec<Option<NarrowRows<'_>>>,
    partial: impl Iterator<Item = (usize, Matrix)>,
    width: usize,
) {
    let mut users: Vec<(usize, Vec<Matrix>)> = Vec::new();
    for (user, rows) in partial {
        match users.last_mut() {
            Some((last, all)) if *last == user => all.push(rows),
            _ => users.push((user, vec![rows])),
        }
    }
    let tasks = users.into_iter().filter_map(|(user, parts)| Some((parts, outputs[user].take()?)));
    for_each(tasks.collect(), |(parts, mut out): (Vec<Matrix>, NarrowRows<'_>)| {
        let sum = parts.into_iter().reduce(|mut sum, part| {
            let numbers = sum.data_mut().as_flattened_mut().iter_mut();
            numbers.zip(part.data().as_flattened()).for_each(|(sum, part)| *sum += part);
            sum
        });
        if let Some(sum) = sum {
            let count = sum.rows();
            instructions.run(WriteRows { rows: &sum, count, width, out: &mut out, first: 0 });
        }
    });
}

/// A part with the gradients that it owns: of its behaviours, and of its candidates if it has all behaviours.
type Task<'a> = (Part, Option<NarrowRows<'a>>, Option<NarrowRows<'a>>);

/// The rows of every part's behaviours, and of every user's candidates, where asked for.
type OwnedRows<'a> = (Option<Vec<NarrowRows<'a>>>, Option<Vec<NarrowRows<'a>>>);

impl Call<'_> {
    /// Writes the gradients of the rows, and returns those of the network.
    fn run(
        self,
        pooling: DinPooling,
        batch: &Batch,
        pieces: &[Vec<Part>],
        (history, targets): OwnedRows<'_>,
    ) -> Sums {
        let normalisers = match pooling {
            DinPooling::Sum => None,
            DinPooling::Softmax => Some(self.normalisers(batch, pieces)),
        };
        let call = Call { softmax: normalisers.as_deref(), ..self };
        let mut history = history.map(Vec::into_iter);
        let mut targets: Option<Vec<_>> = targets.map(|rows| rows.into_iter().map(Some).collect());
        // Candidates are written by the piece that has all behaviours of their user.
        let mut own = |part: &Part| {
            let rows = targets.as_mut().filter(|_| part.is_whole).and_then(|rows| rows[part.user].take());
            (part.clone(), history.as_mut().and_then(|rows| rows.next()), rows)
        };
        let tasks: Vec<Vec<_>> = pieces.iter().map(|piece| piece.iter().map(&mut own).collect()).collect();
        let results = map(tasks, |parts| call.piece(parts));
        let (sums, partial): (Vec<Sums>, Vec<Vec<(usize, Matrix)>>) = results.into_iter().unzip();
        let width = call.inputs.width;
        if let Some(targets) = targets {
            add_targets(call.instructions, targets, partial.into_iter().flatten(), width);
        }
        in_a_tree(sums).unwrap_or_else(|| Sums::new(call.layers, call.wanted, width))
    }

    /// Every candidate's normaliser, `[M]`; not those of the users that have a block of behaviours or fewer.
    fn normalisers(&self, batch: &Batch, pieces: &[Vec<Part>]) -> Vec<Normaliser> {
        let mut all = vec![Normaliser::NONE; batch.targets().total()];
        let parts = pieces.iter().map(|piece| piece.iter().filter(|part| !self.is_one_block(part)).collect());
        let results = map(parts.collect::<Vec<Vec<&Part>>>(), |parts| {
            let mut scratch = Scratch::new(self.layers, self.inputs.width);
            let normalisers = |part: &Part| {
                let mut all = vec![Normaliser::NONE; part.targets.len()];
                self.for_each_tile(&mut scratch, part, |scratch, rows, tile, _| {
                    let first = part.targets.start;
                    let normalisers = &mut all[tile.start - first..tile.end - first];
                    let (layers, weighting) = (self.layers, Weighting::Sum);
                    self.instructions.run(Normalise { layers, weighting, scratch, rows, normalisers });
                });
                (part.targets.clone(), all)
            };
            parts.into_iter().map(normalisers).collect::<Vec<_>>()
        });
        for (targets, later) in results.into_iter().flatten() {
            all[targets].iter_mut().zip(&later).for_each(|(all, later)| all.add(later));
        }
        all
    }

    /// Whether the part is a whole history that one block holds: its normaliser is found on the way.
    fn is_one_block(&self, part: &Part) -> bool {
        part.is_whole && part.history.len() <= BLOCK
    }

    /// Calls `each` for every span of behaviours and tile of candidates of a part, with their rows loaded, the number of behaviours,
    /// and whether the tile is the span's last.
    fn for_each_tile(
        &self,
        scratch: &mut Scratch,
        part: &Part,
        mut each: impl FnMut(&mut Scratch, usize, Range<usize>, Option<Range<usize>>),
    ) {
        for start in part.history.clone().step_by(SPAN) {
            let span = start..part.history.end.min(start + SPAN);
            let load = |rows: &Range<usize>, from: WideRows<'_>, out: &mut Matrix| {
                let (rows, width) = (rows.clone(), self.inputs.width);
                self.instructions.run(Widen { from, rows, width, out });
            };
            load(&span, self.inputs.history, &mut scratch.history);
            for first in part.targets.clone().step_by(TILE) {
                let tile = first..part.targets.end.min(first + TILE);
                load(&tile, self.inputs.targets, &mut scratch.targets);
                load(&tile, self.grad_out, &mut scratch.grad_out);
                let last = (tile.end == part.targets.end).then(|| span.clone());
                each(scratch, span.len(), tile, last);
            }
        }
    }

    /// The gradients of a piece: those that it owns are written; returns its sums over pairs, and partial gradients of candidates
    /// with their users.
    fn piece(&self, parts: Vec<Task<'_>>) -> (Sums, Vec<(usize, Matrix)>) {
        let width = self.inputs.width;
        let mut scratch = Scratch::new(self.layers, width);
        let new_sums = || Sums::new(self.layers, self.wanted, width);
        let (mut sums, mut recent) = (new_sums(), new_sums());
        let mut partial = Vec::new();
        let mut blocks = 0;
        for (part, mut grad_history, grad_targets) in parts {
            if let Some(rows) = grad_history.as_mut().filter(|_| part.targets.is_empty()) {
                rows.clear();
            }
            let wants_targets = self.wanted.targets && (grad_targets.is_some() || !part.is_whole);
            let mut targets = Matrix::zeros(if wants_targets { part.targets.len() } else { 0 }, width);
            self.for_each_tile(&mut scratch, &part, |scratch, rows, tile, last| {
                let first = part.targets.start;
                let weighting = |m: usize| match self.softmax {
                    None => Weighting::Sum,
                    Some(_) if self.is_one_block(&part) => Weighting::SoftmaxOfBlock,
                    Some(normalisers) => Weighting::Softmax(normalisers[m]),
                };
                self.instructions.run(Backward {
                    layers: self.layers,
                    wanted: self.wanted,
                    weightings: &tile.clone().map(weighting).collect::<Vec<_>>(),
                    rows,
                    scratch,
                    sums: &mut recent,
                    targets: &mut targets,
                    first: tile.start - first,
                });
                blocks += tile.len() * rows.div_ceil(BLOCK);
                if blocks >= CHAIN {
                    sums.take(&mut recent);
                    blocks = 0;
                }
                if let Some((out, span)) = grad_history.as_mut().zip(last) {
                    let first = span.start - part.history.start;
                    self.instructions.run(WriteRows { rows: &scratch.grads, count: rows, width, out, first });
                    scratch.grads.data_mut().fill([0.0; LANES]);
                }
            });
            match grad_targets {
                Some(mut out) => {
                    let count = targets.rows();
                    self.instructions.run(WriteRows {
                        rows: &targets,
                        count,
                        width,
                        out: &mut out,
                        first: 0,
                    });
                }
                None if wants_targets => partial.push((part.user, targets)),
                None => {}
            }
        }
        sums.take(&mut recent);
        (sums, partial)
    }
}
