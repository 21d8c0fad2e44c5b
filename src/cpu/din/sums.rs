//! Sums over pairs: the gradients of the network's weights.

use crate::cpu::din::layers::Layers;
use crate::cpu::vector::{Kernel, LANES, Lanes, Matrix, NarrowRows, store};
use crate::element::Element;
use crate::host::Host;
use crate::ops::{DinGradients, DinLayerGradients};

/// Which gradients a call asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) targets: bool,
    pub(super) history: bool,
    /// The weight of each hidden layer.
    pub(super) weights: [bool; 3],
    pub(super) output: bool,
    /// The first layer whose numbers before the activation need a gradient; the number of layers if none does.
    pub(super) deepest: usize,
}

impl Wanted {
    /// What is asked for, of a network with this number of hidden layers; `None` if nothing is.
    pub(super) fn new<G: Element>(grads: &DinGradients<'_, Host, G>, layers: usize) -> Option<Self> {
        let asks = |layer: &DinLayerGradients<'_, Host, G>| {
            let vectors = [&layer.bias, &layer.alpha, &layer.gain, &layer.shift];
            layer.weight.is_some() || vectors.iter().any(|vector| vector.is_some())
        };
        let (targets, history) = (grads.targets.is_some(), grads.history.is_some());
        let output = grads.output_weight.is_some() || grads.output_bias.is_some();
        let deepest = match grads.hidden.iter().position(asks) {
            _ if targets || history => 0,
            first => first.unwrap_or(layers),
        };
        let weight = |i: usize| grads.hidden.get(i).is_some_and(|layer| layer.weight.is_some());
        let wanted = Self { targets, history, weights: [0, 1, 2].map(weight), output, deepest };
        (output || deepest < layers).then_some(wanted)
    }

    /// Whether a candidate's `Σ_l dy ⊗ s_l` of the first layer is needed.
    pub(super) fn outer(&self) -> bool {
        self.targets || self.weights[0]
    }
}

/// The gradients of one hidden layer's vectors, and of its weight if it is not the first.
pub(super) struct LayerSums {
    pub(super) weight: Matrix,
    pub(super) bias: Matrix,
    /// Of Dice and PReLU: `alpha`, `gain`, `shift`, with one number for each unit.
    pub(super) vectors: [Matrix; 3],
}

/// Sums over pairs of the gradients of the weights.
pub(super) struct Sums {
    /// Of the folded first layer's blocks, with `G_m = Σ_l dy ⊗ s_l`: `Σ_m (Σ_l dy) ⊗ q_m`, `Σ_m G_m` and `Σ_m G_m·diag(q_m)`.
    pub(super) per_target: Matrix,
    pub(super) per_behaviour: Matrix,
    pub(super) per_pair: Matrix,
    pub(super) layers: Vec<LayerSums>,
    pub(super) output_weight: Matrix,
    pub(super) output_bias: Matrix,
}

impl Sums {
    /// Zeros. What is not wanted takes no space.
    pub(super) fn new(layers: &Layers, wanted: &Wanted, width: usize) -> Self {
        let matrix = |is_wanted: bool, rows: usize, width: usize| {
            if is_wanted { Matrix::zeros(rows, width) } else { Matrix::default() }
        };
        let first = || matrix(wanted.weights[0], layers.units[0], width);
        let layer = |(i, &units): (usize, &usize)| LayerSums {
            weight: match i {
                0 => Matrix::default(),
                _ => matrix(wanted.weights[i], units, layers.units[i - 1]),
            },
            bias: matrix(i >= wanted.deepest, 1, units),
            vectors: [0; 3].map(|_| matrix(i >= wanted.deepest, 1, units)),
        };
        Self {
            per_target: first(),
            per_behaviour: first(),
            per_pair: first(),
            layers: layers.units.iter().enumerate().map(layer).collect(),
            output_weight: matrix(wanted.output, 1, layers.units[layers.units.len() - 1]),
            output_bias: matrix(wanted.output, 1, 1),
        }
    }

    /// Adds the sums of later pairs, and sets them to zero.
    pub(super) fn take(&mut self, later: &mut Self) {
        for (sums, later) in self.matrices().into_iter().zip(later.matrices()) {
            let numbers = sums.data_mut().as_flattened_mut().iter_mut();
            for (sum, later) in numbers.zip(later.data_mut().as_flattened_mut()) {
                *sum += std::mem::take(later);
            }
        }
    }

