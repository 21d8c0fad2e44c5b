//! The behaviours that the candidates of a selection keep, and the gradients that they and the candidates get.

use crate::cpu::decoupled::aggregate::aggregate_exactly;
use crate::cpu::gather::AHEAD;
use crate::cpu::softmax::{PART, softmax_weights};
use crate::cpu::tables::{add_dots, pool, prefetch_rows, read_rows};
use crate::cpu::threads::{for_each, split_rows};
use crate::cpu::vector::{Instructions, Kernel, Lanes, add, dot_lanes};
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::jagged::Batch;
use crate::ops::*;

/// The kept behaviours that no score of `-∞` removes, by candidate, each with its slot's order.
pub(super) struct Kept {
    /// `[M + 1]`: candidate `m` keeps `starts[m]..starts[m + 1]`.
    starts: Vec<usize>,
    /// `[E, F]`.
    pub(super) ids: Vec<u32>,
    /// `[E]`: the candidate of each.
    pub(super) candidates: Vec<u32>,
    /// `[E]`: the scores; [`gradients`](Self::gradients) turns them into weights.
    pub(super) weights: Vec<f32>,
    /// `[E]`: the gradients of the scores; once [`split_scales`](Self::split_scales) was called, times a power of two.
    pub(super) grads: Vec<f32>,
    /// The factors on attention rows.
    scales: Vec<f32>,
}

/// What [`Kept::gradients`] computes for each candidate, where asked for.
pub(super) struct Wanted<'a> {
    /// Whether the gradients of the scores are.
    pub(super) scores: bool,
    /// `[M, Σ r]`: `grad_out ⊙ target`, with `multiply_target`.
    pub(super) products: Option<&'a mut [f32]>,
    /// `[M, Σ r]`: the gradients of the candidates' own representations.
    pub(super) targets: Option<&'a mut [f32]>,
}

impl Kept {
    /// From a checked selection.
    pub(super) fn new(
        operation: &'static str,
        features: usize,
        batch: &Batch,
        (history_ids, top_k): (&[u32], usize),
        selection: &Selection<'_, Host>,
    ) -> Result<Self> {
        let used = batch.targets().total();
        let counts = selection.counts[..used].iter();
        let most = counts.fold(0usize, |sum, &count| sum.saturating_add(count as usize));
        let mut kept = Self {
            starts: reserve(operation, used + 1)?,
            ids: reserve(operation, most.saturating_mul(features))?,
            candidates: reserve(operation, most)?,
            weights: reserve(operation, most)?,
            grads: Vec::new(),
            scales: Vec::new(),
        };
        kept.starts.push(0);
        for (history, targets) in batch.requests() {
            for m in targets {
                let slots = m * top_k..m * top_k + selection.counts[m] as usize;
                for (&position, &score) in
                    selection.positions[slots.clone()].iter().zip(&selection.scores[slots])
                {
                    if score != f32::NEG_INFINITY {
                        let behaviour = history.start + position as usize;
                        let ids = &history_ids[behaviour * features..(behaviour + 1) * features];
                        kept.ids.extend_from_slice(ids);
                        kept.candidates.push(m as u32);
                        kept.weights.push(score);
                    }
                }
                kept.starts.push(kept.weights.len());
            }
        }
        kept.grads = filled(operation, kept.weights.len(), 0.0)?;
        Ok(kept)
    }

