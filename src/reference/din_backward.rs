//! The reference of the gradients of DIN's local activation unit, and of its statistics. Formula: [`din_backward`].

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::memory::View;
use crate::ops::{Activation, Din, DinInputs, DinLayer, DinPooling, dim, expect};
use crate::reference::arithmetic::{add_weighted, dot, row, sigmoid, softmax, softmax_backward};
use crate::reference::din::{Trace, score, trace};
use crate::reference::widened::din_in_f32;

const NAME: &str = "din_backward";

/// Exact gradients of DIN's local activation unit, in the shapes of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DinGradientReference {
    /// `[M, d]`.
    pub targets: Vec<f64>,
    /// `[N, d]`.
    pub history: Vec<f64>,
    /// One for each hidden layer.
    pub hidden: Vec<DinLayerGradientReference>,
    /// `[1, h]`.
    pub output_weight: Vec<f64>,
    /// `[1]`.
    pub output_bias: Vec<f64>,
}

/// The gradients of one hidden layer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DinLayerGradientReference {
    /// `[h, i]`.
    pub weight: Vec<f64>,
    /// `[h]`.
    pub bias: Vec<f64>,
    /// Those of the activation's vectors, in their shapes.
    pub activation: Activation<Vec<f64>>,
}

/// Statistics of the numbers of one hidden layer before its activation, over all pairs of a batch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DinStatisticsReference {
    /// The number of pairs of a candidate and a behaviour of its user.
    pub count: u64,
    /// `[h]`: the mean; zeros without pairs.
    pub mean: Vec<f64>,
    /// `[h]`: the sum of the squared distances from the mean. Divided by `count` it is the variance (biased), by `count − 1` the
    /// unbiased one.
    pub centred_squares: Vec<f64>,
}

/// The gradients of [`din`](crate::reference::din) in `f64`.
///
/// `grad_out` is the gradient of the output, `[M, d]`. For a candidate `q` with `da_l` the gradient of the network's output for its
/// behaviour `s_l`, and `y`, `x` the numbers of a layer before and after its activation `f`:
///
/// ```text
/// dw_l = ⟨grad_out, s_l⟩
/// da_l = dw_l                              sum
/// da_l = w_l·(dw_l − Σ_i w_i·dw_i)         softmax
/// dW_out = Σ da·x   db_out = Σ da   dx = W_outᵀ·da        over all pairs of the batch
/// dy = f′(y)·dx   dW = Σ dy ⊗ x   db = Σ dy   dx = Wᵀ·dy  from the last hidden layer to the first
/// dq = Σ_l (dx_1 + dx_3 + dx_4 ⊙ s_l)                     with the blocks dx = [dx_1 ; dx_2 ; dx_3 ; dx_4] of the first layer
/// ds_l = Σ_m (w_l·grad_out + dx_2 − dx_3 + dx_4 ⊙ q)
/// ```
///
/// `f′` is 0 at 0 for ReLU, and `α` at 0 for PReLU. PReLU: `dα = Σ dx·min(y, 0)`, over all channels where they share one. Dice, with
/// `p = σ(gain·y + shift)` and `r = p·(1 − p)·(1 − α)`:
///
/// ```text
/// f′ = p + α(1 − p) + y·r·gain   dα = Σ dx·y·(1 − p)   dgain = Σ dx·y²·r   dshift = Σ dx·y·r
/// ```
///
/// A pair that a score of `-∞` removes (with softmax) adds nothing to any gradient. Nothing is saved by the forward pass.
///
/// Source: backpropagation through [`Din`]'s formula; Dice is eq. 3 of "Deep Interest Network", arXiv 1706.06978.
///
/// # Errors
/// Those of [`Din::check`]; [`Error::Shape`](crate::Error::Shape) for a `grad_out` of the wrong length.
pub fn din_backward<T: Element>(
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
    grad_out: &[f64],
) -> Result<DinGradientReference> {
    din_in_f32(NAME, inputs, |inputs| backward(op, batch, inputs, grad_out))
}

