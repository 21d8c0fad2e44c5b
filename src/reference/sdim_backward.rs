//! The reference of SDIM's gradients. Formulas: [`sdim_query_backward`], [`sdim_encode_backward`].

use std::collections::BTreeMap;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::{Batch, Jagged};
use crate::ops::{Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs, dim, expect};
use crate::reference::arithmetic::{dot, row};
use crate::reference::sdim::{bucket, hash, weight};
use crate::reference::widened::{sdim_encode_in_f32, sdim_in_f32, sdim_query_in_f32};

/// The gradient of the table in [`sdim_query`](crate::reference::sdim_query), `[B, G, 2^τ, d]`, in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, d]`. With `T` a bucket row, `u = T/‖T‖`, summed over the user's candidates `m` with
/// `sig[g](q_m) = c`:
///
/// ```text
/// dT[b,g,c,:] = Σ_m (grad_out[m] − u·⟨u, grad_out[m]⟩) / (G·‖T‖)      normalised
/// dT[b,g,c,:] = Σ_m grad_out[m] / G                                   not normalised
/// ```
///
/// Where the length of a bucket row is below [`Sdim::MIN_NORM`], the normalised gradient is 0: the forward pass divides by the floor
/// there, and a slope of `1e12` would turn a bucket that is empty but for rounding into the largest gradient of all. The hash has no
/// gradient, so the candidates have none. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`sdim_query`](crate::reference::sdim_query); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the wrong length.
pub fn sdim_query_backward<T: Element>(
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQueryInputs<'_, Host, T>,
    grad_out: &[f64],
) -> Result<Vec<f64>> {
    sdim_query_in_f32("sdim_query_backward", inputs, |inputs| query_backward(op, targets, inputs, grad_out))
}

/// [`sdim_query_backward`] of widened inputs.
fn query_backward(
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQueryInputs<'_, Host, f32>,
    grad_out: &[f64],
) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_query_backward";
    op.check_query(NAME, targets, inputs)?;
    Sdim::check_no_users(NAME, inputs)?;
    check_grad_out(NAME, op, targets, grad_out)?;
    let signatures = hash(NAME, op, targets.total(), inputs.targets, &inputs.hash)?;
    let table: Vec<f64> = inputs.table.iter().map(|&value| value.into()).collect();
    let mut grads = filled(NAME, table.len(), 0.0)?;
    for (b, rows) in targets.ranges().enumerate() {
        for m in rows {
            for g in 0..op.groups {
                let start = bucket(op, b, g, signatures[m * op.groups + g]);
                let row = start..start + op.width;
                add_bucket_gradient(op, &table[row.clone()], dout(op, grad_out, m), &mut grads[row]);
            }
        }
    }
    Ok(grads)
}

/// The gradient of the history in [`sdim_encode`](crate::reference::sdim_encode), `[N, d]`, in `f64`.
///
/// `grad_table` is the gradient of the table, `[B, G, 2^τ, d]`:
///
/// ```text
/// ds_l = w_l·Σ_g grad_table[b,g,sig[g](s_l),:]        w_l = 1 without weights
/// ```
///
/// For [`sdim_append`](crate::SdimOps::sdim_append) this is the gradient of the new behaviours, with their `Jagged` as `histories`; that
/// of the table that they are added to is `grad_table` itself. Hash and weights have no gradient. Nothing is saved by the forward pass.
///
/// # Errors
/// Those of [`sdim_encode`](crate::reference::sdim_encode); [`Error::Shape`](crate::Error::Shape) for a `grad_table` of the wrong length.
pub fn sdim_encode_backward<T: Element>(
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, T>,
    grad_table: &[f64],
) -> Result<Vec<f64>> {
    sdim_encode_in_f32("sdim_encode_backward", inputs, |inputs| {
        encode_backward(op, histories, inputs, grad_table)
    })
}

/// [`sdim_encode_backward`] of widened inputs.
fn encode_backward(
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, f32>,
    grad_table: &[f64],
) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_encode_backward";
    op.check_encode(NAME, histories, inputs)?;
    histories.check_no_slots(NAME, "histories")?;
    let shape =
        [dim("B", histories.users()), dim("G", op.groups), dim("2^τ", op.buckets()), dim("d", op.width)];
    expect(NAME, "grad_table", grad_table.len(), &shape)?;
    let signatures = hash(NAME, op, histories.total(), Some(inputs.history), &inputs.hash)?;
    let mut grads = filled(NAME, inputs.history.len(), 0.0)?;
    for (b, history) in histories.ranges().enumerate() {
        for l in history {
            for g in 0..op.groups {
                let start = bucket(op, b, g, signatures[l * op.groups + g]);
                for j in 0..op.width {
                    grads[l * op.width + j] += weight(inputs, l) * grad_table[start + j];
                }
            }
        }
    }
    Ok(grads)
}

