//! The reference of TIN. Formula: [`Tin`].

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{Tin, TinInputs};
use crate::reference::arithmetic::{add_weighted, dot, row, softmax};
use crate::reference::widened::tin_in_f32;

const NAME: &str = "tin";

/// Exact results of TIN.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TinReference {
    /// `[M, d]`.
    pub out: Vec<f64>,
    /// `[M, d]`: before the product with the candidate.
    pub pooled: Vec<f64>,
    /// `[M]`.
    pub lse: Vec<f64>,
}

/// TIN in `f64`.
///
/// # Errors
/// Those of [`Tin::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given position that is not below `P`.
pub fn tin<T: Element>(op: &Tin, batch: &Batch, inputs: &TinInputs<'_, Host, T>) -> Result<TinReference> {
    tin_in_f32(NAME, inputs, |inputs| attend(op, batch, inputs))
}

/// [`tin`] of widened inputs.
fn attend(op: &Tin, batch: &Batch, inputs: &TinInputs<'_, Host, f32>) -> Result<TinReference> {
    op.check(batch, inputs)?;
    op.check_host_positions(NAME, batch, inputs)?;
    let (rows, width) = (batch.targets().rows(), op.width);
    let length = op.output_length(batch)?;
    let mut result = TinReference {
        out: filled(NAME, length, 0.0)?,
        pooled: filled(NAME, length, 0.0)?,
        lse: filled(NAME, rows, f64::NEG_INFINITY)?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let target = target(op, inputs, m);
            let scores = scores(op, inputs, &target, history.clone());
            let (weights, lse) = softmax(&scores);
            result.lse[m] = lse;
            let pooled = &mut result.pooled[m * width..(m + 1) * width];
            for (l, weight) in history.clone().zip(weights) {
                add_weighted(pooled, weight, || behaviour(op, inputs, &history, l));
            }
            let out = &mut result.out[m * width..(m + 1) * width];
            for ((out, pooled), target) in out.iter_mut().zip(pooled).zip(&target) {
                *out = if op.multiply_target { target * *pooled } else { *pooled };
            }
        }
    }
    Ok(result)
}

/// `ṽ` of candidate `m`.
pub(super) fn target(op: &Tin, inputs: &TinInputs<'_, Host, f32>, m: usize) -> Vec<f64> {
    let position = inputs.target_positions.map_or(0, |positions| positions[m] as usize);
    add_rows(row(&inputs.targets, m, op.width), row(&inputs.positions, position, op.width))
}

/// `f(l)` of behaviour `l` of a history.
pub(super) fn position(
    op: &Tin,
    inputs: &TinInputs<'_, Host, f32>,
    history: &Range<usize>,
    l: usize,
) -> usize {
    inputs.history_positions.map_or_else(|| op.position(history, l), |positions| positions[l] as usize)
}

/// `ẽ` of behaviour `l` of a history.
pub(super) fn behaviour(
    op: &Tin,
    inputs: &TinInputs<'_, Host, f32>,
    history: &Range<usize>,
    l: usize,
) -> Vec<f64> {
    let position = position(op, inputs, history, l);
    add_rows(row(&inputs.history, l, op.width), row(&inputs.positions, position, op.width))
}

/// The scores of a candidate against each behaviour of a history.
pub(super) fn scores(
    op: &Tin,
    inputs: &TinInputs<'_, Host, f32>,
    target: &[f64],
    history: Range<usize>,
) -> Vec<f64> {
    let scale = f64::from(op.effective_scale());
    history.clone().map(|l| scale * dot(target, &behaviour(op, inputs, &history, l))).collect()
}

fn add_rows(mut sum: Vec<f64>, row: Vec<f64>) -> Vec<f64> {
    sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
    sum
}