/// [`din_backward`] of widened inputs.
fn backward(
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, f32>,
    grad_out: &[f64],
) -> Result<DinGradientReference> {
    op.check_in(NAME, batch, inputs)?;
    let d = op.width;
    expect(NAME, "grad_out", grad_out.len(), &[dim("M", batch.targets().rows()), dim("d", d)])?;
    let mut grads = zeros(inputs)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            let q = row(&inputs.targets, m, d);
            let dout = &grad_out[m * d..(m + 1) * d];
            let grad_weight = |index: usize| dot(dout, &row(&inputs.history, history.start + index, d));
            let scores: Vec<f64> =
                history.clone().map(|l| score(inputs, &q, &row(&inputs.history, l, d))).collect();
            let (weights, grad_scores) = match op.pooling {
                DinPooling::Sum => {
                    let grads = (0..scores.len()).map(|index| Some(grad_weight(index))).collect();
                    (scores.into_iter().map(Some).collect(), grads)
                }
                DinPooling::Softmax => {
                    let (weights, _) = softmax(&scores);
                    let grads = softmax_backward(&weights, grad_weight, 0.0);
                    (weights, grads)
                }
            };
            for (index, l) in history.clone().enumerate() {
                let (Some(weight), Some(grad_score)) = (weights[index], grad_scores[index]) else { continue };
                add_weighted(&mut grads.history[l * d..(l + 1) * d], Some(weight), || dout.to_vec());
                let s = row(&inputs.history, l, d);
                let dx = network_backward(inputs, &trace(inputs, &q, &s), grad_score, &mut grads);
                for j in 0..d {
                    let [dx_1, dx_2, dx_3, dx_4] = [0, 1, 2, 3].map(|block| dx[block * d + j]);
                    grads.targets[m * d + j] += dx_1 + dx_3 + dx_4 * s[j];
                    grads.history[l * d + j] += dx_2 - dx_3 + dx_4 * q[j];
                }
            }
        }
    }
    Ok(grads)
}

/// Gradients of zeros.
fn zeros(inputs: &DinInputs<'_, Host, f32>) -> Result<DinGradientReference> {
    let zeros = |length: usize| filled(NAME, length, 0.0);
    let activation = |activation: &Activation<View<'_, Host, f32>>| -> Result<Activation<Vec<f64>>> {
        Ok(match activation {
            Activation::Relu => Activation::Relu,
            Activation::Sigmoid => Activation::Sigmoid,
            Activation::Prelu { alpha } => Activation::Prelu { alpha: zeros(alpha.len())? },
            Activation::Dice { gain, shift, alpha } => {
                let (gain, shift, alpha) = (zeros(gain.len())?, zeros(shift.len())?, zeros(alpha.len())?);
                Activation::Dice { gain, shift, alpha }
            }
        })
    };
    let layer = |layer: &DinLayer<'_, Host, f32>| -> Result<DinLayerGradientReference> {
        let (weight, bias) = (zeros(layer.weight.len())?, zeros(layer.bias.len())?);
        Ok(DinLayerGradientReference { weight, bias, activation: activation(&layer.activation)? })
    };
    Ok(DinGradientReference {
        targets: zeros(inputs.targets.len())?,
        history: zeros(inputs.history.len())?,
        hidden: inputs.hidden.iter().map(layer).collect::<Result<_>>()?,
        output_weight: zeros(inputs.output_weight.len())?,
        output_bias: zeros(inputs.output_bias.len())?,
    })
}

/// Adds the gradients of the layers for one pair, and returns that of the first layer's input, `[4d]`.
fn network_backward(
    inputs: &DinInputs<'_, Host, f32>,
    trace: &Trace,
    grad_score: f64,
    grads: &mut DinGradientReference,
) -> Vec<f64> {
    let layers = inputs.hidden.len();
    add_weighted(&mut grads.output_weight, Some(grad_score), || trace.inputs[layers].clone());
    grads.output_bias[0] += grad_score;
    let output_weight = row(&inputs.output_weight, 0, inputs.output_weight.len());
    let mut dx: Vec<f64> = output_weight.iter().map(|weight| weight * grad_score).collect();
    for (i, layer) in inputs.hidden.iter().enumerate().rev() {
        let (x, y) = (&trace.inputs[i], &trace.preactivations[i]);
        let grad = &mut grads.hidden[i];
        let mut dx_before = vec![0.0; x.len()];
        for (unit, &y) in y.iter().enumerate() {
            let dy = activation_backward(&layer.activation, unit, y, dx[unit], &mut grad.activation);
            let weights = unit * x.len()..(unit + 1) * x.len();
            add_weighted(&mut grad.weight[weights], Some(dy), || x.clone());
            grad.bias[unit] += dy;
            add_weighted(&mut dx_before, Some(dy), || row(&layer.weight, unit, x.len()));
        }
        dx = dx_before;
    }
    dx
}

