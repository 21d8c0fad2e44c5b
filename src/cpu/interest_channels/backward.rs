//! Gradients of interest channels on the CPU.
//!
//! A task computes some candidates: of each channel the gradient of its sum, that of its axis, and through the right angles those of the
//! axes that were given. What a behaviour gets is two factors, of rows of the channel that keeps it: these are sorted by behaviour, and each
//! behaviour adds up its own, in the order of candidates.

use std::ops::Range;

use crate::cpu::interest_channels::axes::RightAngles;
use crate::cpu::interest_channels::inputs::Inputs;
use crate::cpu::interest_channels::kept::KeptRows;
use crate::cpu::picked::picked;
use crate::cpu::sorted_entries::{Entry, Sorted};
use crate::cpu::spans::{spans, split_ranges};
use crate::cpu::threads::{for_each, map, split_rows};
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows, add_lanes, dot_lanes};
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{InterestChannels, Selection};

pub(super) const NAME: &str = "interest_channels_backward";

/// The candidates of a task.
const CANDIDATES: usize = 8;

/// The least behaviours of a task.
const LEAST: usize = 1024;

/// What every task reads.
pub(super) struct Pass<'a> {
    pub(super) inputs: Inputs<'a>,
    /// `M`: `[M, c, d]`.
    pub(super) matrices: WideRows<'a>,
    pub(super) kept: Selection<'a, Host>,
    /// `[M, c, d]`.
    pub(super) grad_out: WideRows<'a>,
}

/// Some candidates of one user.
struct Chunk {
    user: usize,
    history: Range<usize>,
    targets: Range<usize>,
}

/// What some candidates give to the behaviours that they keep.
#[derive(Default)]
struct Found {
    /// `A/L`, of rows of `dr`.
    scores: Vec<Entry>,
    /// `⟨dr, e⟩/L`, of rows of `O`.
    slopes: Vec<Entry>,
}

/// Writes the gradients that are asked for.
pub(super) fn write(
    instructions: Instructions,
    batch: &Batch,
    pass: &Pass<'_>,
    of_axes: Option<NarrowRows<'_>>,
    of_history: Option<NarrowRows<'_>>,
) -> Result<()> {
    if of_axes.is_none() && of_history.is_none() {
        return Ok(());
    }
    let op = pass.inputs.op;
    let mut chunks = Vec::new();
    for (user, (history, targets)) in batch.requests().enumerate() {
        for first in targets.clone().step_by(CANDIDATES) {
            let targets = first..targets.end.min(first + CANDIDATES);
            chunks.push(Chunk { user, history: history.clone(), targets });
        }
    }
    let numbers = op.channels * op.width;
    let mut of_sums = filled(NAME, batch.targets().total() * numbers, 0.0)?;
    let lengths = || chunks.iter().map(|chunk| chunk.targets.len());
    let mut of_axes = of_axes.map(|rows| rows.split(lengths(), numbers).into_iter());
    let asks_history = of_history.is_some();
    let task = |(chunk, of_sums)| {
        let of_axes = of_axes.as_mut().and_then(Iterator::next);
        Candidates { pass, chunk, of_sums, of_axes, asks_history }
    };
    let tasks = chunks.iter().zip(split_rows(lengths(), &mut of_sums, numbers)).map(task).collect();
    let found = map(tasks, |task: Candidates<'_>| instructions.run(task));
    match of_history {
        Some(out) => write_history(instructions, batch, pass, (&chunks, found), &of_sums, out),
        None => Ok(()),
    }
}

/// The gradients of some candidates.
struct Candidates<'a> {
    pass: &'a Pass<'a>,
    chunk: &'a Chunk,
    /// `dr`: `[candidates, c, d]`.
    of_sums: &'a mut [f32],
    of_axes: Option<NarrowRows<'a>>,
    asks_history: bool,
}

impl Kernel for Candidates<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Found {
        let Self { pass, chunk, of_sums, mut of_axes, asks_history } = self;
        let Inputs { op, axes, history } = pass.inputs;
        let (width, numbers) = (op.width, op.channels * op.width);
        let mut found = Found::default();
        let mut kept = KeptRows::new(op, history);
        let mut products = Vec::new();
        let (mut sum, mut of_axis) = (vec![0.0; width], vec![0.0; width]);
        for (candidate, m) in chunk.targets.clone().enumerate() {
            let mut grad = vec![0.0; if of_axes.is_some() { numbers } else { 0 }];
            for i in (0..op.channels).filter(|&i| axes.exists[m * op.channels + i]) {
                let list = m * op.channels + i;
                let axis = &axes.rows[list * width..(list + 1) * width];
                let of_sum = &mut of_sums[(candidate * op.channels + i) * width..][..width];
                pass.grad_out.widen_to(l, list * width..(list + 1) * width, of_sum);
                kept.load(l, rows_kept(pass, chunk, list));
                kept.products(l, axis, &mut products);
                kept.weigh(products.iter().copied(), chunk.history.len());
                if let Some(norm) = kept.pool(l, &mut sum) {
                    before_division(l, &mut sum, norm, of_sum);
                }
                kept.products(l, of_sum, &mut products);
                let length = chunk.history.len() as f32;
                products.iter_mut().for_each(|slope| *slope /= length);
                if asks_history {
                    found.add(&kept, &products, chunk.history.start, list);
                }
                if of_axes.is_some() {
                    kept.sum(l, &products, &mut of_axis);
                    let out = grad[i * width..(i + 1) * width].iter_mut();
                    out.zip(&of_axis).for_each(|(out, &grad)| *out = f64::from(grad));
                }
            }
            if let Some(out) = &mut of_axes {
                let grad = of_matrix(pass, m, grad);
                out.write(l, candidate * numbers, &grad);
            }
        }
        found
    }
}

