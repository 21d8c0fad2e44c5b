//! How far off gradients of decoupled embeddings may be, from the errors of every pair of a candidate and a behaviour that it keeps.

use std::collections::BTreeMap;

use longseq::*;

use super::Inputs;
use crate::case::Rules;
use crate::compare::{U, additions, roundings};
use crate::lookup::{Owned, Storage, Stored, read_row, view};

/// The rows that a candidate keeps, with their scores; without those whose score is `-∞`.
pub(super) type KeptRows = Vec<(usize, f64)>;

/// The errors allowed for the gradient of each table, by id.
pub(super) type TableErrors = Vec<BTreeMap<u32, Vec<f64>>>;

/// An underflow costs at most this.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Adds up errors.
pub(super) struct Errors<'a> {
    op: &'a Decoupled,
    inputs: &'a Inputs,
    /// Roundings of a sum over a candidate's behaviours, and of one over everything that an id gets.
    chain: f64,
    all: f64,
    /// What an operand may lose where a device takes subnormal numbers for 0.
    flushed: f64,
    pub(super) attention: TableErrors,
    pub(super) representation: TableErrors,
    /// Of each candidate, those of the gradients of its scores, in order.
    pub(super) scores: Vec<Vec<f64>>,
}

/// A number and how far off it may be.
#[derive(Debug, Clone, Copy)]
struct Rounded {
    value: f64,
    error: f64,
}

impl<'a> Errors<'a> {
    /// No errors yet, for histories up to this length.
    pub(super) fn new(op: &'a Decoupled, inputs: &'a Inputs, longest: usize, rules: Rules) -> Self {
        let none = || vec![BTreeMap::new(); inputs.attention.len()];
        let chain = additions(longest) + 16.0;
        let (attention, representation, all) = (none(), none(), chain + roundings(usize::MAX) + 8.0);
        let flushed = if rules.subnormal { 0.0 } else { TINY };
        Self { op, inputs, chain, all, flushed, attention, representation, scores: Vec::new() }
    }

