//! Gradients of TIN on the CPU.
//!
//! A task computes the gradients of a span of one user's summed rows, by target attention's backward pass. Rows get theirs at once; what a
//! span adds to those of the candidates is a partial result, and its rows' gradients are added to those of their positions, both in the
//! order of the history. A bounded number of behaviours is computed at a time, so memory does not grow with the history.

use std::ops::Range;

use crate::cpu::spans::{Span, spans, split_ranges};
use crate::cpu::target_attention::{GatheredAttention, GatheredGradients};
use crate::cpu::threads::map;
use crate::cpu::tin::rows::PositionedRows;
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, add};
use crate::error::Result;
use crate::host::filled;
use crate::jagged::Batch;

const NAME: &str = "tin_backward";

/// A task has at least about this many behaviours, so that its partial result is small compared with its rows.
const LEAST: usize = 2048;

/// The most numbers of gradients that wait to be added to those of positions.
const WAITING: usize = 1 << 22;

/// What comes into the backward pass, `[M, d]` each but `state`, as `f32`.
pub(super) struct Incoming<'a> {
    pub(super) grad_out: &'a [f32],
    pub(super) pooled: &'a [f32],
    /// `[M]`: the largest score, and `Σ exp(score − max)`.
    pub(super) state: [&'a [f32]; 2],
}

/// The gradients that are asked for.
pub(super) struct Gradients<'a> {
    pub(super) targets: Option<NarrowRows<'a>>,
    pub(super) history: Option<NarrowRows<'a>>,
    pub(super) positions: Option<NarrowRows<'a>>,
}

/// Reads the summed rows of candidates or of a span of behaviours.
struct ReadRows<'a> {
    rows: &'a PositionedRows<'a>,
    targets: Option<Range<usize>>,
    history: Range<usize>,
    end: usize,
}

impl Kernel for ReadRows<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<f32> {
        let Self { rows, targets, history, end } = self;
        match targets {
            Some(targets) => rows.targets(l, targets),
            None => {
                let mut sums = vec![0.0; history.len() * rows.op.width];
                rows.behaviours(l, history, end, &mut sums);
                sums
            }
        }
    }
}

/// `ṽ` of all candidates, `[M, d]`.
pub(super) fn summed_targets(
    instructions: Instructions,
    batch: &Batch,
    rows: &PositionedRows<'_>,
) -> Vec<f32> {
    let targets = Some(0..batch.targets().total());
    instructions.run(ReadRows { rows, targets, history: 0..0, end: 0 })
}

/// Writes numbers from the start of some rows on.
struct WriteRows<'a, 'b> {
    numbers: &'a [f32],
    out: &'a mut NarrowRows<'b>,
}

impl Kernel for WriteRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        self.out.write(l, 0, self.numbers);
    }
}

/// Writes the gradients; `targets` are `ṽ`.
pub(super) fn write(
    instructions: Instructions,
    batch: &Batch,
    rows: &PositionedRows<'_>,
    targets: &[f32],
    incoming: &Incoming<'_>,
    grads: Gradients<'_>,
) -> Result<()> {
    let (op, width) = (rows.op, rows.op.width);
    let Gradients { targets: mut grad_targets, history: grad_history, positions: mut grad_positions } = grads;
    let asks_positions = grad_positions.is_some();
    if grad_targets.is_none() && grad_history.is_none() && !asks_positions {
        return Ok(());
    }
    let product = |(grad, target): (&f32, &f32)| if op.multiply_target { grad * target } else { *grad };
    let grad_pooled: Vec<f32> = incoming.grad_out.iter().zip(targets).map(product).collect();
    let attention = GatheredAttention {
        widths: [width; 2],
        scale: op.effective_scale(),
        queries: targets,
        grad_out: &grad_pooled,
        out: Some(incoming.pooled),
        state: incoming.state,
    };
    let needs_targets = grad_targets.is_some() || asks_positions;
    let needs_history = grad_history.is_some() || asks_positions;
    let spans = spans(batch.histories().ranges(), LEAST);
    let ranges = || spans.iter().map(|span| span.rows.clone());
    let mut outputs = grad_history.map(|rows| split_ranges(ranges(), rows, width).into_iter());
    let mut of_targets = filled(NAME, targets.len(), 0.0)?;
    let mut of_positions = filled(NAME, if asks_positions { op.positions * width } else { 0 }, 0.0f64)?;
    for round in rounds(&spans, width) {
        let task = |span| (span, outputs.as_mut().and_then(Iterator::next));
        let tasks: Vec<(&Span, Option<NarrowRows<'_>>)> = spans[round.clone()].iter().map(task).collect();
        let results = map(tasks, |(span, out): (&Span, Option<NarrowRows<'_>>)| {
            let candidates = batch.targets().range(span.owner);
            let end = batch.histories().range(span.owner).end;
            let keys = instructions.run(ReadRows { rows, targets: None, history: span.rows.clone(), end });
            let length = if needs_history { keys.len() } else { 0 };
            let (mut grads, mut of_values) = (vec![0.0; length], vec![0.0; length]);
            let asked = GatheredGradients {
                keys: needs_history.then_some(&mut grads[..]),
                values: needs_history.then_some(&mut of_values[..]),
                queries: needs_targets,
            };
            let partial = attention.span(instructions, candidates, (&keys, &keys), asked);
            add(&mut grads, &of_values);
            if let Some(mut out) = out {
                instructions.run(WriteRows { numbers: &grads, out: &mut out });
            }
            (if asks_positions { grads } else { Vec::new() }, partial)
        });
        for (span, (grads, partial)) in spans[round].iter().zip(results) {
            let first = batch.targets().range(span.owner).start * width;
            add(&mut of_targets[first..first + partial.len()], &partial);
            let end = batch.histories().range(span.owner).end;
            for (l, grad) in span.rows.clone().zip(grads.chunks_exact(width)) {
                add_to_position(&mut of_positions, rows.behaviour_position(l, end), grad);
            }
        }
    }
    if op.multiply_target {
        let terms = incoming.grad_out.iter().zip(incoming.pooled);
        of_targets.iter_mut().zip(terms).for_each(|(sum, (grad, pooled))| *sum += grad * pooled);
    }
    if let Some(out) = &mut grad_targets {
        instructions.run(WriteRows { numbers: &of_targets, out });
    }
    if let Some(out) = &mut grad_positions {
        for (m, grad) in of_targets.chunks_exact(width).enumerate() {
            add_to_position(&mut of_positions, rows.target_position(m), grad);
        }
        let numbers: Vec<f32> = of_positions.iter().map(|&sum| sum as f32).collect();
        instructions.run(WriteRows { numbers: &numbers, out });
    }
    Ok(())
}

/// Spans that are computed together: as many as have [`WAITING`] numbers, but at least one.
fn rounds(spans: &[Span], width: usize) -> Vec<Range<usize>> {
    let (mut rounds, mut start, mut numbers) = (Vec::new(), 0, 0usize);
    for (i, span) in spans.iter().enumerate() {
        let own = span.rows.len() * width;
        if i > start && numbers + own > WAITING {
            rounds.push(start..i);
            (start, numbers) = (i, 0);
        }
        numbers += own;
    }
    if start < spans.len() {
        rounds.push(start..spans.len());
    }
    rounds
}

/// Adds a row to the gradient of a position.
fn add_to_position(sums: &mut [f64], position: usize, grad: &[f32]) {
    let sums = sums[position * grad.len()..].iter_mut();
    sums.zip(grad).for_each(|(sum, &grad)| *sum += f64::from(grad));
}
