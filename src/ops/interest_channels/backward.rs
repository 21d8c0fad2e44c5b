//! The backward pass of interest channels: what comes in, what is asked for, and their checks.

use crate::element::Element;
use crate::error::Result;
use crate::jagged::Batch;
use crate::memory::{Memory, ViewMut};
use crate::ops::interest_channels::inputs::InterestChannelsInputs;
use crate::ops::interest_channels::parameters::InterestChannels;
use crate::ops::selection::Selection;
use crate::ops::shape::{copy_views, dim, expect};

pub(super) const NAME: &str = "interest_channels_backward";

/// What the backward pass takes from the forward pass.
#[non_exhaustive]
pub struct InterestChannelsSaved<'a, S: Memory> {
    /// What each channel keeps: positions `[M, c, K]` and counts `[M, c]`. Scores, `[M, c, K]`, are not read.
    pub kept: Selection<'a, S>,
}

/// The gradients that the backward pass writes: those that are asked for. `G` is the storage type of the inputs, or `f32`.
#[non_exhaustive]
pub struct InterestChannelsGradients<'a, S: Memory, G: Element> {
    /// `[M, c, d]`.
    pub axes: Option<ViewMut<'a, S, G>>,
    /// `[N, d]`.
    pub history: Option<ViewMut<'a, S, G>>,
}

copy_views!(InterestChannelsSaved);

impl<'a, S: Memory> InterestChannelsSaved<'a, S> {
    /// What [`InterestChannelsOutputs::with_kept`](crate::InterestChannelsOutputs::with_kept) wrote.
    pub fn new(kept: Selection<'a, S>) -> Self {
        Self { kept }
    }
}

impl<'a, S: Memory, G: Element> InterestChannelsGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { axes: None, history: None }
    }

    /// Asks for the gradient of the axes, `[M, c, d]`.
    pub fn with_axes(self, axes: ViewMut<'a, S, G>) -> Self {
        Self { axes: Some(axes), ..self }
    }

    /// Asks for the gradient of the behaviours, `[N, d]`.
    pub fn with_history(self, history: ViewMut<'a, S, G>) -> Self {
        Self { history: Some(history), ..self }
    }
}

impl<S: Memory, G: Element> Default for InterestChannelsGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl InterestChannels {
    /// Checks parameters, inputs, what comes into the backward pass and what it is to write.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`](crate::Error::Shape) for a view of the wrong size, and for histories that share rows. A count above `K`, and a position
    /// outside the user's history, are [`Error::IndexOutOfRange`](crate::Error::IndexOutOfRange), which the call, or on a GPU the next wait,
    /// returns.
    pub fn check_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &InterestChannelsInputs<'_, S, T>,
        saved: &InterestChannelsSaved<'_, S>,
        grad_out: usize,
        grads: &InterestChannelsGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_backward_in(batch, inputs, &saved.kept, grad_out)?;
        batch.histories().check_disjoint(NAME)?;
        if let Some(axes) = &grads.axes {
            expect(NAME, "grads.axes", axes.len(), &self.rows_of(batch))?;
        }
        if let Some(history) = &grads.history {
            let shape = [dim("N", batch.histories().rows()), dim("d", self.width)];
            expect(NAME, "grads.history", history.len(), &shape)?;
        }
        Ok(())
    }

    /// The same of what comes in alone.
    pub(crate) fn check_backward_in<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &InterestChannelsInputs<'_, S, T>,
        kept: &Selection<'_, S>,
        grad_out: usize,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)?;
        let lengths = [kept.positions.len(), kept.scores.len(), kept.counts.len()];
        self.check_kept(NAME, "saved.kept", batch, lengths)?;
        expect(NAME, "grad_out", grad_out, &self.rows_of(batch)).map(drop)
    }
}
