//! The backward pass of DIN on the CPU, with the first layer folded as in the forward pass: for a candidate `q`,
//! `y = (W_k − W_d + W_p·diag(q))·s + (W_q + W_d)·q + b`.
//!
//! A piece owns some users' behaviours, and so the gradients of their rows. For a few hundred of them at a time it goes over the
//! user's candidates and computes the layers again, block by block (`block.rs`). Everything else is summed per piece: the gradients
//! of the weights, and, where a user's history is cut, those of its candidates; the sums of the pieces are added in their order.
//!
//! With softmax, a candidate's scores must all be known before the gradient of one is. A history of up to about a thousand
//! behaviours is scored as a whole, with the units of its layers kept; where such a user is cut, then between candidates, and the
//! gradients of its behaviours are summed over pieces. A first pass over longer histories finds every candidate's normaliser.

use std::ops::Range;
use std::sync::Mutex;

use crate::cpu::din::block::Weighting;
use crate::cpu::din::cut::{Part, cut};
use crate::cpu::din::layers::{BLOCK, Layers};
use crate::cpu::din::rows::WideInputs;
use crate::cpu::din::softmax::Normaliser;
use crate::cpu::din::span::{Backward, Normalise, SPAN, Scratch, TILE, Widen, longest_span};
use crate::cpu::din::sums::{ChainedSums, Sums, Wanted, WriteRows, add_up};
use crate::cpu::spans::split_ranges;
use crate::cpu::threads::{for_each, map};
use crate::cpu::vector::{Instructions, LANES, Matrix, NarrowRows, WideRows};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::{Activation, Din, DinGradients, DinInputs, DinPooling};

