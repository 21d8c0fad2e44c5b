//! The backward pass through one block of behaviours, for one candidate.

use crate::cpu::din::layers::{BLOCK, Candidate, Layers, Units, dot};
use crate::cpu::din::softmax::Normaliser;
use crate::cpu::din::sums::{Sums, Wanted};
use crate::cpu::vector::{LANES, Lanes, Matrix, Row, exp, multiply, multiply_transposed};
use crate::ops::Activation;

/// Some behaviours `[rows, d]`, a candidate's network, and the gradient of its output.
pub(super) struct Pairs<'a> {
    pub(super) layers: &'a Layers,
    pub(super) candidate: &'a Candidate,
    pub(super) grad_out: &'a [Row],
    /// How scores become weights.
    pub(super) weighting: Weighting,
}

/// How the scores of a candidate become weights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weighting {
    /// They are the weights.
    Sum,
    /// Softmax over a history of which this is known.
    Softmax(Normaliser),
    /// The same, and the blocks of the span are scored already.
    Scored(Normaliser),
    /// Softmax over the behaviours of this span, which are all there are.
    SoftmaxOfSpan,
}

/// What the pairs of a block and a candidate add up to.
pub(super) struct CandidateSums {
    /// `G = Σ_l dy ⊗ s_l` of the first layer, `[h, d]`, and `Σ_l dy`, `[1, h]`.
    pub(super) outer: Matrix,
    pub(super) units: Matrix,
    /// Whether there are any: a candidate whose pairs are all removed adds nothing, whatever it holds.
    pub(super) any: bool,
}

/// What scoring a block gives.
struct Scored {
    units: Units,
    scores: [f32; BLOCK],
    /// `⟨grad_out, s_l⟩`.
    grad_weights: [f32; BLOCK],
}

/// Scratch for a block.
pub(super) struct Block {
    /// The blocks of a span that are scored together; the first one for blocks that are scored one by one.
    scored: Vec<Scored>,
    /// The gradient of a layer's numbers, and of those of the layer before it (or of the history).
    grads: [Matrix; 2],
    weights: [f32; BLOCK],
    grad_scores: [f32; BLOCK],
    /// The behaviours that are not removed, and the gradients of their rows.
    kept: Vec<usize>,
    kept_history: Vec<Row>,
    kept_grads: Vec<Row>,
}

impl Block {
    /// With scratch for so many blocks that are scored together.
    pub(super) fn new(layers: &Layers, width: usize, blocks: usize) -> Self {
        let widest = layers.units.iter().copied().max().unwrap_or(0).max(width);
        let numbers = [0.0; BLOCK];
        let scored = |_| Scored { units: Units::new(layers), scores: numbers, grad_weights: numbers };
        Self {
            scored: (0..blocks.max(1)).map(scored).collect(),
            grads: [0; 2].map(|_| Matrix::zeros(BLOCK, widest)),
            weights: numbers,
            grad_scores: numbers,
            kept: Vec::new(),
            kept_history: Vec::new(),
            kept_grads: Vec::new(),
        }
    }

    /// Computes the scores of the behaviours `[rows, d]` and the gradients of their weights, into place `at`; returns both.
    #[inline(always)]
    pub(super) fn score<L: Lanes>(
        &mut self,
        l: L,
        pairs: &Pairs<'_>,
        at: usize,
        history: &[Row],
    ) -> (&[f32], &[f32]) {
        let Pairs { layers, candidate, grad_out, .. } = pairs;
        let Scored { units, scores, grad_weights } = &mut self.scored[at];
        units.forward(l, layers, candidate, history, layers.units.len());
        let vectors = layers.per_pair[0].vectors();
        let rows = history.len() / vectors;
        units.scores(l, layers, &mut scores[..rows]);
        for (s, grad) in history.chunks_exact(vectors).zip(&mut *grad_weights) {
            *grad = dot(l, s, grad_out, vectors * LANES);
        }
        (&scores[..rows], &grad_weights[..rows])
    }

