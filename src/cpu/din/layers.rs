//! The network with rows of units: what the backward pass and the statistics compute again, for a block of behaviours at a time.
//!
//! Lanes are units here, not behaviours as in the forward pass: then every product of the backward pass, those that sum over
//! behaviours included, reads its matrices as they lie.

use crate::cpu::vector::{LANES, Lanes, Matrix, Row, multiply, sigmoid, sigmoids};
use crate::element::Element;
use crate::host::Host;
use crate::memory::View;
use crate::ops::{Activation, Din, DinInputs};

/// Behaviours per block: the units of all its layers stay in the L2 cache.
pub(super) const BLOCK: usize = 64;

/// The network as `f32`, in padded rows, with the first layer folded.
pub(super) struct Layers {
    /// `W_q + W_d`, `W_k − W_d` and `W_p` of the first layer, each `[h, d]`, and their transposes.
    pub(super) per_target: [Matrix; 2],
    pub(super) per_behaviour: [Matrix; 2],
    pub(super) per_pair: [Matrix; 2],
    /// `[h, i]` of the layers after the first, and their transposes; nothing for the first.
    pub(super) weights: Vec<[Matrix; 2]>,
    /// The units of each hidden layer.
    pub(super) units: Vec<usize>,
    pub(super) biases: Vec<Matrix>,
    /// One number for each unit in every vector.
    pub(super) activations: Vec<Activation<Matrix>>,
    pub(super) output_weight: Matrix,
    pub(super) output_bias: f32,
}

impl Layers {
    pub(super) fn new<T: Element>(op: &Din, inputs: &DinInputs<'_, Host, T>) -> Self {
        let d = op.width;
        let units: Vec<usize> = inputs.hidden.iter().map(|layer| layer.bias.len()).collect();
        let both = |rows: usize, columns: usize, number: &dyn Fn(usize, usize) -> f32| {
            [Matrix::from_fn(rows, columns, number), Matrix::from_fn(columns, rows, |i, j| number(j, i))]
        };
        let first = |unit: usize, block: usize, j: usize| {
            inputs.hidden[0].weight[(4 * unit + block) * d + j].to_f32()
        };
        let later = |i: usize| match i {
            0 => [Matrix::default(), Matrix::default()],
            _ => {
                let (weight, fan_in) = (inputs.hidden[i].weight, units[i - 1]);
                both(units[i], fan_in, &|row, column| weight[row * fan_in + column].to_f32())
            }
        };
        let vector = |view: View<'_, Host, f32>| Matrix::from_fn(1, view.len(), |_, j| view[j]);
        let activation = |i: usize| match inputs.hidden[i].activation {
            Activation::Prelu { alpha } => Activation::Prelu {
                alpha: Matrix::from_fn(1, units[i], |_, j| alpha[if alpha.len() == 1 { 0 } else { j }]),
            },
            other => other.map(vector),
        };
        Self {
            per_target: both(units[0], d, &|i, j| first(i, 0, j) + first(i, 2, j)),
            per_behaviour: both(units[0], d, &|i, j| first(i, 1, j) - first(i, 2, j)),
            per_pair: both(units[0], d, &|i, j| first(i, 3, j)),
            weights: (0..units.len()).map(later).collect(),
            biases: inputs.hidden.iter().map(|layer| vector(layer.bias)).collect(),
            activations: (0..units.len()).map(activation).collect(),
            output_weight: Matrix::from_fn(1, inputs.output_weight.len(), |_, j| {
                inputs.output_weight[j].to_f32()
            }),
            output_bias: inputs.output_bias[0],
            units,
        }
    }
}

/// The first layer for one candidate `q`: `y = (W_k − W_d + W_p·diag(q))·s + constant`.
pub(super) struct Candidate {
    /// `W_k − W_d + W_p·diag(q)`, `[h, d]`, where it is asked for, and its transpose.
    pub(super) weight: Matrix,
    pub(super) transposed: Matrix,
    /// `(W_q + W_d)·q + b`, `[h]`.
    constant: Vec<Row>,
}

impl Candidate {
    pub(super) fn new(layers: &Layers) -> Self {
        let weight = layers.per_pair[0].clone();
        let (transposed, constant) = (layers.per_pair[1].clone(), layers.biases[0].row(0).to_vec());
        Self { weight, transposed, constant }
    }

    /// Sets the candidate; `with_weight`: not only what the forward pass needs.
    #[inline(always)]
    pub(super) fn set<L: Lanes>(&mut self, l: L, layers: &Layers, q: &[Row], with_weight: bool) {
        self.constant.copy_from_slice(layers.biases[0].row(0));
        let numbers = q.as_flattened();
        for (j, out) in self.transposed.rows_mut().enumerate() {
            let q = l.splat(numbers[j]);
            let rows = layers.per_pair[1].row(j).iter().zip(layers.per_behaviour[1].row(j));
            for (out, (pair, behaviour)) in out.iter_mut().zip(rows) {
                l.store(out, l.mul_add(l.load(pair), q, l.load(behaviour)));
            }
            for (sum, weight) in self.constant.iter_mut().zip(layers.per_target[1].row(j)) {
                l.store(sum, l.mul_add(l.load(weight), q, l.load(sum)));
            }
        }
        if with_weight {
            for (unit, out) in self.weight.rows_mut().enumerate() {
                let rows = layers.per_pair[0].row(unit).iter().zip(layers.per_behaviour[0].row(unit));
                for ((out, q), (pair, behaviour)) in out.iter_mut().zip(q).zip(rows) {
                    l.store(out, l.mul_add(l.load(pair), l.load(q), l.load(behaviour)));
                }
            }
        }
    }
}

