//! Arithmetic that several references share.

/// Row `row` of a `[rows, width]` matrix, widened to `f64`.
pub(super) fn row(matrix: &[f32], row: usize, width: usize) -> Vec<f64> {
    matrix[row * width..(row + 1) * width].iter().map(|&value| value.into()).collect()
}

/// `⟨a, b⟩`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The weights of scores, `None` where a score of `-∞` removes a behaviour, and with softmax the log-sum-exp.
pub(super) type Weights = (Vec<Option<f64>>, f64);

/// Softmax: `exp(s − max) / Σ exp(s − max)`. (`exp(s − lse)` is the same on paper, but where scores are large, `ln Σ` is lost
/// in `lse`.) Without scores, or if all are `-∞`, the log-sum-exp is `-∞`. A score of NaN or `+∞` makes all weights NaN.
pub(super) fn softmax(scores: &[f64]) -> Weights {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials = each_not_removed(scores, |score| (score - max).exp());
    let sum: f64 = exponentials.iter().flatten().sum();
    if exponentials.iter().all(Option::is_none) {
        return (exponentials, f64::NEG_INFINITY);
    }
    (exponentials.into_iter().map(|weight| weight.map(|weight| weight / sum)).collect(), max + sum.ln())
}

/// The gradients of scores through softmax: `w·(dw − D + grad_lse)` with `D = Σ w·dw`, `None` where a behaviour is removed.
pub(super) fn softmax_backward(
    weights: &[Option<f64>],
    grad_weight: impl Fn(usize) -> f64,
    grad_lse: f64,
) -> Vec<Option<f64>> {
    let grads = |(index, weight): (usize, &Option<f64>)| weight.map(|weight| (weight, grad_weight(index)));
    let grads: Vec<_> = weights.iter().enumerate().map(grads).collect();
    let mean: f64 = grads.iter().flatten().map(|(weight, grad)| weight * grad).sum();
    grads.iter().map(|pair| pair.map(|(weight, grad)| weight * (grad - mean + grad_lse))).collect()
}

/// A function of each score, `None` where the score is `-∞`.
pub(super) fn each_not_removed(scores: &[f64], weight: impl Fn(f64) -> f64) -> Vec<Option<f64>> {
    scores.iter().map(|&score| (score != f64::NEG_INFINITY).then(|| weight(score))).collect()
}

/// Adds `weight · row` to `out`, unless the behaviour is removed: then its row may hold anything. A weight of 0 counts:
/// times NaN or infinity it is NaN.
pub(super) fn add_weighted(out: &mut [f64], weight: Option<f64>, row: impl FnOnce() -> Vec<f64>) {
    if let Some(weight) = weight {
        out.iter_mut().zip(row()).for_each(|(out, value)| *out += weight * value);
    }
}

/// `1/(1 + exp(−x))`.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