    /// Scores all blocks of a span that is a whole history.
    #[inline(always)]
    pub(super) fn score_span<L: Lanes>(&mut self, l: L, pairs: &Pairs<'_>, history: &[Row]) -> Weighting {
        let vectors = pairs.layers.per_pair[0].vectors();
        let (mut normaliser, mut removes) = (Normaliser::NONE, false);
        for (at, rows) in history.chunks(BLOCK * vectors).enumerate() {
            let (scores, grad_weights) = self.score(l, pairs, at, rows);
            removes |= scores.contains(&f32::NEG_INFINITY);
            normaliser.add(&Normaliser::new(l, scores, grad_weights));
        }
        // Blocks from which a behaviour is removed are scored once more, without it.
        if removes { Weighting::Softmax(normaliser) } else { Weighting::Scored(normaliser) }
    }

    /// Adds what the pairs of the candidate and the behaviours contribute to `sums`, to the candidate's sums, and to the
    /// behaviours' own gradients `[rows, d]`. They are the span's block `at`.
    #[inline(always)]
    pub(super) fn backward<L: Lanes>(
        &mut self,
        l: L,
        pairs: &Pairs<'_>,
        wanted: &Wanted,
        (at, history): (usize, &[Row]),
        (sums, own, grads): (&mut Sums, &mut CandidateSums, &mut [Row]),
    ) {
        let is_scored = matches!(pairs.weighting, Weighting::Scored(_));
        let at = if is_scored { at } else { 0 };
        let vectors = pairs.layers.per_pair[0].vectors();
        let mut kept_history = std::mem::take(&mut self.kept_history);
        let (mut compacted, mut rows) = (false, history.len() / vectors);
        loop {
            if is_scored {
                break;
            }
            self.score(l, pairs, at, if compacted { &kept_history } else { history });
            let scores = &self.scored[at].scores[..rows];
            let removes = !matches!(pairs.weighting, Weighting::Sum) && !compacted;
            if !(removes && scores.contains(&f32::NEG_INFINITY)) {
                break;
            }
            // Rare: once more with the others alone, since those removed may hold anything.
            compacted = true;
            self.kept.clear();
            self.kept.extend((0..rows).filter(|&row| scores[row] != f32::NEG_INFINITY));
            kept_history.clear();
            let rows_kept = self.kept.iter().map(|row| &history[row * vectors..(row + 1) * vectors]);
            rows_kept.for_each(|row| kept_history.extend(row));
            rows = self.kept.len();
        }
        own.any |= rows > 0;
        self.weigh(l, pairs.weighting, at);
        let mut kept_grads = std::mem::take(&mut self.kept_grads);
        kept_grads.clear();
        kept_grads.resize(kept_history.len(), [0.0; LANES]);
        let (input, out) =
            if compacted { (&kept_history[..], &mut kept_grads[..]) } else { (history, &mut *grads) };
        self.propagate(l, pairs, wanted, (at, input), (sums, own, out));
        if compacted && wanted.history {
            for (row, kept) in self.kept.iter().zip(kept_grads.chunks_exact(vectors)) {
                add(l, &mut grads[row * vectors..(row + 1) * vectors], kept);
            }
        }
        kept_history.clear();
        (self.kept_history, self.kept_grads) = (kept_history, kept_grads);
    }