    /// The candidates that keep any behaviour.
    pub(super) fn targets(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.starts.len() - 1).filter(|&m| self.starts[m] < self.starts[m + 1])
    }

    /// The number of behaviours of each candidate.
    fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.starts.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Takes the gradients of the scores from `[M, K]`, which is in the order of the selection.
    pub(super) fn take_grads(&mut self, selection: &Selection<'_, Host>, grads: &[f32], top_k: usize) {
        let mut places = self.grads.iter_mut();
        for (m, &count) in selection.counts[..self.starts.len() - 1].iter().enumerate() {
            let slots = m * top_k..m * top_k + count as usize;
            let own = selection.scores[slots.clone()].iter().zip(&grads[slots]);
            for ((_, grad), place) in own.filter(|(score, _)| **score != f32::NEG_INFINITY).zip(&mut places) {
                *place = *grad;
            }
        }
    }

    /// Writes the gradients of the scores to `[M, K]`.
    pub(super) fn write_grads(&self, selection: &Selection<'_, Host>, out: &mut [f32], top_k: usize) {
        let mut grads = self.grads.iter();
        let rows = out.chunks_exact_mut(top_k).zip(selection.scores.chunks_exact(top_k));
        for ((out, scores), &count) in rows.zip(&selection.counts[..self.starts.len() - 1]) {
            out.fill(0.0);
            let slots = out.iter_mut().zip(scores).take(count as usize);
            for ((out, _), grad) in slots.filter(|(_, score)| **score != f32::NEG_INFINITY).zip(&mut grads) {
                *out = *grad;
            }
        }
    }

    /// Turns scores into weights, and computes what is wanted.
    pub(super) fn gradients(
        &mut self,
        instructions: Instructions,
        op: &Decoupled,
        inputs: &AggregateInputs<'_, Host>,
        grad_out: &[f32],
        wanted: Wanted<'_>,
    ) {
        let (features, width) = (op.features(), total_width(inputs.representation));
        let lengths: Vec<usize> = self.lengths().collect();
        let each = || lengths.iter().copied();
        let weights = split_rows(each(), &mut self.weights, 1);
        let grads = split_rows(each(), &mut self.grads, 1);
        let mut products = wanted.products.map(|rows| rows.chunks_exact_mut(width));
        let mut targets = wanted.targets.map(|rows| rows.chunks_exact_mut(width));
        let mut tasks = Vec::with_capacity(lengths.len());
        for (m, (weights, grads)) in weights.into_iter().zip(grads).enumerate() {
            let ids = &self.ids[self.starts[m] * features..self.starts[m + 1] * features];
            let products = products.as_mut().and_then(Iterator::next);
            let target = targets.as_mut().and_then(Iterator::next);
            let grads = wanted.scores.then_some(grads);
            let grad_out = &grad_out[m * width..(m + 1) * width];
            if !weights.is_empty() {
                tasks.push(Candidate { op, inputs, m, ids, weights, grads, grad_out, products, target });
            }
        }
        for_each(tasks, |task| instructions.run(task));
    }

    /// Puts a power of two of the scales on the gradients of the scores: a row times a large or tiny scale could leave the range of
    /// `f32`.
    pub(super) fn split_scales(&mut self, op: &Decoupled) {
        let (scales, factor) = op.split_scales_of_gradients();
        self.grads.iter_mut().for_each(|grad| *grad *= factor);
        self.scales = scales;
    }

    /// The candidates' attention rows times the split scales, and the gradients of the rows, both `[M, Σ a]`.
    pub(super) fn attention(
        &self,
        operation: &'static str,
        instructions: Instructions,
        (tables, target_ids): (&[Table<'_, Host>], &[u32]),
    ) -> Result<[Vec<f32>; 2]> {
        let (features, width) = (tables.len(), total_width(tables));
        let rows = || filled(operation, (self.starts.len() - 1).saturating_mul(width), 0.0);
        let (mut queries, mut targets) = (rows()?, rows()?);
        let places = queries.chunks_exact_mut(width).zip(targets.chunks_exact_mut(width)).enumerate();
        let own = |(m, (query, target))| {
            let (start, end) = (self.starts[m], self.starts[m + 1]);
            let target_ids = &target_ids[m * features..(m + 1) * features];
            let (ids, grads) = (&self.ids[start * features..end * features], &self.grads[start..end]);
            Attention { scales: &self.scales, tables, target_ids, ids, grads, query, target }
        };
        for_each(places.map(own).filter(|task| !task.grads.is_empty()).collect(), |task| {
            instructions.run(task)
        });
        Ok([queries, targets])
    }
}

/// One candidate of an aggregation.
struct Candidate<'a> {
    op: &'a Decoupled,
    inputs: &'a AggregateInputs<'a, Host>,
    m: usize,
    /// `[E, F]`, at least one row.
    ids: &'a [u32],
    /// In: scores.
    weights: &'a mut [f32],
    grads: Option<&'a mut [f32]>,
    grad_out: &'a [f32],
    products: Option<&'a mut [f32]>,
    target: Option<&'a mut [f32]>,
}

