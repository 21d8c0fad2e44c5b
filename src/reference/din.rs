//! The reference of DIN's local activation unit; the concatenation is written out. Formula: [`Din`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::{Activation, Din, DinInputs, DinPooling};
use crate::reference::arithmetic::{add_weighted, dot, row, sigmoid, softmax};
use crate::reference::widened::din_in_f32;

/// DIN's local activation unit in `f64`, `[M, d]`.
///
/// # Errors
/// Those of [`Din::check`].
pub fn din<T: Element>(op: &Din, batch: &Batch, inputs: &DinInputs<'_, Host, T>) -> Result<Vec<f64>> {
    din_in_f32("din", inputs, |inputs| pooled(op, batch, inputs))
}

/// [`din`] of widened inputs.
fn pooled(op: &Din, batch: &Batch, inputs: &DinInputs<'_, Host, f32>) -> Result<Vec<f64>> {
    let d = op.width;
    op.check(batch, inputs)?;
    let mut out = filled("din", op.output_length(batch)?, 0.0)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            let q = row(&inputs.targets, m, d);
            let scores: Vec<f64> =
                history.clone().map(|l| score(inputs, &q, &row(&inputs.history, l, d))).collect();
            let weights = match op.pooling {
                DinPooling::Sum => scores.into_iter().map(Some).collect(),
                DinPooling::Softmax => softmax(&scores).0,
            };
            for (l, w) in history.clone().zip(weights) {
                add_weighted(&mut out[m * d..(m + 1) * d], w, || row(&inputs.history, l, d));
            }
        }
    }
    Ok(out)
}

/// The network's output for one candidate and one behaviour.
pub(super) fn score(inputs: &DinInputs<'_, Host, f32>, q: &[f64], s: &[f64]) -> f64 {
    trace(inputs, q, s).score
}

/// What the network computes for one candidate and one behaviour.
pub(super) struct Trace {
    /// The input of each hidden layer, then that of the output layer.
    pub(super) inputs: Vec<Vec<f64>>,
    /// Each hidden layer's numbers before its activation.
    pub(super) preactivations: Vec<Vec<f64>>,
    /// The output.
    pub(super) score: f64,
}

/// The network for one candidate and one behaviour.
pub(super) fn trace(inputs: &DinInputs<'_, Host, f32>, q: &[f64], s: &[f64]) -> Trace {
    let pairs = || q.iter().zip(s);
    let mut x: Vec<f64> = q.to_vec();
    x.extend(s);
    x.extend(pairs().map(|(q, s)| q - s));
    x.extend(pairs().map(|(q, s)| q * s));
    let (mut layer_inputs, mut preactivations) = (Vec::new(), Vec::new());
    for layer in inputs.hidden {
        let unit = |i: usize| dot(&row(&layer.weight, i, x.len()), &x) + f64::from(layer.bias[i]);
        let y: Vec<f64> = (0..layer.bias.len()).map(unit).collect();
        layer_inputs.push(x);
        x = y.iter().enumerate().map(|(i, &y)| activate(&layer.activation, i, y)).collect();
        preactivations.push(y);
    }
    let score = dot(&row(&inputs.output_weight, 0, x.len()), &x) + f64::from(inputs.output_bias[0]);
    layer_inputs.push(x);
    Trace { inputs: layer_inputs, preactivations, score }
}

/// The activation of one channel.
fn activate(activation: &Activation<View<'_, Host, f32>>, channel: usize, x: f64) -> f64 {
    let of = |vector: &View<'_, Host, f32>| f64::from(vector[channel]);
    match activation {
        // Not f64::max: it would turn NaN into 0.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Prelu { alpha } => {
            let alpha = f64::from(alpha[if alpha.len() == 1 { 0 } else { channel }]);
            if x < 0.0 { alpha * x } else { x }
        }
        Activation::Dice { gain, shift, alpha } => {
            let p = sigmoid(of(gain) * x + of(shift));
            x * (p + of(alpha) * (1.0 - p))
        }
    }
}
