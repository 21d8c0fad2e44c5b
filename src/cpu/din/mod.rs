//! DIN on the CPU, with the first layer folded:
//! `W₁x = (W_q + W_d)·q + (W_k − W_d)·s + (W_p·diag(q))·s`. Only the last product remains per pair, a quarter of the
//! multiplications of the concatenation.
//!
//! Lanes are behaviours: a block of the history is transposed once for all candidates of a piece, and every layer of
//! a candidate's network is a product with sixteen behaviours at a time, which stay in the L1 cache.

mod backward;
mod block;
mod cut;
mod layers;
mod rows;
mod softmax;
mod span;
mod statistics;
mod sums;

use crate::cpu::Cpu;
use crate::cpu::din::rows::WideInputs;
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{
    Instructions, Kernel, LANES, Lanes, NarrowRows, Row, dot_lanes, product, sigmoid, transpose,
    with_default_floats,
};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{View, ViewMut};
use crate::ops::{Activation, Din, DinGradients, DinInputs, DinOps, DinPooling, DinStatistics, Weighting};
use crate::plan::Plan;

impl DinOps for Cpu {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| din(self.instructions, op, batch, &inputs, out))
    }

    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grads: DinGradients<'_, Host, G>,
    ) -> Result<()> {
        with_default_floats(|| backward::din_backward(self.instructions, op, batch, &inputs, grad_out, grads))
    }

    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        layer: usize,
        out: DinStatistics<'_, Host>,
    ) -> Result<()> {
        with_default_floats(|| statistics::din_statistics(self.instructions, op, batch, &inputs, layer, out))
    }
}

/// Behaviours per block: a candidate's weights are read from the L2 cache once per block.
const BLOCK: usize = 128;

/// Candidates per tile: their folded weights fit into the L2 cache.
const CANDIDATES: usize = LANES;

/// The step of the plan: a piece has at least a few times this many behaviours.
const STEP: usize = 32;

/// The network's weights as `f32`, with the first layer folded.
struct Network<'a> {
    /// `W_q + W_d`, `W_k − W_d` and `W_p`, each `[h, d]`.
    per_target: Vec<f32>,
    per_behaviour: Vec<f32>,
    per_pair: Vec<f32>,
    /// The weights of the layers after the first, then of the output.
    later: Vec<Vec<f32>>,
    biases: Vec<&'a [f32]>,
    activations: Vec<Activation<&'a [f32]>>,
    output_bias: f32,
}

pub(super) fn din<T: Element>(
    instructions: Instructions,
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    op.check(batch, inputs)?;
    op.check_output(batch, out.len())?;
    let network = fold(op, inputs);
    let plan = pieces::cut(batch, CANDIDATES, STEP);
    let rows = || plan.tiles.iter().map(|tile| tile.rows);
    let out = NarrowRows::new(out.into_slice()).split(rows(), op.width);
    let inputs = WideInputs::new(inputs, op.width);
    pool(instructions, op.pooling, (&plan, inputs), &network, rows().zip(out).collect());
    Ok(())
}

