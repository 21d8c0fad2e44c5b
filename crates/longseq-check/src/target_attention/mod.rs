//! Cases of target attention and of merging partial results.

mod backward;
pub mod backward_tests;
mod extremes;
mod merge;
mod merge_backward;
mod qin;
pub mod tests;

pub use backward::AttentionBackwardCase;
pub use merge::MergeCase;
pub use merge_backward::MergeBackwardCase;

use longseq::*;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
out[m, h] = Σ_l w[m, h, l] · V[l, h·H_kv/H]            over the history l of candidate m's user
s[m, h, l] = scale · ⟨Q[m, h], K[l, h·H_kv/H]⟩ + bias[l, h]
w = softmax_l(s), relu(s), silu(s) / divisor (a number or L), or s;  lse[m, h] = ln Σ_l exp(s[m, h, l])
merge: out = Σ_i exp(lse_i − lse) · out_i,  lse = ln Σ_i exp(lse_i)";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
dV[l] = Σ_m w[m, l] · dout[m]            dK[l] = scale · Σ_m ds[m, l] · Q[m]            dQ[m] = scale · Σ_l ds[m, l] · K[l]
ds = w · (⟨dout, V⟩ − ⟨dout, out⟩ + dlse) with softmax, w′(s) · ⟨dout, V⟩ otherwise;  dbias[l] = Σ_m ds[m, l]
merge: dout_i = w_i · dout,  dlse_i = w_i · (⟨dout, out_i⟩ − ⟨dout, out⟩ + dlse),  w_i = exp(lse_i − lse)";

/// A batch of target attention, with `lse` for softmax.
#[derive(Debug, Clone)]
pub struct AttentionCase {
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
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// The width of a row.
    pub width: usize,
    /// `None`: the keys are the values.
    pub value_width: Option<usize>,
    /// The factor on the dot products; `None` for the default.
    pub scale: Option<f32>,
    /// How scores become weights.
    pub weighting: Weighting,
    /// What is added to the scores.
    pub bias: Bias,
    /// Put a NaN into this candidate's query.
    pub nan: Option<usize>,
    /// What the values hold of the behaviours that `Bias::Mask` removes.
    pub removed: Option<f32>,
    /// What the numbers look like in queries, keys and values; `None`: as `data`.
    pub inputs: [Option<Data>; 3],
    /// Numbers put into the first column of a row.
    pub puts: Vec<(Place, usize, f32)>,
}

/// An input of target attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// A candidate's query.
    Query,
    /// A behaviour's key.
    Key,
    /// A behaviour's value.
    Value,
    /// A behaviour's bias.
    Bias,
}

/// What is added to the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bias {
    /// Nothing.
    None,
    /// Normal numbers.
    Normal,
    /// Removes every third behaviour, and all of the first user's.
    Mask,
    /// As `Mask`, with another number than `-∞`.
    MaskWith(f32),
    /// The same number for all.
    All(f32),
    /// A number and its negative in turn.
    Alternate(f32),
}

/// Of biases of at least this magnitude, the rest of a score is less than a rounding error.
const DOMINANT: f32 = 1e30;

impl Default for AttentionCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            heads: 1,
            kv_heads: 1,
            width: 16,
            value_width: Some(16),
            scale: None,
            weighting: Weighting::Softmax,
            bias: Bias::None,
            nan: None,
            removed: None,
            inputs: [None; 3],
            puts: Vec::new(),
        }
    }
}

struct Inputs<T> {
    queries: Vec<T>,
    keys: Vec<T>,
    values: Option<Vec<T>>,
    bias: Option<Vec<f32>>,
}

