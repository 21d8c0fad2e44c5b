//! The calls.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::decoupled::parameters::*;

/// Search and aggregation with decoupled embeddings on a device; see [`Decoupled`].
///
/// A method that a backend does not implement answers [`Unsupported`](crate::Error::Unsupported).
pub trait DecoupledOps: DeviceOps {
    /// The best behaviours of each candidate into given outputs; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
        out: SelectionMut<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "decoupled_search"))
    }

    /// The best behaviours of each candidate; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_search_into`](Self::decoupled_search_into).
    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
    ) -> Result<SelectionBuffers<Self::Memory>> {
        let length = op.selection_length(batch.as_ref())?;
        let mut kept = SelectionBuffers {
            positions: self.zeros(length)?,
            scores: self.zeros(length)?,
            counts: self.zeros(batch.as_ref().targets().rows())?,
        };
        let out = SelectionMut {
            positions: self.view_mut(&mut kept.positions),
            scores: self.view_mut(&mut kept.scores),
            counts: self.view_mut(&mut kept.counts),
        };
        self.decoupled_search_into(op, batch, inputs, out)?;
        Ok(kept)
    }

    /// The softmax-weighted sum over a selection into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_aggregate`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for ids by
    /// [`IdPolicy`], and always for a count above `K` or a counted position outside its history.
    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, selection, out);
        Err(unsupported(self, "decoupled_aggregate"))
    }

    /// The softmax-weighted sum over a selection, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_aggregate_into`](Self::decoupled_aggregate_into).
    fn decoupled_aggregate(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_aggregate_into(op, batch, inputs, selection, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// Search and aggregation in one call, into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "decoupled_attend"))
    }

    /// Search and aggregation in one call, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_attend_into`](Self::decoupled_attend_into).
    fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