/// [`din`], whatever is stored; `outputs` by tile, with the number of their rows.
fn pool(
    instructions: Instructions,
    pooling: DinPooling,
    (plan, inputs): (&Plan, WideInputs<'_>),
    network: &Network<'_>,
    outputs: Vec<(usize, NarrowRows<'_>)>,
) {
    pieces::run(
        plan,
        outputs,
        |piece| instructions.run(ScoreAndPool { pooling, inputs, network, piece }),
        |all, next| instructions.run(Combine { all, next }),
        |pooling, (count, out)| instructions.run(Finish { pooling, count, out }),
    );
}

fn fold<'a, T: Element>(op: &Din, inputs: &DinInputs<'a, Host, T>) -> Network<'a> {
    let d = op.width;
    let widened = |weight: View<'_, Host, T>| weight.iter().map(|value| value.to_f32()).collect::<Vec<f32>>();
    let first = widened(inputs.hidden[0].weight);
    let fold = |weight: &dyn Fn(&[f32], usize) -> f32| -> Vec<f32> {
        first.chunks_exact(4 * d).flat_map(|row| (0..d).map(move |j| weight(row, j))).collect()
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

/// One piece: the scores of its candidates, and the weighted sums of its behaviours.
struct ScoreAndPool<'a> {
    pooling: DinPooling,
    inputs: WideInputs<'a>,
    network: &'a Network<'a>,
    piece: PieceRows,
}

impl Kernel for ScoreAndPool<'_> {
    type Output = TilePooling;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> TilePooling {
        let Self { pooling, inputs, network, piece } = self;
        let d = inputs.width;
        let weighting = match pooling {
            DinPooling::Sum => Weighting::Identity,
            DinPooling::Softmax => Weighting::Softmax,
        };
        let (mut target_scratch, mut history_scratch) = (Vec::new(), Vec::new());
        let targets = inputs.targets.widen(l, inputs.elements(&piece.targets), &mut target_scratch);
        // Not collected from a closure, which would run without vector instructions.
        let mut candidates = Vec::with_capacity(piece.targets.len());
        for q in targets.chunks_exact(d) {
            candidates.push(Candidate::new(l, network, q));
        }
        let mut pooling = TilePooling::new(weighting, candidates.len(), d);
        let mut block = Block::new(network, d);
        let (mut scores, mut weights) = ([[0.0; LANES]; BLOCK], [[0.0; LANES]; BLOCK]);
        for start in piece.history.clone().step_by(BLOCK) {
            let rows = start..piece.history.end.min(start + BLOCK);
            let history = inputs.history.widen(l, inputs.elements(&rows), &mut history_scratch);
            block.load(l, network, history);
            for (lane, candidate) in candidates.iter().enumerate() {
                block.score(l, network, candidate, |l, score| scores[l][lane] = score);
            }
            pooling.add(l, &scores[..rows.len()], &mut weights[..rows.len()], history, d);
        }
        pooling
    }
}

/// The terms of the folded first layer that depend on one candidate.
struct Candidate {
    /// `(W_q + W_d)·q + b₁`, `[h]`.
    per_target: Vec<f32>,
    /// `W_p·diag(q)`, `[h, d]`.
    per_pair: Vec<f32>,
}

impl Candidate {
    #[inline(always)]
    fn new<L: Lanes>(l: L, network: &Network<'_>, q: &[f32]) -> Self {
        let (mut per_target, mut per_pair) = (Vec::new(), Vec::with_capacity(network.per_pair.len()));
        for (row, bias) in network.per_target.chunks_exact(q.len()).zip(network.biases[0]) {
            per_target.push(dot_lanes(l, row, q) + bias);
        }
        for row in network.per_pair.chunks_exact(q.len()) {
            per_pair.extend(row.iter().zip(q).map(|(w, q)| w * q));
        }
        Self { per_target, per_pair }
    }
}

/// A block of the history, in groups of sixteen behaviours.
struct Block {
    /// The number of behaviours.
    length: usize,
    /// For each group of sixteen behaviours: their rows `[d]`, and `(W_k − W_d)·s`, `[h]`.
    behaviours: Vec<(Vec<Row>, Vec<Row>)>,
    /// Scratch for the units of a layer and of the next one.
    layers: [Vec<Row>; 2],
}

impl Block {
    fn new(network: &Network<'_>, width: usize) -> Self {
        let scratch = |length: usize| vec![[0.0; LANES]; length];
        let widest = network.biases.iter().map(|bias| bias.len()).max().unwrap_or(0);
        let units = network.biases[0].len();
        let behaviours = (0..BLOCK / LANES).map(|_| (scratch(width), scratch(units))).collect();
        Self { length: 0, behaviours, layers: [scratch(widest), scratch(widest)] }
    }