/// The gradient of the history in [`sdim_attend`](crate::reference::sdim_attend), `[N, d]`, in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, d]`. It is [`sdim_query_backward`] at the table of the histories, then
/// [`sdim_encode_backward`], without rounding in between.
///
/// # Errors
/// Those of [`sdim_attend`](crate::reference::sdim_attend); [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the wrong length.
pub fn sdim_attend_backward<T: Element>(
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimAttendInputs<'_, Host, T>,
    grad_out: &[f64],
) -> Result<Vec<f64>> {
    sdim_in_f32("sdim_attend_backward", inputs, |inputs| attend_backward(op, batch, inputs, grad_out))
}

/// [`sdim_attend_backward`] of widened inputs.
fn attend_backward(
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimAttendInputs<'_, Host, f32>,
    grad_out: &[f64],
) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_attend_backward";
    op.check_attend(NAME, batch, inputs)?;
    check_grad_out(NAME, op, batch.targets(), grad_out)?;
    let (history, targets) = (batch.histories(), batch.targets());
    let of_history = hash(NAME, op, history.total(), Some(inputs.history), &inputs.history_hash)?;
    let of_targets = hash(NAME, op, targets.total(), inputs.targets, &inputs.target_hash)?;
    let mut grads = filled(NAME, inputs.history.len(), 0.0)?;
    // Without behaviours or candidates, groups may be any number.
    for (rows, candidates) in
        batch.requests().filter(|(rows, targets)| !rows.is_empty() && !targets.is_empty())
    {
        for g in 0..op.groups {
            // No table: it may be larger than memory where its rows that are read are not. Of each of these the sum and its gradient.
            let mut buckets: BTreeMap<u32, [Vec<f64>; 2]> = BTreeMap::new();
            for m in candidates.clone() {
                let zeros = || [vec![0.0; op.width], vec![0.0; op.width]];
                buckets.entry(of_targets[m * op.groups + g]).or_insert_with(zeros);
            }
            for l in rows.clone() {
                if let Some([sum, _]) = buckets.get_mut(&of_history[l * op.groups + g]) {
                    sum.iter_mut().zip(row(&inputs.history, l, op.width)).for_each(|(sum, s)| *sum += s);
                }
            }
            for m in candidates.clone() {
                if let Some([sum, grad]) = buckets.get_mut(&of_targets[m * op.groups + g]) {
                    add_bucket_gradient(op, sum, dout(op, grad_out, m), grad);
                }
            }
            for l in rows.clone() {
                if let Some([_, grad]) = buckets.get(&of_history[l * op.groups + g]) {
                    let row = &mut grads[l * op.width..(l + 1) * op.width];
                    row.iter_mut().zip(grad).for_each(|(row, grad)| *row += grad);
                }
            }
        }
    }
    Ok(grads)
}

/// Checks the gradient that comes in.
fn check_grad_out(operation: &'static str, op: &Sdim, targets: &Jagged, grad_out: &[f64]) -> Result<()> {
    let shape = [dim("M", targets.rows()), dim("d", op.width)];
    expect(operation, "grad_out", grad_out.len(), &shape)?;
    Ok(())
}

/// The gradient of candidate `m`'s output.
fn dout<'a>(op: &Sdim, grad_out: &'a [f64], m: usize) -> &'a [f64] {
    &grad_out[m * op.width..(m + 1) * op.width]
}

/// Adds what one candidate gives to the gradient of a bucket row that it reads, through the mean of the normalised rows.
fn add_bucket_gradient(op: &Sdim, sum: &[f64], dout: &[f64], grad: &mut [f64]) {
    if !op.normalise {
        grad.iter_mut().zip(dout).for_each(|(grad, dout)| *grad += dout / op.groups as f64);
        return;
    }
    let norm = dot(sum, sum).sqrt();
    if norm < Sdim::MIN_NORM.into() {
        return;
    }
    let along = dot(sum, dout) / norm;
    for (j, grad) in grad.iter_mut().enumerate() {
        *grad += (dout[j] - sum[j] / norm * along) / norm / op.groups as f64;
    }
}
