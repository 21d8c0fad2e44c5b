//! DIN on the CPU, with the first layer folded:
//! `W₁x = (W_q + W_d)·q + (W_k − W_d)·s + (W_p·diag(q))·s`: per pair only the last product is left, a quarter of the
//! multiplications of the concatenation.

use crate::cpu::pooling::{CHUNK, Pooling};
use crate::cpu::tiles::{Tile, for_each, split, tiles};
use crate::cpu::vector::{dot, sigmoid_of, store, widen};
use crate::element::Element;
use crate::error::Result;
use crate::jagged::Batch;
use crate::memory::{Host, View, ViewMut};
use crate::ops::{Activation, Din, DinInputs, DinPooling, Weighting};

/// The network's weights, widened, the first layer folded.
struct Network<'a> {
    /// `W_q + W_d`, `W_k − W_d` and `W_p`, each `[h, d]`.
    per_target: Vec<f32>,
    per_behaviour: Vec<f32>,
    per_pair: Vec<f32>,
    /// The weights of the layers behind the first, then of the output.
    later: Vec<Vec<f32>>,
    biases: Vec<&'a [f32]>,
    activations: Vec<Activation<&'a [f32]>>,
    output_bias: f32,
}

pub(super) fn din<T: Element>(
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    op.check(batch, inputs)?;
    op.check_output(batch, out.len())?;
    let network = fold(op, inputs);
    let tiles = tiles(batch);
    let out = split(&tiles, out.into_slice(), op.width);
    for_each(tiles.into_iter().zip(out).collect(), |(tile, out)| din_tile(op, &tile, inputs, &network, out));
    Ok(())
}

fn fold<'a, T: Element>(op: &Din, inputs: &DinInputs<'a, Host, T>) -> Network<'a> {
    let d = op.width;
    let widened = |weight: View<'_, Host, T>| weight.iter().map(|value| value.to_f32()).collect::<Vec<f32>>();
    let first = widened(inputs.hidden[0].weight);
    let fold = |combine: &dyn Fn(&[f32], usize) -> f32| -> Vec<f32> {
        first.chunks_exact(4 * d).flat_map(|row| (0..d).map(move |j| combine(row, j))).collect()
    };
    Network {
        per_target: fold(&|row, j| row[j] + row[2 * d + j]),
        per_behaviour: fold(&|row, j| row[d + j] - row[2 * d + j]),
        per_pair: fold(&|row, j| row[3 * d + j]),
        later: inputs.hidden[1..]
            .iter()
            .map(|layer| layer.weight)
            .chain([inputs.output_weight])
            .map(widened)
            .collect(),
        biases: inputs.hidden.iter().map(|layer| layer.bias.as_slice()).collect(),
        activations: inputs.hidden.iter().map(|layer| layer.activation.map(|view| view.as_slice())).collect(),
        output_bias: inputs.output_bias[0],
    }
}

fn din_tile<T: Element>(
    op: &Din,
    tile: &Tile,
    inputs: &DinInputs<'_, Host, T>,
    network: &Network<'_>,
    out: &mut [T],
) {
    let d = op.width;
    let units = network.biases[0].len();
    let (mut target_room, mut history_room) = (Vec::new(), Vec::new());
    let targets = widen(&inputs.targets[tile.targets.start * d..tile.targets.end * d], &mut target_room);
    let weighting = match op.pooling {
        DinPooling::Sum => Weighting::Identity,
        DinPooling::Softmax => Weighting::Softmax,
    };
    let mut candidates: Vec<Candidate> =
        targets.chunks_exact(d).map(|q| Candidate::new(network, q, weighting)).collect();
    let mut per_behaviour = Vec::with_capacity(CHUNK * units);
    let mut scores = [0.0; CHUNK];
    for start in tile.history.clone().step_by(CHUNK) {
        let rows = start..tile.history.end.min(start + CHUNK);
        let history = widen(&inputs.history[rows.start * d..rows.end * d], &mut history_room);
        per_behaviour.clear();
        for s in history.chunks_exact(d) {
            per_behaviour.extend(network.per_behaviour.chunks_exact(d).map(|row| dot(row, s)));
        }
        for candidate in &mut candidates {
            let pairs = history.chunks_exact(d).zip(per_behaviour.chunks_exact(units));
            for (score, (s, per_behaviour)) in scores.iter_mut().zip(pairs) {
                *score = candidate.score(network, s, per_behaviour);
            }
            candidate.pooling.add(&mut scores[..rows.len()], |l| &history[l * d..(l + 1) * d]);
        }
    }
    for (candidate, out) in candidates.into_iter().zip(out.chunks_exact_mut(d)) {
        store(out, &candidate.pooling.finish().0);
    }
}

/// What one candidate adds to the network, and its sum so far.
struct Candidate {
    /// `(W_q + W_d)·q + b₁`, `[h]`.
    per_target: Vec<f32>,
    /// `W_p·diag(q)`, `[h, d]`.
    per_pair: Vec<f32>,
    pooling: Pooling,
    /// Room for the units of a layer and of the next.
    layers: [Vec<f32>; 2],
}

impl Candidate {
    fn new(network: &Network<'_>, q: &[f32], weighting: Weighting) -> Self {
        let rows = network.per_target.chunks_exact(q.len());
        Self {
            per_target: rows.zip(network.biases[0]).map(|(row, bias)| dot(row, q) + bias).collect(),
            per_pair: network
                .per_pair
                .chunks_exact(q.len())
                .flat_map(|row| row.iter().zip(q).map(|(w, q)| w * q))
                .collect(),
            pooling: Pooling::new(weighting, q.len()),
            layers: [Vec::new(), Vec::new()],
        }
    }

    fn score(&mut self, network: &Network<'_>, s: &[f32], per_behaviour: &[f32]) -> f32 {
        let [units, next] = &mut self.layers;
        units.clear();
        let constant = self.per_target.iter().zip(per_behaviour);
        units.extend(
            self.per_pair.chunks_exact(s.len()).zip(constant).map(|(row, (q, k))| dot(row, s) + q + k),
        );
        activate(&network.activations[0], units);
        let hidden = network.biases.len() - 1;
        for layer in 0..hidden {
            next.clear();
            let rows = network.later[layer].chunks_exact(units.len());
            next.extend(rows.zip(network.biases[layer + 1]).map(|(row, bias)| dot(row, units) + bias));
            activate(&network.activations[layer + 1], next);
            std::mem::swap(units, next);
        }
        dot(&network.later[hidden], units) + network.output_bias
    }
}

fn activate(activation: &Activation<&[f32]>, units: &mut [f32]) {
    match activation {
        // Not f32::max: it would turn NaN into 0.
        Activation::Relu => units.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
        Activation::Sigmoid => units.iter_mut().for_each(|x| *x = sigmoid_of(*x)),
        Activation::Prelu { alpha } => {
            for (x, alpha) in units.iter_mut().zip(alpha.iter().cycle()) {
                *x = if *x < 0.0 { alpha * *x } else { *x };
            }
        }
        Activation::Dice { gain, shift, alpha } => {
            for (i, x) in units.iter_mut().enumerate() {
                let p = sigmoid_of(gain[i] * *x + shift[i]);
                *x *= p + alpha[i] * (1.0 - p);
            }
        }
    }
}