/// The gradient of one channel before its activation, from `dx`, that after it. Adds those of the activation's vectors.
fn activation_backward(
    activation: &Activation<View<'_, Host, f32>>,
    channel: usize,
    y: f64,
    dx: f64,
    grads: &mut Activation<Vec<f64>>,
) -> f64 {
    let of = |vector: &View<'_, Host, f32>| f64::from(vector[channel]);
    match (activation, grads) {
        (Activation::Prelu { alpha }, Activation::Prelu { alpha: grad }) => {
            let place = if alpha.len() == 1 { 0 } else { channel };
            // Not f64::min: it would turn NaN into 0.
            grad[place] += dx * if y > 0.0 { 0.0 } else { y };
            dx * if y.is_nan() {
                y
            } else if y > 0.0 {
                1.0
            } else {
                f64::from(alpha[place])
            }
        }
        (
            Activation::Dice { gain, shift, alpha },
            Activation::Dice { gain: dgain, shift: dshift, alpha: dalpha },
        ) => {
            let (gain, alpha, z) = (of(gain), of(alpha), of(gain) * y + of(shift));
            let (p, rest) = (sigmoid(z), sigmoid(-z));
            let slope = p * rest * (1.0 - alpha);
            dalpha[channel] += dx * y * rest;
            dgain[channel] += dx * y * y * slope;
            dshift[channel] += dx * y * slope;
            dx * (p + alpha * rest + y * slope * gain)
        }
        (Activation::Sigmoid, _) => dx * sigmoid(y) * sigmoid(-y),
        (_, _) if y.is_nan() => y,
        (_, _) => dx * if y > 0.0 { 1.0 } else { 0.0 },
    }
}

/// Statistics of each hidden layer's numbers before its activation, over all pairs of a candidate and a behaviour of its user, in
/// `f64`; one for each hidden layer.
///
/// Dice in training mode normalises by them: `mean`, and `var = centred_squares / count`. The layers before are computed as they
/// are given, so a network with several Dice layers takes the statistics of one layer after the other, folding each
/// ([`fold_dice`](crate::fold_dice)) before the next. [`din_backward`] gives the gradients of `gain` and `shift`, from which those
/// through the statistics follow.
///
/// ```text
/// count = Σ_users L·C     mean = Σ y / count     centred_squares = Σ (y − mean)²
/// ```
///
/// # Errors
/// Those of [`Din::check`].
pub fn din_statistics<T: Element>(
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
) -> Result<Vec<DinStatisticsReference>> {
    din_in_f32("din_statistics", inputs, |inputs| statistics(op, batch, inputs))
}

/// [`din_statistics`] of widened inputs.
fn statistics(
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, f32>,
) -> Result<Vec<DinStatisticsReference>> {
    const NAME: &str = "din_statistics";
    op.check_in(NAME, batch, inputs)?;
    let count = batch.pairs();
    let zeros = |layer: &DinLayer<'_, Host, f32>| -> Result<DinStatisticsReference> {
        let (mean, squares) = (filled(NAME, layer.bias.len(), 0.0)?, filled(NAME, layer.bias.len(), 0.0)?);
        Ok(DinStatisticsReference { count, mean, centred_squares: squares })
    };
    let mut statistics: Vec<_> = inputs.hidden.iter().map(zeros).collect::<Result<_>>()?;
    let pass = |visit: &mut dyn FnMut(&Trace)| {
        for (history, targets) in batch.requests() {
            for m in targets {
                let q = row(&inputs.targets, m, op.width);
                history.clone().for_each(|l| visit(&trace(inputs, &q, &row(&inputs.history, l, op.width))));
            }
        }
    };
    pass(&mut |trace| {
        for (layer, y) in statistics.iter_mut().zip(&trace.preactivations) {
            layer.mean.iter_mut().zip(y).for_each(|(mean, y)| *mean += y / count as f64);
        }
    });
    pass(&mut |trace| {
        for (layer, y) in statistics.iter_mut().zip(&trace.preactivations) {
            for (channel, y) in y.iter().enumerate() {
                layer.centred_squares[channel] += (y - layer.mean[channel]).powi(2);
            }
        }
    });
    Ok(statistics)
}
