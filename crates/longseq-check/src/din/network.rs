//! A network of DIN's activation unit, on the host.

use longseq::*;
use rand::rngs::StdRng;

use crate::case::Failure;
use crate::compare::U;
use crate::data::{self, Data};

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// ReLU.
    Relu,
    /// The logistic function.
    Sigmoid,
    /// PReLU with one `α` for all units.
    PreluShared,
    /// PReLU with an `α` per unit.
    Prelu,
    /// Dice, folded for inference.
    Dice,
}

/// A trained network, on the host.
pub struct Network<T> {
    /// `[units, inputs]` of each layer, the output layer last.
    pub weights: Vec<Vec<T>>,
    /// The biases of each layer.
    pub biases: Vec<Vec<f32>>,
    /// `[gain, shift, alpha]` of each hidden layer.
    pub parameters: Vec<[Vec<f32>; 3]>,
    /// The activation.
    pub kind: Kind,
}

impl<T: Element> Network<T> {
    pub(super) fn new(rng: &mut StdRng, width: usize, hidden: &[usize], kind: Kind) -> Self {
        let mut network = Self { weights: Vec::new(), biases: Vec::new(), parameters: Vec::new(), kind };
        let mut inputs = 4 * width;
        for &units in hidden.iter().chain(&[1]) {
            let scale = 1.0 / (inputs as f32).sqrt();
            let weight: Vec<f32> = data::rows(rng, Data::Normal, units, inputs);
            network.weights.push(weight.into_iter().map(|w| T::from_f32(w * scale)).collect());
            network.biases.push(data::rows(rng, Data::Normal, 1, units));
            let alpha = if kind == Kind::PreluShared { 1 } else { units };
            network
                .parameters
                .push([units, units, alpha].map(|count| data::rows(rng, Data::Normal, 1, count)));
            inputs = units;
        }
        network.parameters.pop();
        network
    }

    /// Runs `with` on the network uploaded to a backend.
    pub fn with_uploaded<B: Backend, R>(
        &self,
        backend: &B,
        with: impl FnOnce(
            &[DinLayer<'_, B::Memory, T>],
            View<'_, B::Memory, T>,
            View<'_, B::Memory, f32>,
        ) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let weights = self.weights.iter().map(|weight| backend.upload(weight)).collect::<Result<Vec<_>>>()?;
        let biases = self.biases.iter().map(|bias| backend.upload(bias)).collect::<Result<Vec<_>>>()?;
        let mut parameters = Vec::new();
        for [gain, shift, alpha] in &self.parameters {
            parameters.push((backend.upload(gain)?, backend.upload(shift)?, backend.upload(alpha)?));
        }
        let layer = |i: usize| {
            let (gain, shift, alpha) = &parameters[i];
            let (gain, shift, alpha) = (backend.view(gain), backend.view(shift), backend.view(alpha));
            DinLayer::new(
                backend.view(&weights[i]),
                backend.view(&biases[i]),
                match self.kind {
                    Kind::Relu => Activation::Relu,
                    Kind::Sigmoid => Activation::Sigmoid,
                    Kind::Prelu | Kind::PreluShared => Activation::Prelu { alpha },
                    Kind::Dice => Activation::Dice { gain, shift, alpha },
                },
            )
        };
        let last = self.weights.len() - 1;
        let hidden: Vec<_> = (0..last).map(layer).collect();
        with(&hidden, backend.view(&weights[last]), backend.view(&biases[last]))
    }

    /// A bound on the error of the network's output in `f32`, for inputs of magnitude `max_input`.
    ///
    /// Every layer adds up to `inputs + 8` roundings (sum, bias, activation) of at most its magnitude `A`, the largest
    /// sum of magnitudes of a unit; the activations used here are at most 2-Lipschitz times (1 + the largest α or
    /// gain·A), and the following layers propagate the error.
    pub fn error(&self, max_input: f64) -> f64 {
        let (mut magnitude, mut error) = (max_input, 0.0);
        for (i, (weight, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            let inputs = weight.len() / bias.len();
            let row_sum = |row: &[T]| row.iter().map(|w| f64::from(w.to_f32()).abs()).sum::<f64>();
            let norm = weight.chunks(inputs).map(row_sum).fold(0.0, f64::max);
            magnitude = norm * magnitude + data::max_abs(bias);
            error = norm * error + (inputs as f64 + 8.0) * U * magnitude;
            if let Some([gain, _, alpha]) = self.parameters.get(i) {
                let slope = match self.kind {
                    Kind::Relu => 1.0,
                    Kind::Sigmoid => 0.25,
                    Kind::Prelu | Kind::PreluShared => data::max_abs(alpha).max(1.0),
                    Kind::Dice => {
                        (1.0 + data::max_abs(alpha)) * (1.0 + data::max_abs(gain) * magnitude / 4.0)
                    }
                };
                (error, magnitude) = (error * slope, (magnitude * slope).max(1.0));
            }
        }
        error
    }
}