    /// The weights of the scores and the gradients of the scores.
    #[inline(always)]
    fn weigh<L: Lanes>(&mut self, l: L, weighting: Weighting, at: usize) {
        let Scored { scores, grad_weights, .. } = &self.scored[at];
        let (Weighting::Softmax(normaliser) | Weighting::Scored(normaliser)) = weighting else {
            self.weights = *scores;
            self.grad_scores = *grad_weights;
            return;
        };
        let (shift, mean) = (normaliser.shift(), normaliser.weighted / normaliser.sum);
        let weights = scores.as_chunks::<LANES>().0.iter().zip(self.weights.as_chunks_mut::<LANES>().0);
        for (scores, weights) in weights {
            let exponentials = exp(l, l.sub(l.load(scores), l.splat(shift)));
            l.store(weights, l.div(exponentials, l.splat(normaliser.sum)));
        }
        let numbers = self.weights.iter().zip(grad_weights);
        for (grad, (weight, grad_weight)) in self.grad_scores.iter_mut().zip(numbers) {
            *grad = weight * (grad_weight - mean);
        }
    }

    /// From the gradients of the scores back through the network.
    #[inline(always)]
    fn propagate<L: Lanes>(
        &mut self,
        l: L,
        pairs: &Pairs<'_>,
        wanted: &Wanted,
        (at, history): (usize, &[Row]),
        (sums, own, grads): (&mut Sums, &mut CandidateSums, &mut [Row]),
    ) {
        let layers = pairs.layers;
        let vectors = layers.per_pair[0].vectors();
        let rows = history.len() / vectors;
        self.output_layer(l, layers, wanted, (at, rows), sums);
        let Units { before, after, gates } = &self.scored[at].units;
        let [current, next] = &mut self.grads;
        for i in (wanted.deepest..layers.units.len()).rev() {
            let (units, n) = (layers.units[i], before[i].vectors());
            let values = (before[i].data(), after[i].data(), &mut current.data_mut()[..rows * n]);
            let layer = &mut sums.layers[i];
            let bias = if i == 0 { &mut own.units } else { &mut layer.bias };
            let activation = (&layers.activations[i], &gates[i]);
            activation_backward(l, activation, values, n, bias, &mut layer.vectors);
            let gradient = &current.data()[..rows * n];
            let (input, inner, out) = match i {
                0 => ((history, vectors), wanted.outer(), &mut own.outer),
                _ => {
                    let input = &after[i - 1];
                    let rows = &input.data()[..rows * input.vectors()];
                    ((rows, input.vectors()), wanted.weights[i], &mut sums.layers[i].weight)
                }
            };
            if inner {
                multiply_transposed(l, (gradient, n), units, input, |unit, v, sum| {
                    let out = &mut out.row_mut(unit)[v];
                    l.store(out, l.add(l.load(out), sum));
                });
            }
            if i > wanted.deepest || wanted.history {
                let weight = if i == 0 { &pairs.candidate.weight } else { &layers.weights[i][0] };
                let n_next = weight.vectors();
                let out = &mut next.data_mut()[..rows * n_next];
                multiply(l, (gradient, n), (rows, units), (weight.data(), n_next), |row, v, sum| {
                    l.store(&mut out[row * n_next + v], sum);
                });
                std::mem::swap(current, next);
            }
        }
        if wanted.history {
            let through = current.data().chunks_exact(vectors);
            for ((grads, through), weight) in grads.chunks_exact_mut(vectors).zip(through).zip(&self.weights)
            {
                let weight = l.splat(*weight);
                for ((grad, through), grad_out) in grads.iter_mut().zip(through).zip(pairs.grad_out) {
                    let direct = l.mul_add(weight, l.load(grad_out), l.load(through));
                    l.store(grad, l.add(l.load(grad), direct));
                }
            }
        }
    }