    #[inline(always)]
    fn load<L: Lanes>(&mut self, l: L, network: &Network<'_>, history: &[f32]) {
        let d = self.behaviours[0].0.len();
        self.length = history.len() / d;
        for (rows, (behaviours, units)) in history.chunks(LANES * d).zip(&mut self.behaviours) {
            transpose(rows, d, rows.len() / d, behaviours);
            product(l, &network.per_behaviour, d, units.len(), behaviours, |i, sum| {
                l.store(&mut units[i], sum);
            });
        }
    }

    /// Calls `each` with the index of every behaviour of the block and the candidate's score for it.
    #[inline(always)]
    fn score<L: Lanes>(
        &mut self,
        l: L,
        network: &Network<'_>,
        candidate: &Candidate,
        mut each: impl FnMut(usize, f32),
    ) {
        let [units, next] = &mut self.layers;
        for (chunk, (behaviours, per_behaviour)) in
            self.behaviours.iter().enumerate().take(self.length.div_ceil(LANES))
        {
            let mut width = per_behaviour.len();
            product(l, &candidate.per_pair, behaviours.len(), width, behaviours, |i, sum| {
                let constant = l.add(l.splat(candidate.per_target[i]), l.load(&per_behaviour[i]));
                l.store(&mut units[i], l.add(sum, constant));
            });
            activate(l, &network.activations[0], &mut units[..width]);
            for (layer, (bias, activation)) in
                network.biases.iter().zip(&network.activations).skip(1).enumerate()
            {
                product(l, &network.later[layer], width, bias.len(), &units[..width], |i, sum| {
                    l.store(&mut next[i], l.add(sum, l.splat(bias[i])));
                });
                width = bias.len();
                activate(l, activation, &mut next[..width]);
                std::mem::swap(units, next);
            }
            let mut score = l.splat(network.output_bias);
            for (weight, unit) in network.later[network.later.len() - 1].iter().zip(&units[..width]) {
                score = l.mul_add(l.splat(*weight), l.load(unit), score);
            }
            let mut row = [0.0; LANES];
            l.store(&mut row, score);
            let first = chunk * LANES;
            for (i, score) in row.into_iter().enumerate().take(self.length - first) {
                each(first + i, score);
            }
        }
    }
}

#[inline(always)]
fn activate<L: Lanes>(l: L, activation: &Activation<&[f32]>, units: &mut [Row]) {
    let zero = l.splat(0.0);
    match activation {
        Activation::Relu => {
            for unit in units {
                let x = l.load(unit);
                // Not `max`, which may turn NaN into 0.
                l.store(unit, l.if_less(x, zero, zero, x));
            }
        }
        Activation::Sigmoid => {
            for unit in units {
                l.store(unit, sigmoid(l, l.load(unit)));
            }
        }
        Activation::Prelu { alpha } => {
            for (unit, alpha) in units.iter_mut().zip(alpha.iter().cycle()) {
                let x = l.load(unit);
                l.store(unit, l.if_less(x, zero, l.mul(l.splat(*alpha), x), x));
            }
        }
        Activation::Dice { gain, shift, alpha } => {
            for (i, unit) in units.iter_mut().enumerate() {
                let (x, alpha) = (l.load(unit), l.splat(alpha[i]));
                let p = sigmoid(l, l.mul_add(l.splat(gain[i]), x, l.splat(shift[i])));
                let rest = l.mul(alpha, l.sub(l.splat(1.0), p));
                l.store(unit, l.mul(x, l.add(p, rest)));
            }
        }
    }
}

/// Adds the sums of the next piece of the tile.
struct Combine<'a> {
    all: &'a mut TilePooling,
    next: TilePooling,
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        self.all.combine(l, self.next);
    }
}

/// Writes the rows of a tile.
struct Finish<'a> {
    pooling: TilePooling,
    /// The number of rows.
    count: usize,
    /// `[count, d]`.
    out: NarrowRows<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        self.pooling.finish(l);
        let sums = self.pooling.weighted_values();
        let mut numbers = vec![0.0; sums.len()];
        for lane in 0..self.count {
            numbers.iter_mut().zip(sums).for_each(|(number, sums)| *number = sums[lane]);
            self.out.write(l, lane * sums.len(), &numbers);
        }
    }
}