    fn ids(&self, ids: &'a [u32], row: usize) -> &'a [u32] {
        let features = self.op.features();
        &ids[row * features..(row + 1) * features]
    }

    /// Candidate `m`, whose scores are off by up to `score_error`.
    pub(super) fn add_candidate(&mut self, m: usize, kept: &KeptRows, grad_out: &[f64], score_error: f64) {
        let inputs = self.inputs;
        let target_ids = self.ids(&inputs.target_ids, m);
        let width: usize = inputs.representation.iter().map(|table| table.width).sum();
        let grad_out: Vec<f64> = grad_out[m * width..(m + 1) * width].iter().map(|x| x.abs()).collect();
        let target = magnitudes(&inputs.representation, target_ids);
        let grad: Vec<f64> = match self.op.multiply_target {
            true => grad_out.iter().zip(&target).map(|(grad, t)| grad * t).collect(),
            false => grad_out.clone(),
        };
        let max = kept.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = kept.iter().map(|(_, score)| (score - max).exp()).sum();
        // A weight: its score's error and the rounding of its distance from the largest, the exponential, the sum, the division.
        let weights: Vec<Rounded> = kept
            .iter()
            .map(|(_, score)| {
                let (value, distance) = ((score - max).exp() / sum, max - score);
                let distance = if value == 0.0 { 0.0 } else { distance };
                // Errors of scores move weight between behaviours: at most `w·(1 − w)·(e^2ε − 1)`, and a weight is at most 1.
                let moved = (value * (1.0 - value) * (2.0 * score_error).exp_m1()).min(1.0);
                Rounded { value, error: moved + value * (2.25 * distance + self.chain) * U + TINY }
            })
            .collect();
        let rows: Vec<(&[u32], Vec<f64>)> = kept
            .iter()
            .map(|(l, _)| {
                let ids = self.ids(&inputs.ids, *l);
                (ids, magnitudes(&inputs.representation, ids))
            })
            .collect();
        // The magnitude of `⟨g, r⟩`; its error is that of a sum over the width, of factors that were rounded or decoded.
        let products: Vec<f64> =
            rows.iter().map(|(_, row)| row.iter().zip(&grad).map(|(r, g)| r * g).sum()).collect();
        // Of the largest operands, which numbers that are taken for 0 are multiplied with.
        let largest =
            grad.iter().chain(rows.iter().flat_map(|(_, row)| row)).fold(1.0, |a: f64, b| a.max(*b));
        let flushed = self.flushed * largest;
        let product_error = |product: f64| (width as f64 + 8.0) * (U * product + flushed + TINY);
        let mean: f64 = weights.iter().zip(&products).map(|(weight, product)| weight.value * product).sum();
        let mean_error: f64 = weights
            .iter()
            .zip(&products)
            .map(|(weight, &product)| {
                let error = product_error(product) + self.chain * U * product;
                weight.error * product + weight.value * error
            })
            .sum();
        let mut scores = Vec::with_capacity(kept.len());
        for ((weight, &product), (ids, row)) in weights.iter().zip(&products).zip(&rows) {
            let difference = product + mean;
            let error = weight.error * difference
                + weight.value * (product_error(product) + mean_error + 4.0 * U * difference)
                + TINY;
            scores.push(error);
            let own = Rounded { value: weight.value * difference, error };
            self.add_attention(target_ids, ids, own);
            let all = self.all;
            let error = weight.error + weight.value * all * U;
            let flushed = self.flushed * weight.value;
            add(&mut self.representation, &inputs.representation, ids, |j| {
                grad[j] * error + flushed * (1.0 + target[j] + grad_out[j]) + TINY
            });
            if self.op.multiply_target {
                let tables = &inputs.representation;
                add(&mut self.representation, tables, target_ids, |j| {
                    grad_out[j] * (row[j] * error + flushed + TINY) + flushed * row[j] + TINY
                });
            }
        }
        self.scores.push(scores);
    }

    /// A pair whose score has this gradient, exactly.
    pub(super) fn add_score(&mut self, m: usize, l: usize, grad: f64) {
        let inputs = self.inputs;
        let (target_ids, ids) = (self.ids(&inputs.target_ids, m), self.ids(&inputs.ids, l));
        self.add_attention(target_ids, ids, Rounded { value: grad.abs(), error: 0.0 });
    }

    /// Rows of one factor times rows of the other.
    fn add_attention(&mut self, target_ids: &[u32], ids: &[u32], grad: Rounded) {
        let error = grad.error + grad.value * self.all * U;
        let scale = |rows: &mut Vec<f64>| {
            let scales = self.inputs.attention.iter().zip(&self.op.scales);
            let scales = scales.flat_map(|(table, scale)| vec![f64::from(scale.abs()); table.width]);
            rows.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
        };
        for (ids, others) in [(ids, target_ids), (target_ids, ids)] {
            let mut row = magnitudes(&self.inputs.attention, others);
            scale(&mut row);
            let flushed = self.flushed * grad.value;
            add(&mut self.attention, &self.inputs.attention, ids, |j| row[j] * error + flushed + TINY);
        }
    }
}

/// The magnitudes of the concatenated rows of these ids. A decoded number may be the difference of larger ones.
fn magnitudes(tables: &[Owned<Host>], ids: &[u32]) -> Vec<f64> {
    let row = |(table, &id): (&Owned<Host>, &u32)| -> Vec<f64> {
        match &table.data {
            Stored::Int8 { .. } => vec![table.max_abs(); table.width],
            _ => read_row(&view(&Cpu::new(), table), id).into_iter().map(f64::abs).collect(),
        }
    };
    tables.iter().zip(ids).flat_map(row).collect()
}

/// Adds an error for each number of the rows of these ids.
fn add(errors: &mut TableErrors, tables: &[Owned<Host>], ids: &[u32], error: impl Fn(usize) -> f64) {
    let mut start = 0;
    for ((errors, table), &id) in errors.iter_mut().zip(tables).zip(ids) {
        if (id as usize) < table.rows {
            let row = errors.entry(id).or_insert_with(|| vec![0.0; table.width]);
            row.iter_mut().enumerate().for_each(|(j, sum)| *sum += error(start + j));
        }
        start += table.width;
    }
}

/// Whether tables that are stored so have gradients.
pub(super) fn is_trainable(storage: Storage) -> bool {
    storage != Storage::Int8
}