    /// The gradients of the output layer, and those of the last hidden layer's numbers.
    #[inline(always)]
    fn output_layer<L: Lanes>(
        &mut self,
        l: L,
        layers: &Layers,
        wanted: &Wanted,
        (at, rows): (usize, usize),
        sums: &mut Sums,
    ) {
        let Some(last) = self.scored[at].units.after.last() else { return };
        let (n, weight) = (last.vectors(), layers.output_weight.row(0));
        let grad_scores = &self.grad_scores[..rows];
        if wanted.output {
            for (v, out) in sums.output_weight.row_mut(0).iter_mut().enumerate() {
                let mut sum = l.splat(0.0);
                for (row, grad) in last.data().chunks_exact(n).zip(grad_scores) {
                    sum = l.mul_add(l.splat(*grad), l.load(&row[v]), sum);
                }
                l.store(out, l.add(l.load(out), sum));
            }
            sums.output_bias.row_mut(0)[0][0] += grad_scores.iter().sum::<f32>();
        }
        let out = self.grads[0].data_mut().chunks_exact_mut(n);
        for (out, grad) in out.zip(grad_scores) {
            for (out, weight) in out.iter_mut().zip(weight) {
                l.store(out, l.mul(l.splat(*grad), l.load(weight)));
            }
        }
    }
}

/// `sum += row`.
#[inline(always)]
pub(super) fn add<L: Lanes>(l: L, sum: &mut [Row], row: &[Row]) {
    for (sum, row) in sum.iter_mut().zip(row) {
        l.store(sum, l.add(l.load(sum), l.load(row)));
    }
}

/// Turns the gradients of rows of `n` vectors after an activation into those before it, and adds the gradients of the layer's
/// bias and of the activation's vectors.
#[inline(always)]
fn activation_backward<L: Lanes>(
    l: L,
    (activation, gates): (&Activation<Matrix>, &[Matrix; 2]),
    (before, after, grads): (&[Row], &[Row], &mut [Row]),
    n: usize,
    bias_sums: &mut Matrix,
    vector_sums: &mut [Matrix; 3],
) {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    // `above` for positive numbers, NaN for NaN, otherwise `below`.
    let step = |y: L::V, above: L::V, below: L::V| {
        l.if_less(zero, y, above, l.if_less(y, l.splat(f32::MIN_POSITIVE), below, y))
    };
    for v in 0..n {
        let mut bias = zero;
        let mut vectors = [zero; 3];
        let rows = before.chunks_exact(n).zip(after.chunks_exact(n)).zip(grads.chunks_exact_mut(n));
        for (row, ((before, after), grads)) in rows.enumerate() {
            let (y, dx) = (l.load(&before[v]), l.load(&grads[v]));
            let slope = match activation {
                Activation::Relu => step(y, one, zero),
                Activation::Sigmoid => {
                    let x = l.load(&after[v]);
                    l.mul(x, l.sub(one, x))
                }
                Activation::Prelu { alpha } => {
                    vectors[0] = l.mul_add(dx, l.if_less(zero, y, zero, y), vectors[0]);
                    step(y, one, l.load(&alpha.row(0)[v]))
                }
                Activation::Dice { gain, alpha, .. } => {
                    let [gain, alpha] = [gain, alpha].map(|vector| l.load(&vector.row(0)[v]));
                    let [p, rest] = gates.each_ref().map(|gates| l.load(&gates.row(row)[v]));
                    let dx_y = l.mul(dx, y);
                    let slope = l.mul(l.mul(p, rest), l.sub(one, alpha));
                    vectors[0] = l.mul_add(dx_y, rest, vectors[0]);
                    // In this order, because the square of a number may be infinite where its slope is 0.
                    let y_slope = l.mul(y, slope);
                    vectors[1] = l.mul_add(dx_y, y_slope, vectors[1]);
                    vectors[2] = l.mul_add(dx_y, slope, vectors[2]);
                    let straight = l.mul_add(alpha, rest, p);
                    l.mul_add(y_slope, gain, straight)
                }
            };
            let dy = l.mul(dx, slope);
            bias = l.add(bias, dy);
            l.store(&mut grads[v], dy);
        }
        let sums = [&mut *bias_sums].into_iter().chain(&mut *vector_sums);
        for (sums, sum) in sums.zip([bias, vectors[0], vectors[1], vectors[2]]) {
            let out = &mut sums.row_mut(0)[v];
            l.store(out, l.add(l.load(out), sum));
        }
    }
}