/// The rows of the behaviours in a list.
fn rows_kept(pass: &Pass<'_>, chunk: &Chunk, list: usize) -> impl Iterator<Item = usize> {
    let positions = &pass.kept.positions.as_slice()[list * pass.inputs.op.top_k..];
    let kept = &positions[..pass.kept.counts[list] as usize];
    kept.iter().map(|&position| chunk.history.start + position as usize)
}

/// Turns the gradient of `r/‖r‖` into that of `r`; overwrites `r`.
#[inline(always)]
fn before_division<L: Lanes>(l: L, sum: &mut [f32], norm: f64, grad: &mut [f32]) {
    if norm <= InterestChannels::MIN_NORM {
        grad.iter_mut().for_each(|grad| *grad = (f64::from(*grad) / InterestChannels::MIN_NORM) as f32);
        return;
    }
    sum.iter_mut().for_each(|number| *number = (f64::from(*number) / norm) as f32);
    let along = dot_lanes(l, sum, grad);
    for (grad, unit) in grad.iter_mut().zip(&*sum) {
        *grad = (f64::from(*grad - along * unit) / norm) as f32;
    }
}

/// The gradient of a candidate's matrix, from that of its axes at right angles.
fn of_matrix(pass: &Pass<'_>, m: usize, grad: Vec<f64>) -> Vec<f32> {
    let numbers = grad.len();
    let axes = RightAngles::new(pass.inputs.op, &pass.matrices.to_vec(m * numbers..(m + 1) * numbers));
    if !axes.is_finite {
        return vec![f32::NAN; numbers];
    }
    axes.backward(grad).into_iter().map(|grad| grad as f32).collect()
}

impl Found {
    /// Adds what a channel gives to the behaviours that it keeps.
    fn add(&mut self, kept: &KeptRows<'_>, slopes: &[f32], first: usize, list: usize) {
        let entries = |factors: &[f32]| -> Vec<Entry> {
            let pairs = kept.behaviours.iter().zip(factors);
            pairs.map(|(behaviour, &factor)| Entry { row: behaviour - first, query: list, factor }).collect()
        };
        self.scores.extend(entries(&kept.weights));
        self.slopes.extend(entries(slopes));
    }
}

/// Writes the gradients of all users' behaviours.
fn write_history(
    instructions: Instructions,
    batch: &Batch,
    pass: &Pass<'_>,
    (chunks, found): (&[Chunk], Vec<Found>),
    of_sums: &[f32],
    out: NarrowRows<'_>,
) -> Result<()> {
    let mut users: Vec<Vec<Found>> = (0..batch.users()).map(|_| Vec::new()).collect();
    for (chunk, found) in chunks.iter().zip(found) {
        users[chunk.user].push(found);
    }
    let users = batch.histories().ranges().zip(users).collect();
    let sorted = map(users, |(history, found): (Range<usize>, Vec<Found>)| -> Result<[Sorted; 2]> {
        let scores = Sorted::new(NAME, history.len(), found.iter().flat_map(|found| &found.scores))?;
        let slopes = Sorted::new(NAME, history.len(), found.iter().flat_map(|found| &found.slopes))?;
        Ok([scores, slopes])
    });
    let users = sorted.into_iter().collect::<Result<Vec<[Sorted; 2]>>>()?;
    let spans = spans(batch.histories().ranges(), LEAST);
    let out = split_ranges(spans.iter().map(|span| span.rows.clone()), out, pass.inputs.op.width);
    let tasks = spans.iter().zip(out).map(|(span, out)| {
        let first = batch.histories().range(span.owner).start;
        let rows = span.rows.start - first..span.rows.end - first;
        SpanGradients { pass, of_sums, entries: &users[span.owner], rows, out }
    });
    for_each(tasks.collect(), |task: SpanGradients<'_>| instructions.run(task));
    Ok(())
}

/// The gradients of a span of a user's behaviours.
struct SpanGradients<'a> {
    pass: &'a Pass<'a>,
    of_sums: &'a [f32],
    /// Of rows of `dr`, and of `O`.
    entries: &'a [Sorted; 2],
    /// Among the user's behaviours.
    rows: Range<usize>,
    out: NarrowRows<'a>,
}

impl Kernel for SpanGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { pass, of_sums, entries: [scores, slopes], rows, mut out } = self;
        // Without behaviours, rows may have any length.
        if rows.is_empty() {
            return;
        }
        let (width, axes) = (pass.inputs.op.width, &pass.inputs.axes.rows);
        let (mut sum, mut second, mut part) = (vec![0.0; width], vec![0.0; width], Vec::new());
        out.clear();
        for (place, row) in rows.enumerate() {
            let ((lists, scores), (_, slopes)) = (scores.of(row), slopes.of(row));
            if lists.is_empty() {
                continue;
            }
            picked(of_sums, width, lists).weighted_sum(l, scores, &mut part, &mut sum);
            picked(axes, width, lists).weighted_sum(l, slopes, &mut part, &mut second);
            add_lanes(l, &mut sum, &second);
            out.write(l, place * width, &sum);
        }
    }
}
