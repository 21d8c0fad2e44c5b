//! Cases of DIN's local activation unit.

use longseq::*;
use rand::rngs::StdRng;

use super::cases::Work;
use super::compare::{Bound, U, additions, compare};
use super::data::{self, Data};
use super::guard::Guarded;
use super::{Calls, Case, Failure, Rules};
use crate::by_dtype;

/// A batch of DIN.
#[derive(Debug, Clone)]
pub struct DinCase {
    pub seed: u64,
    pub dtype: DType,
    pub data: Data,
    pub histories: Vec<usize>,
    pub targets: Vec<usize>,
    pub tail: usize,
    pub width: usize,
    pub hidden: Vec<usize>,
    pub activation: Kind,
    pub pooling: DinPooling,
}

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Relu,
    Sigmoid,
    PreluShared,
    Prelu,
    Dice,
}

impl Default for DinCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            width: 16,
            hidden: vec![36],
            activation: Kind::Sigmoid,
            pooling: DinPooling::Sum,
        }
    }
}

/// A trained network, on the host.
pub struct Network<T> {
    pub weights: Vec<Vec<T>>,
    pub biases: Vec<Vec<f32>>,
    /// `[gain, shift, alpha]` of each hidden layer.
    pub parameters: Vec<[Vec<f32>; 3]>,
    pub kind: Kind,
}

impl<T: Element> Network<T> {
    fn new(rng: &mut StdRng, width: usize, hidden: &[usize], kind: Kind) -> Self {
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
            DinLayer {
                weight: backend.view(&weights[i]),
                bias: backend.view(&biases[i]),
                activation: match self.kind {
                    Kind::Relu => Activation::Relu,
                    Kind::Sigmoid => Activation::Sigmoid,
                    Kind::Prelu | Kind::PreluShared => Activation::Prelu { alpha },
                    Kind::Dice => Activation::Dice { gain, shift, alpha },
                },
            }
        };
        let last = self.weights.len() - 1;
        let hidden: Vec<_> = (0..last).map(layer).collect();
        with(&hidden, backend.view(&weights[last]), backend.view(&biases[last]))
    }

    /// A bound on the error of the network's output in `f32`, for inputs of magnitude `max_input`.
    ///
    /// Every layer adds up to `inputs + 8` roundings (sum, bias, activation) of at most its magnitude `A`, the largest
    /// sum of magnitudes of a unit; the activations used here are at most 2-Lipschitz times (1 + the largest α or
    /// gain·A), and the layers behind pass the error on like everything else.
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

impl DinCase {
    pub fn op(&self) -> Din {
        Din::new(self.width).with_pooling(self.pooling)
    }

    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        let bytes = by_dtype!(self.dtype, T => op.bytes::<T>(&batch));
        Work { flops: op.flops(&batch, &self.hidden), bytes }
    }

    /// Targets, history and network.
    fn inputs<T: Element>(&self) -> (Vec<T>, Vec<T>, Network<T>) {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let targets = data::rows(&mut rng, self.data, batch.targets().rows(), self.width);
        let history = data::rows(&mut rng, self.data, batch.histories().rows(), self.width);
        (targets, history, Network::new(&mut rng, self.width, &self.hidden, self.activation))
    }

    fn run_as<B: Backend, T: Element>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Vec<u8>, Failure> {
        let (op, batch) = (self.op(), self.batch());
        let (targets, history, network) = self.inputs::<T>();
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (targets, history) = (backend.upload(&targets)?, backend.upload(&history)?);
        let used = batch.targets().total() * self.width;
        let mut out = Guarded::<B, T>::new(backend, used, self.tail * self.width)?;
        network.with_uploaded(backend, |hidden, output_weight, output_bias| {
            let (targets, history) = (backend.view(&targets), backend.view(&history));
            let inputs = DinInputs { targets, history, hidden, output_weight, output_bias };
            calls.make("din", &mut || {
                Ok(backend.din_into(&op, &device_batch, inputs, out.view_mut(backend)?)?)
            })
        })?;
        Ok(bytemuck::cast_slice(&out.finish(backend, "out")?).to_vec())
    }

    fn compare_as<T: Element>(&self, output: &[u8], rules: Rules) -> Result<(), Failure> {
        let (op, batch) = (self.op(), self.batch());
        let (targets, history, network) = self.inputs::<T>();
        let exact = network.with_uploaded(&Cpu::new(), |hidden, output_weight, output_bias| {
            let inputs = DinInputs {
                targets: Host::view(&targets),
                history: Host::view(&history),
                hidden,
                output_weight,
                output_bias,
            };
            Ok(reference::din(&op, &batch, &inputs)?)
        })?;
        let (max_q, max_s) = (data::max_abs(&targets), data::max_abs(&history));
        let max_input = (max_q + max_s).max(max_q * max_s);
        // What the layers make of the magnitudes bounds the scores, up to the factor U in the error.
        let score_error = network.error(max_input);
        let max_score = score_error / (8.0 * U);
        let longest = batch.histories().max_length();
        let sum_error = (additions(longest) + 8.0) * U;
        // A term of the sum loses a value, its product with the weight, or the sum so far.
        let lost = match (rules.subnormal, self.pooling) {
            (true, _) => 0.0,
            (false, DinPooling::Softmax) => 3.0 * longest as f64 * f64::from(f32::MIN_POSITIVE),
            (false, _) => (max_score + 2.0) * longest as f64 * f64::from(f32::MIN_POSITIVE),
        };
        let absolute = match self.pooling {
            // Exact, however far off the scores may be: their bound may be infinite.
            _ if max_s == 0.0 => 0.0,
            DinPooling::Softmax => max_s * ((2.0 * score_error).exp_m1() + sum_error),
            _ => longest as f64 * max_s * (score_error + sum_error * max_score),
        };
        let got: Vec<T> = bytemuck::pod_collect_to_vec(output);
        let bound = Bound::uniform(absolute + lost, self.data == Data::Normal);
        compare("out", &got, &exact[..batch.targets().total() * self.width], &bound, rules)
    }
}

impl Case for DinCase {
    type Output = Vec<u8>;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Vec<u8>, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &Vec<u8>, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