impl AttentionCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        crate::data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> TargetAttention {
        let op = TargetAttention::new(self.width)
            .with_heads(self.heads, self.kv_heads)
            .with_value_width(self.value_width.unwrap_or(self.width))
            .with_weighting(self.weighting);
        self.scale.map_or(op, |scale| op.with_scale(scale))
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        let bytes = by_dtype!(self.dtype, T => op.bytes::<T>(&batch, self.value_width.is_none()));
        Work { flops: op.flops(&batch), bytes }
    }

    fn inputs<T: Element>(&self) -> Inputs<T> {
        let (op, batch, mut rng) = (self.op(), self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let [query_data, key_data, value_data] = self.inputs.map(|data| data.unwrap_or(self.data));
        let mut queries = data::rows(&mut rng, query_data, m, op.heads * op.width);
        if let Some(candidate) = self.nan {
            queries[candidate * op.heads * op.width] = T::from_f32(f32::NAN);
        }
        let mut keys = data::rows(&mut rng, key_data, n, op.kv_heads * op.width);
        let is_removed = |l: usize| l.is_multiple_of(3) || batch.histories().range(0).contains(&l);
        let mut values = self.value_width.map(|width| {
            let mut values: Vec<T> = data::rows(&mut rng, value_data, n, op.kv_heads * width);
            if let Some(held) = self.removed {
                let rows = values.chunks_mut(op.kv_heads * width).enumerate();
                rows.filter(|(l, _)| is_removed(*l)).for_each(|(_, row)| row.fill(T::from_f32(held)));
            }
            values
        });
        let normal = data::rows(&mut rng, Data::Normal, n, op.heads);
        let masked = |mask: f32| -> Vec<f32> {
            (0..n * op.heads).map(|i| if is_removed(i / op.heads) { mask } else { 0.0 }).collect()
        };
        let mut bias = match self.bias {
            Bias::None => None,
            Bias::Normal => Some(normal),
            Bias::Mask => Some(masked(f32::NEG_INFINITY)),
            Bias::MaskWith(mask) => Some(masked(mask)),
            Bias::All(number) => Some(vec![number; n * op.heads]),
            Bias::Alternate(number) => {
                let rows = (0..n * op.heads)
                    .map(|i| if (i / op.heads).is_multiple_of(2) { number } else { -number });
                Some(rows.collect())
            }
        };
        for &(place, row, number) in &self.puts {
            match place {
                Place::Query => queries[row * op.heads * op.width] = T::from_f32(number),
                Place::Key => keys[row * op.kv_heads * op.width] = T::from_f32(number),
                Place::Value => {
                    let values = values.as_mut().expect("values of their own");
                    values[row * op.kv_heads * op.value_width] = T::from_f32(number);
                }
                Place::Bias => bias.get_or_insert(vec![0.0; n * op.heads])[row * op.heads] = number,
            }
        }
        Inputs { queries, keys, values, bias }
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<AttentionOutput, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let queries = backend.upload(&inputs.queries)?;
        let keys = backend.upload(&inputs.keys)?;
        let values = inputs.values.as_ref().map(|values| backend.upload(values)).transpose()?;
        let bias = inputs.bias.as_ref().map(|bias| backend.upload(bias)).transpose()?;
        let (rows, row) = (batch.targets().total(), op.heads * op.value_width);
        let mut out = Guarded::<B, T>::new(backend, rows * row, self.tail * row)?;
        let mut lse = Guarded::<B, f32>::new(backend, rows * op.heads, self.tail * op.heads)?;
        let has_lse = op.weighting == Weighting::Softmax;
        let mut inputs = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
        inputs.values = values.as_ref().map(|values| backend.view(values));
        inputs.bias = bias.as_ref().map(|bias| backend.view(bias));
        calls.make("target_attention", &mut || {
            let mut outputs = TargetAttentionOutputs::new(out.view_mut(backend)?);
            if has_lse {
                outputs = outputs.with_lse(lse.view_mut(backend)?);
            }
            Ok(backend.target_attention_into(&op, &device_batch, inputs, outputs)?)
        })?;
        let lse = if has_lse { lse.finish(backend, "lse")? } else { Vec::new() };
        Ok(AttentionOutput::new(out.finish(backend, "out")?, lse))
    }

    fn compare_as<T: Element>(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>());
        let mut views = TargetAttentionInputs::new(Host::view(&inputs.queries), Host::view(&inputs.keys));
        views.values = inputs.values.as_deref().map(Host::view);
        views.bias = inputs.bias.as_deref().map(Host::view);
        let exact = reference::target_attention(&op, &batch, &views)?;
        let rows = batch.targets().total() * op.heads;
        // A score is a dot product of d terms, scaled and shifted: d + 3 roundings of at most its magnitude, which
        // the lengths of the rows bound (Cauchy-Schwarz).
        // A dominant bias is the whole score, in f64 too.
        let weak = |x: &f32| if x.abs() < DOMINANT { x.abs() } else { 0.0 };
        let max_bias = f64::from(inputs.bias.iter().flatten().map(weak).fold(0.0, f32::max));
        let scale = f64::from(op.effective_scale()).abs();
        let max_score =
            scale * data::max_norm(&inputs.queries, op.width) * data::max_norm(&inputs.keys, op.width)
                + max_bias;
        // The least positive number is 2⁻¹⁴⁹.
        let underflow = op.width as f64 * scale * 2f64.powi(-149) + f64::from(f32::MIN_POSITIVE);
        let score_error = (op.width as f64 + 3.0) * U * max_score + underflow;
        let max_value = data::max_abs(inputs.values.as_ref().unwrap_or(&inputs.keys));
        let longest = batch.histories().max_length();
        let sum_error = (additions(longest) + 8.0) * U;
        let absolute = match op.weighting {
            // Weights add up to 1, and an error of δ in every score changes each by at most a factor exp(±2δ).
            Weighting::Softmax => {
                // Flushed to zero: of each behaviour a value, its product with the weight, or the sum so far.
                let lost = match (rules.subnormal, rules.tiny_products) {
                    (false, _) => 3.0 * f64::from(f32::MIN_POSITIVE),
                    (true, false) if T::DTYPE == DType::Bf16 => 2f64.powi(-124),
                    _ => 0.0,
                };
                max_value * ((2.0 * score_error).exp_m1() + sum_error) + lost * longest as f64
            }
            // Weights are at most the scores (1.1 bounds the slope of silu), and there are L of them.
            Weighting::Silu { divisor } => {
                let share = match divisor {
                    SiluDivisor::Number(number) => longest as f64 / f64::from(number).abs(),
                    _ => 1.0,
                };
                share * max_value * (1.1 * score_error + (sum_error + U) * max_score)
            }
            _ => longest as f64 * max_value * (score_error + sum_error * max_score),
        };
        // Large scores make weights of nearly 0 or 1, whose relative error is that of the scores, not of f32.
        let plain = self.inputs == [None; 3] && self.puts.is_empty() && self.nan.is_none();
        let nmse = self.data != Data::Large && self.data != Data::Tiny && plain;
        let has_infinity = self.puts.iter().any(|&(place, _, x)| place == Place::Value && x.is_infinite());
        let bound = Bound::uniform(absolute, nmse).with_any_infinity(has_infinity);
        compare("out", &output.values::<T>(), &exact.out[..rows * op.value_width], &bound, rules)?;
        let lse_error = score_error + sum_error + 4.0 * U * (max_score + (longest as f64).ln_1p());
        let lses = if exact.lse.is_empty() { &[] } else { &exact.lse[..rows] };
        compare("lse", &output.lse(), lses, &Bound::uniform(lse_error, false), rules)
    }
}

/// Outputs as bits, so that NaN equals NaN when two runs are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionOutput {
    out: Vec<u8>,
    lse: Vec<u32>,
}

impl AttentionOutput {
    /// From the numbers.
    pub fn new<T: Element>(out: Vec<T>, lse: Vec<f32>) -> Self {
        let out = bytemuck::cast_slice(&out).to_vec();
        Self { out, lse: lse.into_iter().map(f32::to_bits).collect() }
    }

    /// The numbers of the first output.
    pub fn values<T: Element>(&self) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.out)
    }

    /// The numbers of the second output.
    pub fn lse(&self) -> Vec<f32> {
        self.lse.iter().map(|&bits| f32::from_bits(bits)).collect()
    }
}

impl Case for AttentionCase {
    type Output = AttentionOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<AttentionOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