    fn matrices(&mut self) -> Vec<&mut Matrix> {
        let mut all = vec![&mut self.per_target, &mut self.per_behaviour, &mut self.per_pair];
        for layer in &mut self.layers {
            all.extend([&mut layer.weight, &mut layer.bias]);
            all.extend(&mut layer.vectors);
        }
        all.extend([&mut self.output_weight, &mut self.output_bias]);
        all
    }

    /// Writes the gradients that are asked for.
    pub(super) fn write<G: Element>(&self, width: usize, grads: DinGradients<'_, Host, G>) {
        for (i, (grads, sums)) in grads.hidden.iter_mut().zip(&self.layers).enumerate() {
            match &mut grads.weight {
                Some(weight) if i == 0 => self.write_first(width, weight),
                Some(weight) => write_all(&sums.weight, weight),
                None => {}
            }
            if let Some(bias) = &mut grads.bias {
                write_all(&sums.bias, bias);
            }
            for (grad, sums) in
                [&mut grads.alpha, &mut grads.gain, &mut grads.shift].into_iter().zip(&sums.vectors)
            {
                if let Some(grad) = grad {
                    write_all(sums, grad);
                }
            }
        }
        if let Some(mut weight) = grads.output_weight {
            write_all(&self.output_weight, &mut weight);
        }
        if let Some(mut bias) = grads.output_bias {
            bias[0] = self.output_bias.row(0)[0][0];
        }
    }

    /// The first layer's weight, `[h, 4d]`, whose third block takes `q − s`.
    fn write_first<G: Element>(&self, width: usize, out: &mut [G]) {
        for (unit, out) in out.chunks_exact_mut(4 * width).enumerate() {
            let row = |matrix: &Matrix, j: usize| matrix.row(unit).as_flattened()[j];
            for j in 0..width {
                let (target, behaviour) = (row(&self.per_target, j), row(&self.per_behaviour, j));
                out[j] = G::from_f32(target);
                out[width + j] = G::from_f32(behaviour);
                out[2 * width + j] = G::from_f32(target - behaviour);
                out[3 * width + j] = G::from_f32(row(&self.per_pair, j));
            }
        }
    }
}

/// Blocks whose sums are added in a chain before they are added to the others.
const CHAIN: usize = 128;

/// The sums of a piece. Those of some blocks are added up first, so that chains of additions stay short.
pub(super) struct ChainedSums {
    all: Sums,
    recent: Sums,
    /// The blocks of `recent`.
    blocks: usize,
}

impl ChainedSums {
    pub(super) fn new(zeros: impl Fn() -> Sums) -> Self {
        Self { all: zeros(), recent: zeros(), blocks: 0 }
    }

    /// Where the next `blocks` blocks are added.
    pub(super) fn next(&mut self, blocks: usize) -> &mut Sums {
        if self.blocks >= CHAIN {
            self.all.take(&mut self.recent);
            self.blocks = 0;
        }
        self.blocks += blocks;
        &mut self.recent
    }

    pub(super) fn finish(mut self) -> Sums {
        self.all.take(&mut self.recent);
        self.all
    }
}

/// Writes all rows of a matrix.
fn write_all<G: Element>(rows: &Matrix, out: &mut [G]) {
    let width = out.len() / rows.rows().max(1);
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        store(out, &rows.row(row).as_flattened()[..width]);
    }
}

/// Writes the first `count` rows of `width` numbers, from row `first` of `out` on.
pub(super) struct WriteRows<'a, 'o> {
    pub(super) rows: &'a Matrix,
    pub(super) count: usize,
    pub(super) width: usize,
    pub(super) out: &'a mut NarrowRows<'o>,
    pub(super) first: usize,
}

impl Kernel for WriteRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for row in 0..self.count {
            let numbers = &self.rows.row(row).as_flattened()[..self.width];
            self.out.write(l, (self.first + row) * self.width, numbers);
        }
    }
}

/// Adds up one row of a matrix of one row into its first number: what units share.
pub(super) fn add_up(vector: &mut Matrix, units: usize) {
    let numbers = vector.row_mut(0).as_flattened_mut();
    // In vectors first, then the vectors: fewer roundings in a chain.
    let parts: Vec<f32> = numbers[..units].chunks(LANES).map(|part| part.iter().sum()).collect();
    numbers[0] = parts.iter().sum();
}