/// The units of every layer for a block of behaviours.
pub(super) struct Units {
    /// Before and after each layer's activation, `[BLOCK, h]`.
    pub(super) before: Vec<Matrix>,
    pub(super) after: Vec<Matrix>,
    /// Of layers with Dice, the probability of each unit and the rest to 1, which the backward pass needs too.
    pub(super) gates: Vec<[Matrix; 2]>,
}

impl Units {
    pub(super) fn new(layers: &Layers) -> Self {
        let block = || layers.units.iter().map(|&units| Matrix::zeros(BLOCK, units)).collect();
        let gates = |(&units, activation): (&usize, &Activation<Matrix>)| match activation {
            Activation::Dice { .. } => [0; 2].map(|_| Matrix::zeros(BLOCK, units)),
            _ => [0; 2].map(|_| Matrix::default()),
        };
        let gates = layers.units.iter().zip(&layers.activations).map(gates).collect();
        Self { before: block(), after: block(), gates }
    }

    /// Computes the first `count` layers for the behaviours `[rows, d]` in `history`.
    #[inline(always)]
    pub(super) fn forward<L: Lanes>(
        &mut self,
        l: L,
        layers: &Layers,
        candidate: &Candidate,
        history: &[Row],
        count: usize,
    ) {
        let vectors = layers.per_pair[0].vectors();
        let rows = history.len() / vectors;
        let width = layers.per_pair[1].rows();
        for i in 0..count {
            let (previous, after) = self.after.split_at_mut(i);
            let (a, inner, weight, bias) = match previous.last() {
                None => ((history, vectors), width, &candidate.transposed, &candidate.constant[..]),
                Some(previous) => (
                    (previous.data(), previous.vectors()),
                    layers.units[i - 1],
                    &layers.weights[i][1],
                    layers.biases[i].row(0),
                ),
            };
            let n = weight.vectors();
            let before = &mut self.before[i].data_mut()[..rows * n];
            multiply(l, a, (rows, inner), (weight.data(), n), |row, v, sum| {
                l.store(&mut before[row * n + v], l.add(sum, l.load(&bias[v])));
            });
            let after = &mut after[0].data_mut()[..rows * n];
            activate(l, &layers.activations[i], before, (after, &mut self.gates[i]), n);
        }
    }

    /// The network's output for the first behaviours of the block, after [`forward`](Self::forward) with all layers.
    #[inline(always)]
    pub(super) fn scores<L: Lanes>(&self, l: L, layers: &Layers, scores: &mut [f32]) {
        let Some((units, last)) = layers.units.last().zip(self.after.last()) else { return };
        for (row, score) in scores.iter_mut().enumerate() {
            *score = dot(l, last.row(row), layers.output_weight.row(0), *units) + layers.output_bias;
        }
    }
}

/// `⟨a, b⟩` over the first `width` numbers: what the padding of `a` holds does not count.
#[inline(always)]
pub(super) fn dot<L: Lanes>(l: L, a: &[Row], b: &[Row], width: usize) -> f32 {
    let whole = width / LANES;
    let mut sum = l.splat(0.0);
    for (a, b) in a[..whole].iter().zip(b) {
        sum = l.mul_add(l.load(a), l.load(b), sum);
    }
    if let Some((a, b)) = a.get(whole).zip(b.get(whole)) {
        let mut numbers = [0.0; LANES];
        numbers[..width - whole * LANES].copy_from_slice(&a[..width - whole * LANES]);
        sum = l.mul_add(l.load(&numbers), l.load(b), sum);
    }
    l.sum(sum)
}

/// The activation of rows of `n` vectors, with its gates.
#[inline(always)]
fn activate<L: Lanes>(
    l: L,
    activation: &Activation<Matrix>,
    before: &[Row],
    (after, gates): (&mut [Row], &mut [Matrix; 2]),
    n: usize,
) {
    let zero = l.splat(0.0);
    match activation {
        Activation::Relu => {
            for (x, out) in before.iter().zip(after) {
                let x = l.load(x);
                // Not `max`, which may turn NaN into 0.
                l.store(out, l.if_less(x, zero, zero, x));
            }
        }
        Activation::Sigmoid => {
            for (x, out) in before.iter().zip(after) {
                l.store(out, sigmoid(l, l.load(x)));
            }
        }
        Activation::Prelu { alpha } => {
            for (before, after) in before.chunks_exact(n).zip(after.chunks_exact_mut(n)) {
                for ((x, out), alpha) in before.iter().zip(after).zip(alpha.row(0)) {
                    let x = l.load(x);
                    l.store(out, l.if_less(x, zero, l.mul(l.load(alpha), x), x));
                }
            }
        }
        Activation::Dice { gain, shift, alpha } => {
            let [p, rest] = gates.each_mut().map(|gates| gates.data_mut().chunks_exact_mut(n));
            let rows = before.chunks_exact(n).zip(after.chunks_exact_mut(n)).zip(p.zip(rest));
            for ((before, after), (p, rest)) in rows {
                for (v, ((x, out), gates)) in before.iter().zip(after).zip(p.iter_mut().zip(rest)).enumerate()
                {
                    let (x, alpha) = (l.load(x), l.load(&alpha.row(0)[v]));
                    let (gain, shift) = (l.load(&gain.row(0)[v]), l.load(&shift.row(0)[v]));
                    let [p, rest] = sigmoids(l, l.mul_add(gain, x, shift));
                    l.store(gates.0, p);
                    l.store(gates.1, rest);
                    l.store(out, l.mul(x, l.mul_add(alpha, rest, p)));
                }
            }
        }
    }
}
