//! Arithmetic that several references share.

use crate::element::Element;

/// Row `row` of a `[rows, width]` matrix, widened to `f64`.
pub(super) fn row<T: Element>(matrix: &[T], row: usize, width: usize) -> Vec<f64> {
    matrix[row * width..(row + 1) * width].iter().map(|&value| value.to_f32().into()).collect()
}

/// `⟨a, b⟩`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Softmax weights and log-sum-exp. Without scores, or if no score is above `-∞`, all weights are 0 and the log-sum-exp
/// is `-∞`.
pub(super) fn softmax(scores: &[f64]) -> (Vec<f64>, f64) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY && !scores.iter().any(|score| score.is_nan()) {
        return (vec![0.0; scores.len()], f64::NEG_INFINITY);
    }
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let lse = max + sum.ln();
    (scores.iter().map(|score| (score - lse).exp()).collect(), lse)
}

/// `1/(1 + exp(−x))`.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
