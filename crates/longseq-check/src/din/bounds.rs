//! How far `f32` arithmetic may take the gradients of DIN from exact ones.

use longseq::*;

use super::backward::Tensors;
use super::{Kind, Network};
use crate::case::Rules;
use crate::compare::{U, additions};
use crate::data;

/// A bound on the magnitude of a number, and on its error.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    magnitude: f64,
    error: f64,
    /// What a number may lose each time that it is written: 0, or the smallest normal one where subnormal ones are flushed to 0.
    tiny: f64,
}

impl Size {
    /// A number that is given, which may be flushed when it is read.
    fn given(magnitude: f64, tiny: f64) -> Self {
        Self { magnitude, error: tiny, tiny }
    }

    /// A number that is given, and not flushed.
    fn exact(magnitude: f64) -> Self {
        Self { magnitude, ..Self::default() }
    }

    /// The product of two, rounded.
    fn times(self, other: Self) -> Self {
        let magnitude = self.magnitude * other.magnitude;
        let error = self.magnitude * other.error + self.error * other.magnitude + self.error * other.error;
        let tiny = self.tiny.max(other.tiny);
        Self { magnitude, error: error + U * magnitude + tiny, tiny }
    }

    fn plus(self, other: Self) -> Self {
        let tiny = self.tiny.max(other.tiny);
        Self { magnitude: self.magnitude + other.magnitude, error: self.error + other.error + tiny, tiny }
    }

    /// The sum of `count` of them in a chain of `roundings`: each of these may flush a weight, its product and the sum so far.
    fn sum(self, count: f64, roundings: f64) -> Self {
        let magnitude = count * self.magnitude;
        let flushed = if self.tiny > 0.0 { roundings * self.tiny * (2.0 + self.magnitude) } else { 0.0 };
        Self { magnitude, error: count * self.error + roundings * U * magnitude + flushed, ..self }
    }
}

/// One hidden layer.
#[derive(Debug, Clone, Copy)]
struct Layer {
    /// Its input, and its numbers before the activation.
    input: Size,
    before: Size,
    /// What multiplies the gradient after the activation: the slope, and the derivatives to alpha, gain and shift.
    slope: Size,
    vectors: [Size; 3],
    units: usize,
    /// The largest sum of magnitudes of a column of the weight.
    column: f64,
}

/// Bounds on everything that the backward pass computes.
pub(super) struct Magnitudes {
    layers: Vec<Layer>,
    /// The input of the output layer, and its weights.
    last: Size,
    output_weight: f64,
    /// The weight of a pair, and the gradient of its score.
    weight: Size,
    grad_score: Size,
    /// The gradients of the scores of a candidate, and of all candidates, in sum.
    candidate: Size,
    all: Size,
    max_q: f64,
    max_s: f64,
    max_grad: f64,
    longest: usize,
    candidates: usize,
    pairs: usize,
    shared_alpha: bool,
    tiny: f64,
}

