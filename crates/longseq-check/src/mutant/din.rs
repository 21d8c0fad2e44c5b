//! Wrong networks and wrong gradients of DIN.

use longseq::*;

use super::{Fault, Mutant};

/// Flips the sign of the columns of the third block of `[h, 4d]`.
fn negate_third_block<T: Element>(weight: &[T], d: usize) -> Vec<T> {
    let negate = |(i, w): (usize, &T)| {
        let third = (i / d) % 4 == 2;
        T::from_f32(if third { -w.to_f32() } else { w.to_f32() })
    };
    weight.iter().enumerate().map(negate).collect()
}

impl DinOps for Mutant {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        let op = if self.is(Fault::SoftmaxForgotten) { op.with_pooling(DinPooling::Sum) } else { *op };
        self.with_faulty_network(op.width, inputs, |inputs| Cpu::new().din_into(&op, batch, inputs, out))
    }

    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grads: DinGradients<'_, Host, G>,
    ) -> Result<()> {
        self.with_faulty_network(op.width, inputs, |inputs| {
            self.din_gradients(op, batch, &inputs, &grad_out, grads);
            Ok(())
        })
    }

    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        layer: usize,
        out: DinStatistics<'_, Host>,
    ) -> Result<()> {
        self.with_faulty_network(op.width, inputs, |inputs| {
            Cpu::new().din_statistics_into(op, batch, inputs, layer, out)
        })
    }
}

/// What one pair's layers hold in the plain network: the input of each layer, its numbers before the activation, and the score.
type Trace = (Vec<Vec<f64>>, Vec<Vec<f64>>, f64);

/// Gradients of all tensors, in `f64`: of each layer weight, bias, alpha, gain and shift; the last is the output layer.
type Layers = Vec<[Vec<f64>; 5]>;

impl Mutant {
    /// Calls `with` with the network that has this fault.
    pub(super) fn with_faulty_network<T: Element, R>(
        &self,
        width: usize,
        inputs: DinInputs<'_, Host, T>,
        with: impl FnOnce(DinInputs<'_, Host, T>) -> R,
    ) -> R {
        let mut hidden = inputs.hidden.to_vec();
        let reversed = negate_third_block(&hidden[0].weight, width);
        if self.is(Fault::DifferenceReversed) {
            hidden[0].weight = Host::view(&reversed);
        }
        let zeros = vec![0.0; hidden.iter().map(|layer| layer.bias.len()).max().unwrap_or(0)];
        for layer in hidden.iter_mut().filter(|_| self.is(Fault::AlphaDropped)) {
            match &mut layer.activation {
                Activation::Prelu { alpha } | Activation::Dice { alpha, .. } => {
                    *alpha = Host::view(&zeros[..alpha.len()])
                }
                _ => {}
            }
        }
        let mut inputs = inputs;
        inputs.hidden = &hidden;
        with(inputs)
    }

    /// A plain backward pass, with this fault.
    pub(super) fn din_gradients<T: Element, G: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: &DinInputs<'_, Host, T>,
        grad_out: &[T],
        grads: DinGradients<'_, Host, G>,
    ) {
        let d = op.width;
        let row = |rows: &[T], i: usize| wide(&rows[i * d..(i + 1) * d]);
        let (mut targets, mut history) = (vec![0.0; inputs.targets.len()], vec![0.0; inputs.history.len()]);
        let mut layers: Layers = inputs
            .hidden
            .iter()
            .map(|layer| [layer.weight.len(), 1, 1, 1, 1].map(|n| vec![0.0; n.max(layer.bias.len())]))
            .collect();
        layers.push([inputs.output_weight.len(), 1, 0, 0, 0].map(|n| vec![0.0; n]));
        for (behaviours, candidates) in batch.requests() {
            for m in candidates {
                if self.is(Fault::BiasOfOneCandidate) {
                    layers.iter_mut().for_each(|layer| layer[1].fill(0.0));
                }
                let (q, dout) = (row(&inputs.targets, m), row(grad_out, m));
                let rows: Vec<Vec<f64>> = behaviours.clone().map(|l| row(&inputs.history, l)).collect();
                let traces: Vec<Trace> = rows.iter().map(|s| trace(inputs, &q, s)).collect();
                let scores: Vec<f64> = traces.iter().map(|trace| trace.2).collect();
                let grad_weights: Vec<f64> = rows.iter().map(|s| dot(&dout, s)).collect();
                let (weights, grad_scores) = self.weigh(op, &scores, &grad_weights);
                for (i, (l, s)) in behaviours.clone().zip(&rows).enumerate() {
                    if i % 64 == 0 && self.is(Fault::NewestPartial) {
                        layers.iter_mut().flatten().for_each(|sums| sums.fill(0.0));
                    }
                    let dx = self.network_backward(inputs, &traces[i], grad_scores[i], &mut layers);
                    for j in 0..d {
                        let [one, two, three, four] = [0, 1, 2, 3].map(|block| dx[block * d + j]);
                        targets[m * d + j] += one + three + four * s[j];
                        history[l * d + j] += two - three + four * q[j];
                        if !self.is(Fault::PooledGradientForgotten) {
                            history[l * d + j] += weights[i] * dout[j];
                        }
                    }
                }
            }
        }
        let used = [batch.targets().total() * d, batch.histories().total() * d];
        write(grads.targets, &targets[..used[0]]);
        write(grads.history, &history[..used[1]]);
        let output = &layers[inputs.hidden.len()];
        write(grads.output_weight, &output[0]);
        write(grads.output_bias, &output[1]);
        for (grads, sums) in grads.hidden.iter_mut().zip(&layers) {
            let units = sums[1].len();
            write(grads.weight.as_mut().map(|view| view.reborrow()), &sums[0]);
            write(grads.bias.as_mut().map(|view| view.reborrow()), &sums[1]);
            let shared = grads.alpha.as_ref().is_some_and(|alpha| alpha.len() == 1);
            let alpha = if shared { vec![sums[2][..units].iter().sum()] } else { sums[2].clone() };
            write(grads.alpha.as_mut().map(|view| view.reborrow()), &alpha);
            write(grads.gain.as_mut().map(|view| view.reborrow()), &sums[3]);
            write(grads.shift.as_mut().map(|view| view.reborrow()), &sums[4]);
        }
    }

