//! The reference of TIN's gradients. Formula: [`tin_backward`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{Tin, TinInputs};
use crate::reference::arithmetic::{add_weighted, dot, softmax, softmax_backward};
use crate::reference::tin::{behaviour, position, scores, target};
use crate::reference::widened::tin_in_f32;

const NAME: &str = "tin_backward";

/// Exact gradients of TIN, in the shapes of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TinGradientReference {
    /// `[M, d]`.
    pub targets: Vec<f64>,
    /// `[N, d]`.
    pub history: Vec<f64>,
    /// `[P, d]`.
    pub positions: Vec<f64>,
}

/// The gradients of [`tin`](crate::reference::tin) in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, d]`. With the weights `α` of one candidate:
///
/// ```text
/// da = grad_out ⊙ ṽ                 grad_out without multiply_target
/// ds_l = α_l·(⟨da, ẽ_l⟩ − ⟨da, a⟩)
/// dẽ_l = Σ_m (α_l·da + scale·ds_l·ṽ)
/// dṽ = scale·Σ_l ds_l·ẽ_l + grad_out ⊙ a            the last term with multiply_target
/// de = dẽ     dv = dṽ     dp[i] = Σ_{l: f(l) = i} dẽ_l + Σ_{m: f(m) = i} dṽ_m
/// ```
///
/// A behaviour that a score of `-∞` removes gets zeros. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`tin`](crate::reference::tin); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the wrong length.
pub fn tin_backward<T: Element>(
    op: &Tin,
    batch: &Batch,
    inputs: &TinInputs<'_, Host, T>,
    grad_out: &[f64],
) -> Result<TinGradientReference> {
    tin_in_f32(NAME, inputs, |inputs| backward(op, batch, inputs, grad_out))
}

/// [`tin_backward`] of widened inputs.
fn backward(
    op: &Tin,
    batch: &Batch,
    inputs: &TinInputs<'_, Host, f32>,
    grad_out: &[f64],
) -> Result<TinGradientReference> {
    op.check_backward_in(batch, inputs, grad_out.len())?;
    op.check_host_positions(NAME, batch, inputs)?;
    let (width, scale) = (op.width, f64::from(op.effective_scale()));
    let zeros = |length: usize| filled(NAME, length, 0.0);
    let mut grads = TinGradientReference {
        targets: zeros(inputs.targets.len())?,
        history: zeros(inputs.history.len())?,
        positions: zeros(inputs.positions.len())?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let dout = &grad_out[m * width..(m + 1) * width];
            let target = target(op, inputs, m);
            let grad_pooled: Vec<f64> =
                dout.iter().zip(&target).map(|(g, v)| if op.multiply_target { g * v } else { *g }).collect();
            let (weights, _) = softmax(&scores(op, inputs, &target, history.clone()));
            let row = |index: usize| behaviour(op, inputs, &history, history.start + index);
            let grad_scores = softmax_backward(&weights, |index| dot(&grad_pooled, &row(index)), 0.0);
            let (mut pooled, mut grad_target) = (vec![0.0; width], vec![0.0; width]);
            for (index, (weight, grad_score)) in weights.into_iter().zip(grad_scores).enumerate() {
                add_weighted(&mut pooled, weight, || row(index));
                let factor = grad_score.map(|grad| scale * grad);
                add_weighted(&mut grad_target, factor, || row(index));
                let mut grad = vec![0.0; width];
                add_weighted(&mut grad, weight, || grad_pooled.clone());
                add_weighted(&mut grad, factor, || target.clone());
                let l = history.start + index;
                add(&mut grads.history, l, &grad);
                add(&mut grads.positions, position(op, inputs, &history, l), &grad);
            }
            if op.multiply_target {
                for ((grad, g), a) in grad_target.iter_mut().zip(dout).zip(&pooled) {
                    *grad += g * a;
                }
            }
            let position = inputs.target_positions.map_or(0, |positions| positions[m] as usize);
            add(&mut grads.targets, m, &grad_target);
            add(&mut grads.positions, position, &grad_target);
        }
    }
    Ok(grads)
}

/// Adds to a row of a matrix.
fn add(matrix: &mut [f64], row: usize, grad: &[f64]) {
    let width = grad.len();
    let sums = matrix[row * width..(row + 1) * width].iter_mut();
    sums.zip(grad).for_each(|(sum, grad)| *sum += grad);
}