/// The activation of numbers of size `y`: its output, and what a [`Layer`] has of it.
///
/// The slopes of sigmoid and its derivative are at most 1/4 and 1/10. An activation and its derivatives cost up to 16 roundings.
fn activation<T>(network: &Network<T>, i: usize, y: Size) -> (Size, Size, [Size; 3]) {
    let [gain, shift, alpha] = network.parameters[i].each_ref().map(|vector| data::max_abs(vector));
    let (z, dz) = (y.magnitude, y.error);
    // What is flushed on the way is multiplied by at most two numbers before the activation, the gain, and 1 + α.
    let flushed = match y.tiny > 0.0 {
        true => 16.0 * y.tiny * (1.0 + alpha) * (1.0 + gain) * (1.0 + z) * (1.0 + z),
        false => 0.0,
    };
    let rounded = |magnitude: f64, error: f64| {
        let error = error + 16.0 * U * magnitude + flushed;
        Size { magnitude, error, tiny: y.tiny }
    };
    match network.kind {
        Kind::Relu => (y, Size::exact(1.0), [Size::default(); 3]),
        Kind::Sigmoid => (rounded(1.0, dz / 4.0), rounded(1.0, dz / 10.0), [Size::default(); 3]),
        // Of either sign as the reference's, see the cases.
        Kind::Prelu | Kind::PreluShared => {
            let slope = alpha.max(1.0);
            (rounded(slope * z, slope * dz), Size::exact(slope), [y, Size::default(), Size::default()])
        }
        Kind::Dice => {
            // The argument of the sigmoid.
            let dp = gain * dz + 4.0 * U * (gain * z + shift);
            let a = 1.0 + alpha;
            let out = rounded(a * z, a * (dz + z * dp / 4.0));
            let slope =
                rounded(a * (1.0 + gain * z / 4.0), a * (dp / 4.0 + gain * (dz / 4.0 + z * dp / 10.0)));
            let to_alpha = rounded(z, dz + z * dp / 4.0);
            let to_gain = rounded(a * z * z, a * (z * dz / 2.0 + z * z * dp / 10.0));
            let to_shift = rounded(a * z, a * (dz / 4.0 + z * dp / 10.0));
            (out, slope, [to_alpha, to_gain, to_shift])
        }
    }
}

/// The hidden layers, the input of the output layer, its largest weight, and the scores.
fn forward<T: Element>(
    targets: &[T],
    history: &[T],
    network: &Network<T>,
    tiny: f64,
) -> (Vec<Layer>, Size, f64, Size) {
    let (max_q, max_s) = (data::max_abs(targets), data::max_abs(history));
    // A number of a row, a difference or a product of two.
    let mut input = Size::given((max_q + max_s).max(max_q * max_s), tiny * (2.0 + max_q + max_s));
    input.tiny = tiny;
    let (mut layers, mut output) = (Vec::new(), (0.0, Size::default()));
    let finite = |weight: &T| Some(f64::from(weight.to_f32().abs())).filter(|x| x.is_finite());
    for (i, (weight, bias)) in network.weights.iter().zip(&network.biases).enumerate() {
        let (units, fan_in) = (bias.len(), weight.len() / bias.len());
        let sum = |weights: &mut dyn Iterator<Item = &T>| weights.filter_map(finite).sum::<f64>();
        let row = weight.chunks(fan_in).map(|row| sum(&mut row.iter())).fold(0.0, f64::max);
        let column = |j: usize| sum(&mut weight.iter().skip(j).step_by(fan_in));
        let column = (0..fan_in).map(column).fold(0.0, f64::max);
        let products = input.sum(row, fan_in as f64 + 8.0);
        let bias = data::max_abs(bias);
        let (magnitude, error) = (products.magnitude + bias, products.error + 2.0 * U * bias + 2.0 * tiny);
        let before = Size { magnitude, error, tiny };
        if i == network.parameters.len() {
            output = (column, before);
            break;
        }
        let (after, slope, vectors) = activation(network, i, before);
        layers.push(Layer { input, before, slope, vectors, units, column });
        input = after;
    }
    (layers, input, output.0, output.1)
}

/// What a number may lose where it is flushed to 0.
pub(super) fn tiny(rules: Rules) -> f64 {
    if rules.subnormal { 0.0 } else { f32::MIN_POSITIVE.into() }
}

/// The magnitude and the error of each hidden layer's numbers before its activation.
pub(super) fn before_activations<T: Element>(
    targets: &[T],
    history: &[T],
    network: &Network<T>,
    rules: Rules,
) -> Vec<(f64, f64)> {
    let (layers, ..) = forward(targets, history, network, tiny(rules));
    layers.iter().map(|layer| (layer.before.magnitude, layer.before.error)).collect()
}