/// The arguments of a call.
struct Call<'a> {
    instructions: Instructions,
    inputs: WideInputs<'a>,
    grad_out: WideRows<'a>,
    layers: &'a Layers,
    wanted: &'a Wanted,
    /// With softmax, one normaliser for each candidate of a user with more behaviours than are scored at once.
    softmax: Option<&'a [Normaliser]>,
    /// The most behaviours of a history that is scored at once, with softmax.
    longest_span: usize,
    /// Scratch of threads that wait for a piece.
    scratch: Mutex<Vec<Scratch>>,
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
    let cut_below = match op.pooling {
        DinPooling::Sum => 0,
        DinPooling::Softmax => longest_span(&layers, op.width),
    };
    let pieces = cut(batch, BLOCK, cut_below);
    // The rows of every part's behaviours (of the first of several parts with the same), and of every user's candidates.
    let starts = |part: &Part| part.targets.start == batch.targets().range(part.user).start;
    let owned = |part: &Part| if starts(part) { part.history.clone() } else { 0..0 };
    let parts = pieces.iter().flatten().map(owned);
    let history = grads.history.take().map(|rows| NarrowRows::new(rows.into_slice()));
    let history = history.map(|rows| split_ranges(parts, rows, op.width));
    let users = batch.targets().ranges().map(|targets| targets.len());
    let targets = grads.targets.take().map(|rows| NarrowRows::new(rows.into_slice()).split(users, op.width));
    let call = Call {
        instructions,
        inputs: WideInputs::new(inputs, op.width),
        grad_out: WideRows::new(grad_out.as_slice()),
        layers: &layers,
        wanted: &wanted,
        softmax: None,
        // One block is scored at once in any case.
        longest_span: cut_below.max(BLOCK).min(batch.histories().max_length()),
        scratch: Mutex::default(),
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

/// Gradients of the rows of users, of which others have parts.
type Partial = Vec<(usize, Matrix)>;

/// Adds partial gradients, in their order, and writes them to their users' outputs.
fn add_partial(
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

/// A part with the gradients that it owns: of its behaviours if it has all candidates, of its candidates if it has all behaviours.
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
        let (width, users) = (call.inputs.width, batch.users());
        let mut history = history.map(Vec::into_iter);
        let mut targets = targets.map(|rows| rows.into_iter().map(Some).collect::<Vec<_>>());
        let mut shared: Vec<Option<NarrowRows<'_>>> = (0..users).map(|_| None).collect();
        // Gradients that no part owns are sums of partial ones.
        let mut own = |part: &Part| {
            let mut rows = history.as_mut().and_then(|rows| rows.next());
            if !part.has_all_targets {
                let rows = rows.take();
                shared[part.user] = shared[part.user].take().or(rows);
            }
            let targets = targets.as_mut().filter(|_| part.is_whole);
            let targets = targets.and_then(|rows| rows[part.user].as_mut());
            (part.clone(), rows, targets.map(|rows| rows.split_off(part.targets.len() * width)))
        };
        let tasks: Vec<Vec<_>> = pieces.iter().map(|piece| piece.iter().map(&mut own).collect()).collect();
        let results = map(tasks, |parts| call.piece(parts));
        let (sums, partial): (Vec<Sums>, Vec<[Partial; 2]>) = results.into_iter().unzip();
        let (partial_history, partial_targets): (Vec<_>, Vec<_>) =
            partial.into_iter().map(Into::into).unzip();
        add_partial(call.instructions, shared, partial_history.into_iter().flatten(), width);
        if let Some(targets) = targets {
            add_partial(call.instructions, targets, partial_targets.into_iter().flatten(), width);
        }
        in_a_tree(sums).unwrap_or_else(|| Sums::new(call.layers, call.wanted, width))
    }

    /// Calls `with` with scratch that is not in use.
    fn with_scratch<R>(&self, with: impl FnOnce(&mut Scratch) -> R) -> R {
        let free = self.scratch.lock().ok().and_then(|mut all| all.pop());
        let new = || Scratch::new(self.layers, self.inputs.width, self.longest_span);
        let mut scratch = free.unwrap_or_else(new);
        let result = with(&mut scratch);
        if let Ok(mut all) = self.scratch.lock() {
            all.push(scratch);
        }
        result
    }

    /// Every candidate's normaliser, `[M]`; not those of the users that are scored at once.
    fn normalisers(&self, batch: &Batch, pieces: &[Vec<Part>]) -> Vec<Normaliser> {
        let mut all = vec![Normaliser::NONE; batch.targets().total()];
        let parts =
            pieces.iter().map(|piece| piece.iter().filter(|part| !self.is_scored_at_once(part)).collect());
        let parts: Vec<Vec<&Part>> = parts.filter(|parts: &Vec<&Part>| !parts.is_empty()).collect();
        let results = map(parts, |parts| {
            self.with_scratch(|scratch| {
                let normalisers = |part: &Part| {
                    let mut all = vec![Normaliser::NONE; part.targets.len()];
                    self.for_each_tile(scratch, part, |scratch, rows, tile, _| {
                        let first = part.targets.start;
                        let normalisers = &mut all[tile.start - first..tile.end - first];
                        let (layers, weighting) = (self.layers, Weighting::Sum);
                        self.instructions.run(Normalise { layers, weighting, scratch, rows, normalisers });
                    });
                    (part.targets.clone(), all)
                };
                parts.into_iter().map(normalisers).collect::<Vec<_>>()
            })
        });
        for (targets, later) in results.into_iter().flatten() {
            all[targets].iter_mut().zip(&later).for_each(|(all, later)| all.add(later));
        }
        all
    }

    /// Whether the part is a whole history of one span, whose scores are all known before a gradient is computed.
    fn is_scored_at_once(&self, part: &Part) -> bool {
        part.is_whole && part.history.len() <= self.longest_span
    }

    /// Calls `each` for every span of behaviours and tile of candidates of a part, with their rows loaded, the number of behaviours,
    /// and whether the tile is the span's last.
    fn for_each_tile(
        &self,
        scratch: &mut Scratch,
        part: &Part,
        mut each: impl FnMut(&mut Scratch, usize, Range<usize>, Option<Range<usize>>),
    ) {
        let length = if self.is_scored_at_once(part) { part.history.len().max(1) } else { SPAN };
        // The pairs of a tile are about as many in each case.
        let candidates = (TILE * SPAN / length).clamp(1, TILE);
        for start in part.history.clone().step_by(length) {
            let span = start..part.history.end.min(start + length);
            let load = |rows: &Range<usize>, from: WideRows<'_>, out: &mut Matrix| {
                let (rows, width) = (rows.clone(), self.inputs.width);
                self.instructions.run(Widen { from, rows, width, out });
            };
            load(&span, self.inputs.history, &mut scratch.history);
            for first in part.targets.clone().step_by(candidates) {
                let tile = first..part.targets.end.min(first + candidates);
                load(&tile, self.inputs.targets, &mut scratch.targets);
                load(&tile, self.grad_out, &mut scratch.grad_out);
                let last = (tile.end == part.targets.end).then(|| span.clone());
                each(scratch, span.len(), tile, last);
            }
        }
    }

    /// The gradients of a piece: those that it owns are written; returns its sums over pairs, and partial gradients of behaviours
    /// and of candidates with their users.
    fn piece(&self, parts: Vec<Task<'_>>) -> (Sums, [Partial; 2]) {
        let mut sums = ChainedSums::new(|| Sums::new(self.layers, self.wanted, self.inputs.width));
        let mut partial = [Vec::new(), Vec::new()];
        self.with_scratch(|scratch| {
            parts.into_iter().for_each(|task| self.part(task, scratch, &mut sums, &mut partial));
        });
        (sums.finish(), partial)
    }

    /// The gradients of a part: writes those that it owns, adds to the piece's sums, and appends to the partial gradients.
    fn part(
        &self,
        (part, mut grad_history, grad_targets): Task<'_>,
        scratch: &mut Scratch,
        sums: &mut ChainedSums,
        [partial_history, partial_targets]: &mut [Partial; 2],
    ) {
        let (width, first) = (self.inputs.width, part.targets.start);
        if let Some(rows) = grad_history.as_mut().filter(|_| part.targets.is_empty()) {
            rows.clear();
        }
        let mut targets = Matrix::zeros(if self.wanted.targets { part.targets.len() } else { 0 }, width);
        self.for_each_tile(scratch, &part, |scratch, rows, tile, last| {
            let weighting = |m: usize| match self.softmax {
                None => Weighting::Sum,
                Some(_) if self.is_scored_at_once(&part) => Weighting::SoftmaxOfSpan,
                Some(normalisers) => Weighting::Softmax(normalisers[m]),
            };
            self.instructions.run(Backward {
                layers: self.layers,
                wanted: self.wanted,
                weightings: &tile.clone().map(weighting).collect::<Vec<_>>(),
                rows,
                scratch,
                sums: sums.next(tile.len() * rows.div_ceil(BLOCK)),
                targets: &mut targets,
                first: tile.start - first,
            });
            let Some(span) = last.filter(|_| self.wanted.history) else { return };
            let grads = &mut scratch.grads;
            let numbers = ..rows * grads.vectors();
            if let Some(out) = &mut grad_history {
                let first = span.start - part.history.start;
                self.instructions.run(WriteRows { rows: grads, count: rows, width, out, first });
            } else {
                let mut own = Matrix::zeros(rows, width);
                own.data_mut().copy_from_slice(&grads.data()[numbers]);
                partial_history.push((part.user, own));
            }
            grads.data_mut()[numbers].fill([0.0; LANES]);
        });
        if let Some(mut out) = grad_targets {
            let (rows, count) = (&targets, targets.rows());
            self.instructions.run(WriteRows { rows, count, width, out: &mut out, first: 0 });
        } else if self.wanted.targets {
            partial_targets.push((part.user, targets));
        }
    }
}
