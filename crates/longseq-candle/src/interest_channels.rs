//! Interest channels: what the axes of a candidate pool of its user's history.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{
    InterestChannels, InterestChannelsGradients, InterestChannelsInputs, InterestChannelsOutputs,
    InterestChannelsSaved, Selection,
};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::search::{SelectionOutput, SelectionTensors};
use crate::tensors::{Argument, Float, by_float};

const NAME: &str = "interest_channels";
/// Axes and history.
const KINDS: [Kind; 2] = [Kind::Row, Kind::Row];

/// The inputs of interest channels, of one type: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct InterestChannelsTensors<'a> {
    /// `[M, c, d]`, or `[M, c·d]`: the axes of each candidate before they are put at right angles.
    pub axes: &'a Tensor,
    /// `[N, d]`.
    pub history: &'a Tensor,
}

impl<'a> InterestChannelsTensors<'a> {
    /// The axes of candidates, and rows of behaviours.
    pub fn new(axes: &'a Tensor, history: &'a Tensor) -> Self {
        Self { axes, history }
    }
}

impl<B: Place> Longseq<B> {
    /// Interest channels, `[M, c, d]`; formula: [`InterestChannels`]. Axes and behaviours get gradients; the choice of channels, and of what they
    /// keep, has none.
    ///
    /// # Errors
    /// Those of [`InterestChannels::check`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn interest_channels(
        &self,
        op: &InterestChannels,
        batch: &Batch<B>,
        inputs: InterestChannelsTensors<'_>,
    ) -> Result<Tensor> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let (c, d) = (("c", op.channels), ("d", op.width));
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let flat = ("c·d", op.channels.saturating_mul(op.width));
        let axes = argument("axes", inputs.axes).of_shape(&[&[m, c, d], &[m, flat]])?.float()?;
        let dtype = axes.dtype();
        let history = argument("history", inputs.history).of_shape(&[&[n, d]])?.float_as(dtype)?;
        let tensors = vec![axes, history];
        let (backend, batch) = (self.shared(), self.own(NAME, batch)?);
        by_float!(dtype, T => {
            let mut channels = Channels { backend, batch, op: *op, kept: None };
            let out = channels.forward::<T>(&self.fork()?, &tensors)?;
            record(out, (m.1, c.1, d.1), tensors, channels)
        })
    }
}

/// Interest channels in the graph. Their inputs: axes and history.
struct Channels<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: InterestChannels,
    /// What each channel keeps, if there will be gradients: `[M·c, K]` and `[M·c]`.
    kept: Option<SelectionTensors>,
}

impl<B: Place> Channels<B> {
    /// The output; what the backward pass needs is kept.
    fn forward<T: Float>(&mut self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        let is_tracked = tensors.iter().any(Tensor::track_op);
        let (out, kept) = read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &KINDS)?;
            let inputs = InterestChannelsInputs::new(loan.row(0), loan.row(1));
            let batch = (*self.batch).as_ref();
            self.op.check(batch, &inputs).wrapped()?;
            let mut out = backend.output::<T>(self.op.output_length(batch).wrapped()?).wrapped()?;
            let mut kept = None;
            if is_tracked {
                let slots = self.op.kept_length(batch).wrapped()?;
                let lists = batch.targets().rows() * self.op.channels;
                kept = Some(SelectionOutput::new(backend, slots, lists)?);
            }
            let mut outputs = InterestChannelsOutputs::new(backend.output_mut(&mut out));
            outputs.kept = kept.as_mut().map(|output| output.out(backend));
            backend.interest_channels_into(&self.op, &self.batch, inputs, outputs).wrapped()?;
            let kept = kept.map(|output| output.finish(backend, self.op.top_k)).transpose()?;
            Ok((backend.finish::<T>(out).wrapped()?, kept))
        })?;
        self.kept = kept;
        Ok(out)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(kept) = &self.kept else { candle_core::bail!("{NAME}: nothing was kept") };
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &KINDS)?;
        let first = pass.inputs.len();
        read(&pass.inputs_and(&[pass.grad, &kept.positions, &kept.scores, &kept.counts]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &KINDS)?;
            let grad = backend.lend(parts.of::<T>(first)?).wrapped()?;
            let positions = backend.lend(parts.of::<u32>(first + 1)?).wrapped()?;
            let scores = backend.lend(parts.of::<f32>(first + 2)?).wrapped()?;
            let counts = backend.lend(parts.of::<u32>(first + 3)?).wrapped()?;
            let kept = Selection::new(positions.view(), scores.view(), counts.view());
            let (mut rows, _) = memory.views(&backend);
            let mut grads = InterestChannelsGradients::new();
            (grads.axes, grads.history) = (rows[0].take(), rows[1].take());
            let inputs = InterestChannelsInputs::new(loan.row(0), loan.row(1));
            let (op, batch, saved) = (&self.op, &self.batch, InterestChannelsSaved::new(kept));
            backend.interest_channels_backward_into(op, batch, inputs, saved, grad.view(), grads).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Channels<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
