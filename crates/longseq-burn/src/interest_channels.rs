//! Interest channels: what the axes of a candidate pool of its user's history.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::Tensor;
use longseq::prelude::*;
use longseq::{
    InterestChannels, InterestChannelsGradients, InterestChannelsInputs, InterestChannelsOutputs,
    InterestChannelsSaved, Result, Selection,
};

use crate::argument::{Argument, Float, by_float};
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::{Place, Values};
use crate::search::{Kept, SelectionOutput};

const NAME: &str = "interest_channels";
/// Axes and history.
const KINDS: [Kind; 2] = [Kind::Row, Kind::Row];

/// The inputs of interest channels, of one type: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct InterestChannelsTensors<'a> {
    /// `[M, c, d]`: the axes of each candidate before they are put at right angles.
    pub axes: &'a Tensor<3>,
    /// `[N, d]`.
    pub history: &'a Tensor<2>,
}

impl<'a> InterestChannelsTensors<'a> {
    /// The axes of candidates, and rows of behaviours.
    pub fn new(axes: &'a Tensor<3>, history: &'a Tensor<2>) -> Self {
        Self { axes, history }
    }
}

impl<P: Place> Longseq<P> {
    /// Interest channels, `[M, c, d]`; formula: [`InterestChannels`]. Axes and behaviours get gradients; the choice of channels, and of what they
    /// keep, has none.
    ///
    /// # Errors
    /// Those of [`InterestChannels::check`]; a tensor on another backend of burn, or of another type or shape.
    pub fn interest_channels(
        &self,
        op: &InterestChannels,
        batch: &Batch<P>,
        inputs: InterestChannelsTensors<'_>,
    ) -> Result<Tensor<3>> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let (c, d) = (("c", op.channels), ("d", op.width));
        let axes: Input<P> = Argument::new(NAME, "axes", inputs.axes).of_shape(&[&[m, c, d]])?.float()?;
        let dtype = axes.dtype();
        let history = Argument::new(NAME, "history", inputs.history).of_shape(&[&[n, d]])?;
        let tensors = vec![axes, history.float_as(dtype)?];
        let (place, batch) = (self.shared(), self.own(NAME, batch)?);
        let mut channels = Channels { place, batch, op: *op, kept: None };
        let out = by_float!(dtype, T => channels.forward::<T>(&self.for_call()?, &tensors)?);
        Ok(Tensor::from_dispatch(record(out, tensors, channels)?))
    }
}

/// Interest channels in the graph. Their inputs: axes and history.
struct Channels<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: InterestChannels,
    /// What each channel keeps, if there will be gradients: `[M·c, K]` and `[M·c]`.
    kept: Option<Kept<P>>,
}

impl<P: Place> Channels<P> {
    /// The output; what the backward pass needs is kept.
    fn forward<T: Float>(&mut self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let is_tracked = tensors.iter().any(Input::is_tracked);
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &KINDS)?;
        let inputs = InterestChannelsInputs::new(loan.row(0), loan.row(1));
        let batch = (*self.batch).as_ref();
        self.op.check(batch, &inputs)?;
        let mut out = place.output::<T>(self.op.output_length(batch)?)?;
        let mut kept = None;
        if is_tracked {
            let lists = batch.targets().rows() * self.op.channels;
            kept = Some(SelectionOutput::new(place, self.op.kept_length(batch)?, lists)?);
        }
        let mut outputs = InterestChannelsOutputs::new(place.output_mut(&mut out));
        outputs.kept = kept.as_mut().map(|output| output.out(place));
        place.backend().interest_channels_into(&self.op, &self.batch, inputs, outputs)?;
        let shape = vec![batch.targets().rows(), self.op.channels, self.op.width];
        self.kept = kept.map(|output| output.finish(place, self.op.top_k)).transpose()?;
        place.finish::<T>(out, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &KINDS)?;
        if let Some(kept) = &self.kept {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &KINDS)?;
            let grad = place.lend::<T>(pass.grad)?;
            let positions = place.lend::<u32>(&kept.positions)?;
            let scores = place.lend::<f32>(&kept.scores)?;
            let counts = place.lend::<u32>(&kept.counts)?;
            let kept = Selection::new(positions.view(), scores.view(), counts.view());
            let (mut rows, _) = memory.views(&place);
            let mut grads = InterestChannelsGradients::new();
            (grads.axes, grads.history) = (rows[0].take(), rows[1].take());
            let inputs = InterestChannelsInputs::new(loan.row(0), loan.row(1));
            let (op, batch, saved) = (&self.op, &self.batch, InterestChannelsSaved::new(kept));
            place.backend().interest_channels_backward_into(op, batch, inputs, saved, grad.view(), grads)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Channels<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
