//! The reference of the gradients of interest channels. Formula: [`interest_channels_backward`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::{InterestChannels, InterestChannelsInputs, Selection};
use crate::reference::arithmetic::{dot, row};
use crate::reference::interest_channels::{Axes, Lists, axes_of_all, sum_of_kept};
use crate::reference::widened::channels_in_f32;

const NAME: &str = "interest_channels_backward";

/// Exact gradients of interest channels, in the shapes of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InterestChannelsGradientReference {
    /// `[M, c, d]`.
    pub axes: Vec<f64>,
    /// `[N, d]`.
    pub history: Vec<f64>,
}

/// The gradients of [`interest_channels_of`](crate::reference::interest_channels_of) in `f64`: of the output for what is kept, whose
/// choice has none.
///
/// `grad_out` is the gradient of the output, `[M, c, d]`. For one candidate:
///
/// ```text
/// dr_i = grad_out_i                                     with normalise: (grad_out_i − u·⟨u, grad_out_i⟩)/‖r_i‖, u = r_i/‖r_i‖;
///                                                       grad_out_i/1e-12 where ‖r_i‖ is not above that
/// de_l = (1/L) Σ_m (A_li·dr_i + ⟨dr_i, e_l⟩·O_i)        i the channel that keeps l
/// dO_i = (1/L) Σ_{l in kept_i} ⟨dr_i, e_l⟩·e_l
/// dM from dO through O·R = M                            for i from c down to 1:
///     dv = (dO_i − O_i·⟨O_i, dO_i⟩)/R_ii                dM_i = dv − Σ_{j<i} O_j·⟨O_j, dv⟩
///     dO_j −= R_ji·dv + ⟨O_j, dv⟩·M_i                   j < i
/// ```
///
/// (`O_i = v/‖v‖` with `v = M_i − Σ_{j<i} O_j·⟨O_j, M_i⟩`.)
///
/// # Errors
/// Those of [`interest_channels_of`](crate::reference::interest_channels_of); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the
/// wrong length.
pub fn interest_channels_backward<T: Element>(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, T>,
    kept: &Selection<'_, Host>,
    grad_out: &[f64],
) -> Result<InterestChannelsGradientReference> {
    channels_in_f32(NAME, inputs, |inputs| backward(op, batch, inputs, kept, grad_out))
}

/// [`interest_channels_backward`] of widened inputs.
fn backward(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, f32>,
    kept: &Selection<'_, Host>,
    grad_out: &[f64],
) -> Result<InterestChannelsGradientReference> {
    op.check_backward_in(batch, inputs, kept, grad_out.len())?;
    let kept = Lists::given(NAME, op, batch, kept)?;
    let all = axes_of_all(NAME, op, batch, inputs)?;
    let (width, channels) = (op.width, op.channels);
    let mut grads = InterestChannelsGradientReference {
        axes: filled(NAME, inputs.axes.len(), 0.0)?,
        history: filled(NAME, inputs.history.len(), 0.0)?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let axes = &all[m];
            if !axes.is_finite {
                grads.axes[m * channels * width..(m + 1) * channels * width].fill(f64::NAN);
                continue;
            }
            let mut grad_axes = vec![vec![0.0; width]; channels];
            for i in (0..channels).filter(|&i| axes.exists(i)) {
                let list = m * channels + i;
                let (axis, rows) = (&axes.rows[i], kept.rows(op, &history, list));
                let sum = sum_of_kept(inputs, axis, history.len(), &rows);
                let grad = before_division(op, &sum, &grad_out[list * width..(list + 1) * width]);
                for l in rows {
                    let behaviour = row(&inputs.history, l, width);
                    let score = dot(axis, &behaviour) / history.len() as f64;
                    let slope = dot(&grad, &behaviour) / history.len() as f64;
                    for j in 0..width {
                        grads.history[l * width + j] += score * grad[j] + slope * axis[j];
                        grad_axes[i][j] += slope * behaviour[j];
                    }
                }
            }
            let matrix: Vec<Vec<f64>> =
                (0..channels).map(|i| row(&inputs.axes, m * channels + i, width)).collect();
            let grad = through_right_angles(axes, &matrix, grad_axes);
            let flat = grads.axes[m * channels * width..].iter_mut();
            flat.zip(grad.iter().flatten()).for_each(|(out, grad)| *out = *grad);
        }
    }
    Ok(grads)
}

/// The gradient of `r`, from that of the output.
fn before_division(op: &InterestChannels, sum: &[f64], grad_out: &[f64]) -> Vec<f64> {
    if !op.normalise {
        return grad_out.to_vec();
    }
    let norm = dot(sum, sum).sqrt();
    if norm <= InterestChannels::MIN_NORM {
        return grad_out.iter().map(|grad| grad / InterestChannels::MIN_NORM).collect();
    }
    let along = dot(sum, grad_out) / norm;
    grad_out.iter().zip(sum).map(|(grad, sum)| (grad - sum / norm * along) / norm).collect()
}

/// The gradient of the matrix, from that of its columns at right angles.
fn through_right_angles(axes: &Axes, matrix: &[Vec<f64>], grad_axes: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut grad_axes = grad_axes;
    let mut grads = vec![vec![0.0; matrix[0].len()]; matrix.len()];
    for i in (0..matrix.len()).rev().filter(|&i| axes.exists(i)) {
        let (axis, length) = (&axes.rows[i], axes.triangle[i][i]);
        let along = dot(axis, &grad_axes[i]);
        let rest: Vec<f64> =
            grad_axes[i].iter().zip(axis).map(|(grad, axis)| (grad - axis * along) / length).collect();
        grads[i].copy_from_slice(&rest);
        for j in (0..i).filter(|&j| axes.exists(j)) {
            let along = dot(&axes.rows[j], &rest);
            for k in 0..rest.len() {
                grads[i][k] -= axes.rows[j][k] * along;
                grad_axes[j][k] -= axes.triangle[j][i] * rest[k] + along * matrix[i][k];
            }
        }
    }
    grads
}