impl Magnitudes {
    pub(super) fn new<T: Element>(op: &Din, batch: &Batch, tensors: &Tensors<T>, rules: Rules) -> Self {
        let tiny = tiny(rules);
        let (layers, last, output_weight, score) =
            forward(&tensors.targets, &tensors.history, &tensors.network, tiny);
        let max = data::max_abs::<T>;
        let norms = [&tensors.grad_out, &tensors.history].map(|rows| data::max_norm(rows, op.width));
        let product = norms[0] * norms[1];
        // Of each term both numbers may be flushed, their product and the sum so far.
        let flushed = op.width as f64 * tiny * (2.0 + norms[0] + norms[1]);
        let error = (op.width as f64 + 2.0) * U * product + flushed;
        let grad_weight = Size { magnitude: product, error, tiny };
        let longest = batch.histories().max_length();
        // Of each term of a sum over a history: itself, its product with a weight, the sum so far.
        let of_history = 3.0 * (longest as f64 + 8.0) * tiny;
        let (weight, grad_score, candidate) = match op.pooling {
            DinPooling::Softmax => {
                // A weight is at most 1, and so are those of a candidate in sum.
                // Where a score's bound says nothing, neither does this one: finite, since 0 · ∞ would be NaN.
                let relative = (2.0 * score.error).exp_m1().min(1e30) + (additions(longest) + 24.0) * U;
                let weight = Size { magnitude: 1.0, error: relative + of_history, tiny };
                // `dw − D`, where `D` is a mean of them.
                let mut mean = weight.times(grad_weight);
                mean.error += of_history;
                let grad = weight.times(grad_weight.plus(mean));
                (weight, grad, grad)
            }
            _ => (score, grad_weight, grad_weight.sum(longest as f64, 0.0)),
        };
        Self {
            layers,
            last,
            output_weight,
            weight,
            grad_score,
            candidate,
            all: candidate.sum(batch.targets().total() as f64, 0.0),
            max_q: max(&tensors.targets),
            max_s: max(&tensors.history),
            max_grad: max(&tensors.grad_out),
            longest,
            candidates: batch.targets().max_length(),
            pairs: usize::try_from(batch.pairs()).expect("few pairs"),
            shared_alpha: tensors.network.kind == Kind::PreluShared,
            tiny,
        }
    }

    /// The errors allowed, in the order of [`names`](super::backward::names).
    pub(super) fn bounds(&self) -> Vec<f64> {
        // Of each term of a sum: itself, its product, the sum so far. What is summed first is then multiplied by a candidate, or by
        // the first layer's weights.
        let column = self.layers.first().map_or(0.0, |layer| layer.column);
        let flushed = |length: usize| match self.tiny > 0.0 {
            true => 3.0 * length as f64 * self.tiny * (1.0 + self.max_q + self.max_s) * (1.0 + column),
            false => 0.0,
        };
        let over_pairs = |grads: Size, of: Size, length: usize| {
            let product = grads.times(of);
            product.error + (additions(length) + 8.0) * U * product.magnitude + flushed(length)
        };
        let of_all = |x: Size| over_pairs(self.all, x, self.pairs);
        let mut inside = Vec::new();
        // The gradient of a layer's output, for a gradient of 1 of the score.
        let mut gradient = Size::given(self.output_weight, self.tiny);
        for layer in self.layers.iter().rev() {
            let dy = gradient.times(layer.slope);
            let [alpha, gain, shift] = layer.vectors.map(|vector| of_all(gradient.times(vector)));
            let alpha = if self.shared_alpha { layer.units as f64 * alpha } else { alpha };
            inside.push([of_all(dy.times(layer.input)), of_all(dy), alpha, gain, shift]);
            gradient = dy.sum(layer.column, layer.units as f64 + 8.0);
        }
        let one = Size::exact(1.0);
        let row = |other: f64| gradient.times(Size::given(2.0 + other, self.tiny));
        let direct = self.weight.times(Size::given(self.max_grad, self.tiny));
        let behaviour = self.grad_score.times(row(self.max_q)).plus(direct);
        let candidates = self.candidates as f64;
        let mut bounds = vec![
            over_pairs(self.candidate, row(self.max_s), self.longest),
            over_pairs(one, behaviour.sum(candidates, 0.0), self.candidates),
            of_all(self.last),
            of_all(one),
        ];
        bounds.extend(inside.into_iter().rev().flatten());
        bounds
    }
}
