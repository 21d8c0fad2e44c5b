//! Cases of DIN's local activation unit.

mod backward;
mod backward_large;
pub mod backward_tests;
mod bounds;
mod extremes;
mod network;
mod statistics;
pub mod tests;

pub use backward::DinBackwardCase;
pub use network::{Kind, Network};
pub use statistics::{StatisticsBits, StatisticsCase};

use longseq::*;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
out[m] = Σ_l w[m, l] · s_l                   over the history l of candidate m's user
w[m, l] = MLP([q_m, s_l, q_m − s_l, q_m · s_l]), or its softmax over l
MLP: 1 to 3 hidden layers with ReLU, sigmoid, PReLU or Dice, and a linear output";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
da[m, l] = dw[m, l], or w · (dw − Σ_i w · dw) with softmax;  dw[m, l] = ⟨dout[m], s_l⟩
back through the MLP: dy = f′(y) · dx,  dW = Σ dy ⊗ x,  db = Σ dy over all pairs,  dx = Wᵀ · dy
dq[m] = Σ_l (dx₁ + dx₃ + dx₄ · s_l),  ds_l = Σ_m (w[m, l] · dout[m] + dx₂ − dx₃ + dx₄ · q_m)
statistics of a layer: mean and Σ (y − mean)² of y over all pairs";

/// A batch of DIN.
#[derive(Debug, Clone)]
pub struct DinCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// What the numbers look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The width of a row.
    pub width: usize,
    /// The units of the hidden layers.
    pub hidden: Vec<usize>,
    /// The activation of the hidden layers.
    pub activation: Kind,
    /// How the scores weigh the history.
    pub pooling: DinPooling,
    /// A factor on the network's weights: with 0, every score is the output's bias.
    pub weights: f32,
    /// The output's bias, if it is not a normal number.
    pub output_bias: Option<f32>,
    /// What the numbers look like in the history; `None`: as `data`.
    pub history_data: Option<Data>,
    /// Numbers put into the first column of a row.
    pub puts: Vec<(Place, usize, f32)>,
}

/// An input of DIN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// A candidate's row.
    Target,
    /// A behaviour's row.
    History,
    /// The weights of a unit of the first layer.
    Weight,
    /// The bias of a unit of the first layer.
    Bias,
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
            weights: 1.0,
            output_bias: None,
            history_data: None,
            puts: Vec::new(),
        }
    }
}

impl DinCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        crate::data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> Din {
        Din::new(self.width).with_pooling(self.pooling)
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        let bytes = by_dtype!(self.dtype, T => op.bytes::<T>(&batch));
        Work { flops: op.flops(&batch, &self.hidden), bytes }
    }

    /// Targets, history and network.
    fn inputs<T: Element>(&self) -> (Vec<T>, Vec<T>, Network<T>) {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let history_data = self.history_data.unwrap_or(self.data);
        let mut targets = data::rows(&mut rng, self.data, batch.targets().rows(), self.width);
        let mut history = data::rows(&mut rng, history_data, batch.histories().rows(), self.width);
        let mut network: Network<T> = Network::new(&mut rng, self.width, &self.hidden, self.activation);
        if self.weights != 1.0 {
            let weights = network.weights.iter_mut().flatten();
            weights.for_each(|weight| *weight = T::from_f32(self.weights * weight.to_f32()));
        }
        if let Some(bias) = self.output_bias {
            network.biases[self.hidden.len()][0] = bias;
        }
        for &(place, row, number) in &self.puts {
            match place {
                Place::Target => targets[row * self.width] = T::from_f32(number),
                Place::History => history[row * self.width] = T::from_f32(number),
                Place::Weight => network.weights[0][row * 4 * self.width] = T::from_f32(number),
                Place::Bias => network.biases[0][row] = number,
            }
        }
        (targets, history, network)
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
            let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
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
            let inputs = DinInputs::new(
                Host::view(&targets),
                Host::view(&history),
                hidden,
                output_weight,
                output_bias,
            );
            Ok(reference::din(&op, &batch, &inputs)?)
        })?;
        let (max_q, max_s) = (data::max_abs(&targets), data::max_abs(&history));
        let max_input = (max_q + max_s).max(max_q * max_s);
        // The error without its factor U bounds the magnitude of the scores.
        let score_error = network.error(max_input);
        let max_score = score_error / (8.0 * U);
        let longest = batch.histories().max_length();
        let sum_error = (additions(longest) + 8.0) * U;
        // Flushed to zero: a value, its product with the weight, or the sum so far.
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
        let plain = self.data == Data::Normal && self.history_data.is_none() && self.puts.is_empty();
        let bound = Bound::uniform(absolute + lost, plain);
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
