//! The specification, as code: every operation in its plainest form, one number at a time, in `f64`.
//!
//! Every backend is compared with these functions. They widen the inputs exactly, compute in `f64` and return `f64`,
//! so that the error of a backend can be measured whatever it stores. They are slow and mean to be: loops follow the
//! formulas of [`crate::TargetAttention`], [`crate::Din`], [`crate::Sdim`] and [`crate::Decoupled`] letter by letter.
//!
//! Rows that belong to no user come out as zeros here; a backend leaves them as they were.

mod decoupled;
mod din;
mod lookup;
mod sdim;
mod target_attention;

pub use decoupled::*;
pub use din::*;
pub use lookup::*;
pub use sdim::*;
pub use target_attention::*;

use crate::element::Element;

/// Row `row` of a `[rows, width]` matrix, widened.
fn row<T: Element>(matrix: &[T], row: usize, width: usize) -> Vec<f64> {
    matrix[row * width..(row + 1) * width].iter().map(|&value| value.to_f32().into()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Softmax weights and log-sum-exp. Without scores, or with none above `-∞`, there are no weights to speak of: all
/// are 0 and the log-sum-exp is `-∞`.
fn softmax(scores: &[f64]) -> (Vec<f64>, f64) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY && !scores.iter().any(|score| score.is_nan()) {
        return (vec![0.0; scores.len()], f64::NEG_INFINITY);
    }
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let lse = max + sum.ln();
    (scores.iter().map(|score| (score - lse).exp()).collect(), lse)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
