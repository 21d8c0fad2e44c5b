//! Merging two results of attention over disjoint histories, and its gradients.

use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionOutputs,
};

/// Merges two results row by row, by their log-sum-exp. A part whose log-sum-exp is `-∞` counts for nothing, whatever its
/// row holds; `+∞` or NaN gives NaN.
pub(super) fn merge<T: Element>(
    op: &TargetAttention,
    first: &PartialAttention<'_, Host, T>,
    second: &PartialAttention<'_, Host, T>,
    outputs: TargetAttentionOutputs<'_, Host, T>,
) -> Result<()> {
    let rows = op.check_merge(first, second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let mut lse = outputs.lse;
    let [firsts, seconds] =
        [first, second].map(|partial| partial.out.as_slice().chunks_exact(op.value_width));
    let outs = outputs.out.into_slice().chunks_exact_mut(op.value_width);
    for (i, ((out, first_row), second_row)) in outs.zip(firsts).zip(seconds).enumerate() {
        let lses = [first.lse[i], second.lse[i]];
        let removed = lses.map(|lse| lse == f32::NEG_INFINITY);
        let merged = match removed {
            [true, true] => {
                out.fill(T::from_f32(0.0));
                f32::NEG_INFINITY
            }
            [false, true] if lses[0] < f32::INFINITY => {
                out.copy_from_slice(first_row);
                lses[0]
            }
            [true, false] if lses[1] < f32::INFINITY => {
                out.copy_from_slice(second_row);
                lses[1]
            }
            _ => {
                let max = lses[0].max(lses[1]);
                let weights = lses.map(|lse| (lse - max).exp());
                let sum = weights[0] + weights[1];
                merge_rows(weights.map(|weight| weight / sum), first_row, second_row, out);
                max + sum.ln()
            }
        };
        if let Some(lse) = &mut lse {
            lse[i] = merged;
        }
    }
    Ok(())
}

/// `out = weights[0]·a + weights[1]·b`, for weights that add up to 1.
fn merge_rows<T: Element>(weights: [f32; 2], a: &[T], b: &[T], out: &mut [T]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let (a, b) = (a.to_f32(), b.to_f32());
        let merged = weights[0] * a + weights[1] * b;
        // The result is at most the larger number: only a rounding error can exceed the range of f32.
        let overflowed = merged.is_infinite() & a.is_finite() & b.is_finite();
        *out = T::from_f32(if overflowed { f32::MAX.copysign(merged) } else { merged });
    }
}

/// The gradients of [`merge`], row by row.
pub(super) fn backward<T: Element, G: Element>(
    op: &TargetAttention,
    parts: [PartialAttention<'_, Host, T>; 2],
    grad_out: TargetAttentionGradOut<'_, Host, T>,
    mut grads: [PartialAttentionGradients<'_, Host, G>; 2],
) -> Result<()> {
    let rows = op.check_merge_backward(parts.each_ref(), &grad_out, grads.each_ref())?;
    let width = op.value_width;
    for i in 0..rows {
        let row = i * width..(i + 1) * width;
        let weights = merge_weights(parts.map(|part| part.lse[i]));
        let grad_row = &grad_out.out[row.clone()];
        // ⟨grad_out, out_i⟩ of the parts that count, in f64: two parts may differ by less than a rounding error.
        let dots = [0, 1].map(|part| {
            let products = grad_row.iter().zip(&parts[part].out[row.clone()]);
            let dot =
                || products.map(|(grad, x)| f64::from(grad.to_f32()) * f64::from(x.to_f32())).sum::<f64>();
            weights[part].map_or(0.0, |_| dot())
        });
        let mean: f64 =
            weights.iter().zip(dots).map(|(weight, dot)| weight.map_or(0.0, |w| f64::from(w) * dot)).sum();
        let grad_lse = grad_out.lse.map_or(0.0, |lse| lse[i]);
        for (part, grads) in grads.iter_mut().enumerate() {
            if let Some(out) = &mut grads.out {
                let product = |grad: &T| weights[part].map_or(0.0, |weight| weight * grad.to_f32());
                let out = out[row.clone()].iter_mut();
                out.zip(grad_row).for_each(|(out, grad)| *out = G::from_f32(product(grad)));
            }
            if let Some(lse) = &mut grads.lse {
                let grad =
                    |weight: f32| (f64::from(weight) * (dots[part] - mean + f64::from(grad_lse))) as f32;
                lse[i] = weights[part].map_or(0.0, grad);
            }
        }
    }
    Ok(())
}

/// The weights of two parts, `None` for one that counts for nothing; NaN where a log-sum-exp is `+∞` or NaN.
fn merge_weights(lses: [f32; 2]) -> [Option<f32>; 2] {
    let max = lses[0].max(lses[1]);
    let exponentials = lses.map(|lse| (lse != f32::NEG_INFINITY).then(|| (lse - max).exp()));
    let sum: f32 = exponentials.iter().flatten().sum();
    exponentials.map(|exponential| exponential.map(|exponential| exponential / sum))
}
