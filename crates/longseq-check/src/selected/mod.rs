//! Cases of attention over a selection, of its gradients, and of histograms of similarities.

mod backward;
pub mod backward_tests;
mod bounds;
pub(crate) mod cases;
mod histogram;
mod hostile;
mod inputs;
mod muse;
mod tables;
mod tables_backward;
mod tables_hostile;
pub mod tables_tests;
pub mod tests;
mod two_stages;

pub use backward::SelectedBackwardCase;
pub use histogram::HistogramCase;
pub use inputs::{Choice, Mix};
pub use tables::{KeysFrom, SelectedTableCase};
pub use tables_backward::{SelectedTableBackwardCase, SelectedTableGradientOutput};

use longseq::*;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;
use crate::target_attention::{AttentionOutput, Bias};
use bounds::Errors;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
s[m, h, l] = scale · ⟨Q[m, h], K[l, h·H_kv/H]⟩ + bias[l, h]            over the kept behaviours l of candidate m
α[m, h, l] = γ₁[h] · s[m, h, l] + γ₂[h] · R[m, l] + γ₃[h] · s[m, h, l] · R[m, l]
out[m, h] = Σ_l w[m, h, l] · V[l, h·H_kv/H],  w = softmax_l(α);  lse[m, h] = ln Σ_l exp(α[m, h, l])
similarity_histogram: out[m, i] = the kept behaviours with ⌈R·n⌉ + n = i
newest_histogram: the same of the newest K behaviours, R a dot product or a cosine";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
dα = w · (⟨dout, V⟩ − Σ w · ⟨dout, V⟩ + dlse)            ds = dα · (γ₁ + γ₃ · R)            dR[m, l] = Σ_h dα · (γ₂ + γ₃ · s)
dγ = Σ dα · (s, R, s · R)            dbias[l] = Σ_m ds
dV[l] = Σ_m w · dout[m]            dK[l] = scale · Σ_m ds · Q[m]            dQ[m] = scale · Σ_l ds · K[l]";

/// Attention over a selection, with `lse`.
#[derive(Debug, Clone)]
pub struct SelectedCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// What the numbers of queries, keys and values look like.
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
    /// The slots of a candidate.
    pub top_k: usize,
    /// Which behaviours are kept.
    pub choice: Choice,
    /// How scores and similarities add up.
    pub mix: Mix,
    /// What is added to the scores.
    pub bias: Bias,
    /// Every sixth similarity is `-∞`.
    pub some_removed: bool,
    /// What keys and values hold of the behaviours that `Bias::Mask` removes.
    pub removed: Option<f32>,
    /// A NaN in this candidate's query.
    pub nan: Option<usize>,
}

impl Default for SelectedCase {
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
            top_k: 12,
            choice: Choice::Some,
            mix: Mix::Normal,
            bias: Bias::None,
            some_removed: false,
            removed: None,
            nan: None,
        }
    }
}

impl SelectedCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> SelectedAttention {
        let op = SelectedAttention::new(self.width)
            .with_heads(self.heads, self.kv_heads)
            .with_value_width(self.value_width.unwrap_or(self.width))
            .with_top_k(self.top_k);
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

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<AttentionOutput, Failure> {
        let (op, batch) = (self.op(), self.batch());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = self.inputs::<T>().upload(backend)?;
        let (rows, row) = (batch.targets().total(), op.heads * op.value_width);
        let mut out = Guarded::<B, T>::new(backend, rows * row, self.tail * row)?;
        let mut lse = Guarded::<B, f32>::new(backend, rows * op.heads, self.tail * op.heads)?;
        calls.make("selected_attention", &mut || {
            let outputs =
                SelectedAttentionOutputs::new(out.view_mut(backend)?).with_lse(lse.view_mut(backend)?);
            let inputs = inputs.views(backend);
            Ok(backend.selected_attention_into(&op, &device_batch, inputs, outputs)?)
        })?;
        Ok(AttentionOutput::new(out.finish(backend, "out")?, lse.finish(backend, "lse")?))
    }

    fn compare_as<T: Element>(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>());
        let exact = reference::selected_attention(&op, &batch, &inputs.views(&Cpu::new()))?;
        let rows = batch.targets().total() * op.heads;
        let errors = Errors::new(self, &inputs);
        // Large scores make weights of nearly 0 or 1, whose relative error is that of the scores, not of f32.
        let plain = [Data::Normal, Data::Equal].contains(&self.data) && self.scale.is_none();
        let bound =
            Bound::uniform(errors.out::<T>(rules), plain && self.removed.is_none() && self.nan.is_none());
        let values = output.values::<T>();
        compare("out", &values, &exact.out[..rows * op.value_width], &bound, rules)?;
        compare("lse", &output.lse(), &exact.lse[..rows], &Bound::uniform(errors.lse(), false), rules)
    }
}

impl Case for SelectedCase {
    type Output = AttentionOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<AttentionOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