impl Kernel for Candidate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { op, inputs, m, ids, weights, grads, grad_out, products, target } = self;
        let (features, tables) = (op.features(), inputs.representation);
        if grads.is_some() || target.is_some() {
            prefetch_rows(tables, ids.chunks(AHEAD * features).next().unwrap_or_default());
        }
        let (_, sum) = softmax_weights(l, weights);
        for weight in &mut *weights {
            *weight /= sum;
        }
        let mut grad_mean = grad_out;
        if let Some(products) = products {
            let own = &inputs.target_ids[m * features..(m + 1) * features];
            read_rows(l, tables, own, products, grad_out.len());
            for (product, grad) in products.iter_mut().zip(grad_out) {
                *product *= grad;
            }
            grad_mean = products;
        }
        let mut scratch = Vec::new();
        if let Some(grads) = grads {
            add_dots(l, tables, ids, grad_mean, &mut scratch, grads);
            let mut mean = 0.0;
            for (weights, grads) in weights.chunks(PART).zip(grads.chunks(PART)) {
                mean += dot_lanes(l, weights, grads);
            }
            for (grad, weight) in grads.iter_mut().zip(&*weights) {
                *grad = weight * (*grad - mean);
            }
        }
        if let Some(target) = target {
            pool_by_parts(l, tables, ids, weights, &mut scratch, target);
            // A mean of the largest numbers, which rounding errors carry beyond them.
            if !target.iter().fold(true, |finite, value| finite & value.is_finite()) {
                aggregate_exactly(l, tables, ids, weights, 1.0, target);
            }
            for (target, grad) in target.iter_mut().zip(grad_out) {
                *target *= grad;
            }
        }
    }
}

/// The attention half of one candidate.
struct Attention<'a> {
    scales: &'a [f32],
    tables: &'a [Table<'a, Host>],
    target_ids: &'a [u32],
    ids: &'a [u32],
    grads: &'a [f32],
    query: &'a mut [f32],
    target: &'a mut [f32],
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { scales, tables, target_ids, ids, grads, query, target } = self;
        prefetch_rows(tables, ids.chunks(AHEAD * tables.len()).next().unwrap_or_default());
        read_rows(l, tables, target_ids, query, query.len());
        pool_by_parts(l, tables, ids, grads, &mut Vec::new(), target);
        scale_features(scales, tables, query);
        scale_features(scales, tables, target);
    }
}

/// Multiplies each feature's part of a row `[Σ a]` by the feature's scale.
#[inline(always)]
pub(super) fn scale_features(scales: &[f32], tables: &[Table<'_, Host>], mut row: &mut [f32]) {
    for (table, scale) in tables.iter().zip(scales) {
        let (own, rest) = std::mem::take(&mut row).split_at_mut(table.width);
        own.iter_mut().for_each(|value| *value *= scale);
        row = rest;
    }
}

/// `out = Σ weight·row`, by parts that are added up in order.
#[inline(always)]
fn pool_by_parts<L: Lanes>(
    l: L,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    weights: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let features = tables.len();
    let first = &weights[..weights.len().min(PART)];
    pool(l, tables, ids, first.len(), Some(first), scratch, out);
    let mut part = Vec::new();
    for (ids, weights) in ids.chunks(PART * features).zip(weights.chunks(PART)).skip(1) {
        part.resize(out.len(), 0.0);
        pool(l, tables, ids, weights.len(), Some(weights), scratch, &mut part);
        add(out, &part);
    }
}