    /// The weights of scores, and the gradients of the scores.
    fn weigh(&self, op: &Din, scores: &[f64], grad_weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
        if op.pooling == DinPooling::Sum {
            return (scores.to_vec(), grad_weights.to_vec());
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let weights: Vec<f64> = exponentials.iter().map(|exponential| exponential / sum).collect();
        let mean = if self.is(Fault::MeanGradientDropped) { 0.0 } else { dot(&weights, grad_weights) };
        let grad = |(weight, grad): (&f64, &f64)| {
            let factor = if self.is(Fault::JacobianTermDropped) { 1.0 } else { *weight };
            factor * (grad - mean)
        };
        let grads = weights.iter().zip(grad_weights).map(grad).collect();
        (weights, grads)
    }

    /// Adds the gradients of the layers for one pair, and returns that of the first layer's input.
    fn network_backward<T: Element>(
        &self,
        inputs: &DinInputs<'_, Host, T>,
        (layer_inputs, before, _): &Trace,
        grad_score: f64,
        layers: &mut Layers,
    ) -> Vec<f64> {
        let last = inputs.hidden.len();
        add(&mut layers[last][0], &layer_inputs[last], grad_score);
        layers[last][1][0] += grad_score;
        let mut dx: Vec<f64> = wide(&inputs.output_weight).iter().map(|weight| weight * grad_score).collect();
        for (i, layer) in inputs.hidden.iter().enumerate().rev() {
            let x = &layer_inputs[i];
            let mut next = vec![0.0; x.len()];
            for (unit, (&y, &dx)) in before[i].iter().zip(&dx).enumerate() {
                let (_, slope, vectors) = activation(&layer.activation, unit, y);
                let dy = if self.is(Fault::SlopeForgotten) { dx } else { dx * slope };
                for (sums, (part, derivative)) in layers[i][2..].iter_mut().zip(vectors.iter().enumerate()) {
                    if part > 0 || !self.is(Fault::AlphaGradientMissing) {
                        sums[unit] += dx * derivative;
                    }
                }
                layers[i][1][unit] += dy;
                add(&mut layers[i][0][unit * x.len()..(unit + 1) * x.len()], x, dy);
                add(&mut next, &wide(&layer.weight[unit * x.len()..(unit + 1) * x.len()]), dy);
            }
            dx = next;
        }
        dx
    }
}

fn wide<T: Element>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.to_f32().into()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sums += factor · row`.
fn add(sums: &mut [f64], row: &[f64], factor: f64) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}

fn write<G: Element>(out: Option<ViewMut<'_, Host, G>>, numbers: &[f64]) {
    if let Some(out) = out {
        let out = out.into_slice();
        out.iter_mut().zip(numbers).for_each(|(out, x)| *out = G::from_f32(*x as f32));
    }
}

fn trace<T: Element>(inputs: &DinInputs<'_, Host, T>, q: &[f64], s: &[f64]) -> Trace {
    let pairs = || q.iter().zip(s);
    let mut x: Vec<f64> = q.iter().chain(s).copied().collect();
    x.extend(pairs().map(|(q, s)| q - s));
    x.extend(pairs().map(|(q, s)| q * s));
    let (mut layer_inputs, mut before) = (Vec::new(), Vec::new());
    for layer in inputs.hidden {
        let rows = layer.weight.chunks(x.len()).zip(layer.bias.iter());
        let y: Vec<f64> = rows.map(|(row, bias)| dot(&wide(row), &x) + f64::from(*bias)).collect();
        let after = y.iter().enumerate().map(|(i, &y)| activation(&layer.activation, i, y).0).collect();
        layer_inputs.push(std::mem::replace(&mut x, after));
        before.push(y);
    }
    let score = dot(&wide(&inputs.output_weight), &x) + f64::from(inputs.output_bias[0]);
    layer_inputs.push(x);
    (layer_inputs, before, score)
}

/// An activation of `y`, its slope, and its derivatives to alpha, gain and shift.
fn activation(activation: &Activation<View<'_, Host, f32>>, unit: usize, y: f64) -> (f64, f64, [f64; 3]) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let step = if y > 0.0 { 1.0 } else { 0.0 };
    match activation {
        Activation::Sigmoid => (sigmoid(y), sigmoid(y) * sigmoid(-y), [0.0; 3]),
        Activation::Prelu { alpha } => {
            let alpha = f64::from(alpha[if alpha.len() == 1 { 0 } else { unit }]);
            let slope = if y > 0.0 { 1.0 } else { alpha };
            (slope * y, slope, [y.min(0.0), 0.0, 0.0])
        }
        Activation::Dice { gain, shift, alpha } => {
            let [gain, shift, alpha] = [gain, shift, alpha].map(|vector| f64::from(vector[unit]));
            let p = sigmoid(gain * y + shift);
            let r = p * (1.0 - p) * (1.0 - alpha);
            let straight = p + alpha * (1.0 - p);
            (y * straight, straight + y * r * gain, [y * (1.0 - p), y * y * r, y * r])
        }
        _ => (step * y, step, [0.0; 3]),
    }
}
