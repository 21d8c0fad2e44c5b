//! Cases of interest channels.

mod backward;
pub mod backward_tests;
mod bounds;
pub(crate) mod cases;
mod compare;
mod hostile;
mod orders;
pub mod tests;

pub use backward::ChannelsBackwardCase;

use longseq::*;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
O[m] · R[m] = M[m],  the columns of O at right angles and of length 1, the diagonal of R positive
A[l, i] = ⟨e[l], O[m, i]⟩,  channel(l) = argmax_i A[l, i]            over the history l of candidate m's user
out[m, i] = (1/L) Σ_l A[l, i] · e[l]            over the K best l of channel i, by A[l, i]";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
de[l] = (1/L) Σ_m (A[l, i] · dout[m, i] + ⟨dout[m, i], e[l]⟩ · O[m, i])            where channel i keeps l
dO[m, i] = (1/L) Σ_l ⟨dout[m, i], e[l]⟩ · e[l],  dM[m] from dO[m] through O · R = M";

/// A batch of interest channels, with what each keeps.
#[derive(Debug, Clone)]
pub struct ChannelsCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// What the numbers of behaviours look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The width of a row.
    pub width: usize,
    /// The channels of a candidate.
    pub channels: usize,
    /// How many behaviours a channel keeps.
    pub top_k: usize,
    /// Among which.
    pub among: KeptAmong,
    /// Rows are divided by their lengths.
    pub normalise: bool,
    /// A factor of all axes.
    pub axes_scale: f32,
    /// How much of a direction that they share is in a candidate's axes: with much of it they are near each other.
    pub shared: f32,
    /// In every second candidate this axis is minus twice the first, or zeros if it is the first.
    pub dependent: Option<usize>,
    /// A NaN in this candidate's axes.
    pub nan: Option<usize>,
    /// A NaN in this behaviour's row.
    pub nan_behaviour: Option<usize>,
}

impl Default for ChannelsCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            width: 16,
            channels: 4,
            top_k: 5,
            among: KeptAmong::Routed,
            normalise: false,
            axes_scale: 1.0,
            shared: 0.5,
            dependent: None,
            nan: None,
            nan_behaviour: None,
        }
    }
}

/// The outputs of a run: the bits of `out` and of scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelsOutput {
    /// `[M, c, d]`.
    pub out: Vec<u8>,
    /// `[M, c, K]`.
    pub positions: Vec<u32>,
    /// `[M, c, K]`.
    pub scores: Vec<u32>,
    /// `[M, c]`.
    pub counts: Vec<u32>,
}

/// The inputs in a kind of memory.
struct Inputs<S: Memory, T: Element> {
    axes: S::Buffer<T>,
    history: S::Buffer<T>,
}

impl<S: Memory, T: Element> Inputs<S, T> {
    fn views<B: Backend<Memory = S>>(&self, backend: &B) -> InterestChannelsInputs<'_, S, T> {
        InterestChannelsInputs::new(backend.view(&self.axes), backend.view(&self.history))
    }
}

impl<T: Element> Inputs<Host, T> {
    fn upload<B: Backend>(&self, backend: &B) -> Result<Inputs<B::Memory, T>> {
        Ok(Inputs { axes: backend.upload(&self.axes)?, history: backend.upload(&self.history)? })
    }
}

impl ChannelsCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> InterestChannels {
        let dependent = if self.dependent.is_some() { DependentAxes::Zero } else { DependentAxes::Error };
        InterestChannels::new(self.width)
            .with_channels(self.channels)
            .with_top_k(self.top_k)
            .with_among(self.among)
            .with_normalise(self.normalise)
            .with_dependent(dependent)
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        Work { flops: op.flops(&batch), bytes: by_dtype!(self.dtype, T => op.bytes::<T>(&batch)) }
    }

    fn inputs<T: Element>(&self) -> Inputs<Host, T> {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let (candidates, numbers) = (batch.targets().rows(), self.channels * self.width);
        let mut axes: Vec<f32> = data::rows(&mut rng, Data::Normal, candidates, numbers);
        let shared: Vec<f32> = data::rows(&mut rng, Data::Normal, candidates, self.width);
        for (m, axes) in axes.chunks_exact_mut(numbers).enumerate() {
            let shared = shared[m * self.width..(m + 1) * self.width].iter().cycle();
            axes.iter_mut().zip(shared).for_each(|(x, y)| *x = self.axes_scale * (*x + self.shared * y));
        }
        let mut axes: Vec<T> = axes.into_iter().map(T::from_f32).collect();
        for axes in axes.chunks_exact_mut(numbers).skip(1).step_by(2) {
            if let Some(i) = self.dependent {
                let factor = if i == 0 { 0.0 } else { -2.0 };
                let copy = |x: &T| T::from_f32(factor * x.to_f32());
                let first: Vec<T> = axes[..self.width].iter().map(copy).collect();
                axes[i * self.width..(i + 1) * self.width].copy_from_slice(&first);
            }
        }
        let mut history: Vec<T> = data::rows(&mut rng, self.data, batch.histories().rows(), self.width);
        if let Some(m) = self.nan {
            axes[(m + 1) * numbers - 1] = T::from_f32(f32::NAN);
        }
        if let Some(l) = self.nan_behaviour {
            history[l * self.width] = T::from_f32(f32::NAN);
        }
        // Axes of nobody depend on each other: nobody looks at them.
        axes[batch.targets().total() * numbers..].fill(T::from_f32(0.0));
        Inputs { axes: axes.into(), history: history.into() }
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<ChannelsOutput, Failure> {
        let (op, batch) = (self.op(), self.batch());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = self.inputs::<T>().upload(backend)?;
        let (lists, tail) = (batch.targets().total() * self.channels, self.tail * self.channels);
        let mut out = Guarded::<B, T>::new(backend, lists * self.width, tail * self.width)?;
        let mut positions = Guarded::<B, u32>::new(backend, lists * self.top_k, tail * self.top_k)?;
        let mut scores = Guarded::<B, f32>::new(backend, lists * self.top_k, tail * self.top_k)?;
        let mut counts = Guarded::<B, u32>::new(backend, lists, tail)?;
        calls.make("interest_channels", &mut || {
            let (positions, scores) = (positions.view_mut(backend)?, scores.view_mut(backend)?);
            let kept = SelectionMut::new(positions, scores, counts.view_mut(backend)?);
            let outputs = InterestChannelsOutputs::new(out.view_mut(backend)?).with_kept(kept);
            Ok(backend.interest_channels_into(&op, &device_batch, inputs.views(backend), outputs)?)
        })?;
        Ok(ChannelsOutput {
            out: bytemuck::cast_slice(&out.finish(backend, "out")?).to_vec(),
            positions: positions.finish(backend, "positions")?,
            scores: scores.finish(backend, "scores")?.into_iter().map(f32::to_bits).collect(),
            counts: counts.finish(backend, "counts")?,
        })
    }
}

impl Case for ChannelsCase {
    type Output = ChannelsOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<ChannelsOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &ChannelsOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
