//! How DIN's network is laid out, in global memory and in workgroup memory, and how a step is divided.

use std::ops::Range;

use crate::jagged::Batch;
use crate::ops::Din;

/// Candidates per workgroup.
pub(super) const TILE: usize = 4;
/// vec4s of units that workgroup memory holds.
const WORKGROUP_VEC4S: usize = 960;
/// The pairs of candidate and behaviour that a workgroup may process per step.
pub(super) const BEHAVIOURS: [usize; 4] = [32, 16, 8, 4];
/// The fewest behaviours per candidate when several candidates are scored in parallel: those of one thread.
const FEWEST_OF_ONE: usize = 8;
/// The cost of a step besides its pairs, in pairs: barriers, and lanes without a unit.
const STEP_COST: usize = 8;
/// Vectors that belong to four units besides their weights: bias, gain, shift, alpha, output weight.
const VECTORS: usize = 5;

/// Pairs per step, and the candidates scored in parallel: the shape whose steps cost least. The first of equals wins: more
/// pairs share each load of a weight, fewer candidates share each load of a behaviour.
fn shape_of(batch: &Batch, fitting: impl Iterator<Item = usize>) -> (usize, usize) {
    let shapes = fitting.flat_map(|pairs| [1, 2, TILE].map(|parallel| (pairs, parallel)));
    let shapes = shapes.filter(|&(pairs, parallel)| parallel == 1 || pairs / parallel >= FEWEST_OF_ONE);
    let cost = |&(pairs, parallel): &(usize, usize)| -> usize {
        let user = |(history, targets): (Range<usize>, Range<usize>)| {
            let (tiles, rest) = (targets.len() / TILE, targets.len() % TILE);
            let rounds = tiles * (TILE / parallel) + rest.div_ceil(parallel);
            history.len().div_ceil(pairs / parallel) * rounds * (pairs + STEP_COST)
        };
        batch.requests().map(user).sum()
    };
    shapes.min_by_key(cost).unwrap_or((4, 1))
}

/// How the network is laid out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Units of each hidden layer.
    pub(super) units: Vec<usize>,
    /// Inputs of each hidden layer.
    pub(super) inputs: Vec<usize>,
    /// vec4s of units of each layer; 0 for layers that the network does not have.
    pub(super) units4: [usize; Din::MAX_HIDDEN],
    /// The first block of weights of each layer.
    pub(super) first_block: [usize; Din::MAX_HIDDEN],
    /// The first block of the weights that are multiplied with the candidates, after those of the last layer.
    pub(super) first_query_block: usize,
    /// The number of blocks.
    pub(super) blocks: usize,
    /// Pairs per step.
    pub(super) behaviours: usize,
    /// Candidates that are scored in parallel.
    pub(super) parallel: usize,
    /// The start of the second layer in workgroup memory.
    pub(super) second_place: usize,
}

impl Layout {
    pub(super) fn new(width: usize, units: &[usize], batch: &Batch) -> Self {
        let mut units4 = [0; Din::MAX_HIDDEN];
        units4.iter_mut().zip(units).for_each(|(units4, units)| *units4 = units.div_ceil(4));
        let [first, second, third] = units4;
        // The last layer stores one number where the others store a vec4.
        let (before_second, needed) = match units.len() {
            1 => (0, first.div_ceil(4)),
            2 => (first, first + second.div_ceil(4)),
            _ => (first.max(third.div_ceil(4)), first.max(third.div_ceil(4)) + second),
        };
        let fitting = BEHAVIOURS.into_iter().filter(|&behaviours| behaviours * needed <= WORKGROUP_VEC4S);
        let (behaviours, parallel) = shape_of(batch, fitting);
        let width4 = width.div_ceil(4);
        // Two blocks per four inputs of the first layer: for the behaviour, and for its product with the candidate.
        let first_block = [0, 2 * first * width4, 2 * first * width4 + second * first];
        let first_query_block = first_block[2] + third * second;
        Self {
            units: units.to_vec(),
            inputs: std::iter::once(&width).chain(units).take(units.len()).copied().collect(),
            units4,
            first_block,
            first_query_block,
            blocks: first_query_block + first * width4,
            behaviours,
            parallel,
            second_place: before_second * behaviours,
        }
    }

    /// At least the iterations of a thread's loops in one step.
    pub(super) fn iterations_per_step(&self) -> usize {
        self.iterations_with(self.inputs[0])
    }

    /// The widest rows with at most so many iterations in a step, if a step has as many behaviours as now.
    pub(super) fn widest(&self, iterations: usize) -> usize {
        let mut widths = (0, self.inputs[0]);
        while widths.0 < widths.1 {
            let middle = (widths.0 + widths.1).div_ceil(2);
            match self.iterations_with(middle) <= iterations {
                true => widths.0 = middle,
                false => widths.1 = middle - 1,
            }
        }
        widths.0
    }

    /// As [`iterations_per_step`](Self::iterations_per_step), where the first layer has so many inputs.
    fn iterations_with(&self, inputs: usize) -> usize {
        let lanes = self.behaviours / if self.behaviours == 4 { 4 } else { 8 };
        let layer = |index: usize| {
            let jobs = (self.units4[index] * lanes).div_ceil(64);
            let inputs = if index == 0 { inputs } else { self.inputs[index] };
            jobs * (inputs.div_ceil(4) + 1)
        };
        let layers: usize = (0..self.units.len()).map(layer).sum();
        let last = self.units4[self.units.len() - 1];
        let rounds = TILE.div_ceil(self.parallel);
        // Softmax takes two walks over a candidate's scores; the weighted sums one, at most.
        rounds * (layers + last + 1) + 3 * self.behaviours + 8
    }

    /// Lanes of each candidate. A lane has 8 behaviours, or 4 of the smallest step.
    pub(super) fn candidate_lanes(&self) -> usize {
        self.behaviours / self.parallel / if self.behaviours == 4 { 4 } else { 8 }
    }

    /// The first vector of a layer.
    pub(super) fn first_vector(&self, layer: usize) -> usize {
        VECTORS * self.units4[..layer].iter().sum::<usize>()
    }

    /// vec4s of a prepared candidate: its contribution to the first layer, and the candidate.
    pub(super) fn target_vec4s(&self) -> usize {
        self.units4[0] + self.inputs[0].div_ceil(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    #[test]
    fn two_layers_fit_workgroup_memory() {
        let long = batch(1000, 4);
        let sizes = [1, 4, 10, 40, 80, 128, 200, 255, 256];
        for first in sizes {
            for second in sizes {
                for third in sizes {
                    for layers in 1..=3 {
                        let layout = Layout::new(64, &[first, second, third][..layers], &long);
                        let place = layout.second_place;
                        // What each layer stores: its units, or for the last layer its shares of the scores.
                        let size = |index: usize, units: usize| {
                            let whole = units.div_ceil(4) * layout.behaviours;
                            if index + 1 == layers { whole.div_ceil(4) } else { whole }
                        };
                        assert!(size(0, first) <= WORKGROUP_VEC4S);
                        if layers > 1 {
                            assert!(size(0, first) <= place && place + size(1, second) <= WORKGROUP_VEC4S);
                        }
                        if layers > 2 {
                            assert!(size(2, third) <= place);
                        }
                    }
                }
            }
        }
        assert_eq!(Layout::new(64, &[80, 40], &long).behaviours, 32);
        assert_eq!(Layout::new(64, &[256, 256, 256], &long).behaviours, 4);
    }

    fn batch(history: usize, targets: usize) -> Batch {
        let one = |rows| Jagged::from_lengths(&[rows]).unwrap();
        Batch::new(one(history), one(targets)).unwrap()
    }

    #[test]
    fn short_histories_fill_the_lanes() {
        let shape = |history, targets| shape_of(&batch(history, targets), BEHAVIOURS.into_iter());
        assert_eq!(shape(1024, 4), (32, 1));
        assert_eq!(shape(16, 4), (32, 2));
        assert_eq!(shape(8, 4), (32, 4));
        assert_eq!(shape(8, 1), (8, 1));
        assert_eq!(shape(20, 1), (32, 1));
    }
}
