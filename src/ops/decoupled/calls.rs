//! The calls of decoupled embeddings.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::decoupled::inputs::*;
use crate::ops::decoupled::parameters::Decoupled;

/// Search and aggregation with decoupled embeddings on a device; see [`Decoupled`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait DecoupledOps: DeviceOps {
    /// The best behaviours of each candidate into given outputs; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`](crate::IdPolicy).
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
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, Host, Jagged, SearchInputs, Table, TableData, EMPTY_SLOT};
    ///
    /// let backend = Cpu::new();
    /// let attention = [1.0_f32, 2.0, 3.0, 4.0]; // the embeddings of four items, of width 1
    /// let tables = [Table::new(4, 1, TableData::F32(Host::view(&attention)))];
    /// // Two users with 3 and 1 behaviours, one candidate each.
    /// let batch = backend.batch(&Jagged::from_lengths(&[3, 1])?, &Jagged::from_lengths(&[1, 1])?)?;
    /// let inputs = SearchInputs::new(&tables, Host::view(&[0, 3, 2, 1]), Host::view(&[0, 0]));
    /// let kept = backend.decoupled_search(&Decoupled::new([1.0]).with_top_k(Some(2)), &batch, inputs)?;
    /// assert_eq!(*kept.positions, [1, 2, 0, EMPTY_SLOT]);
    /// assert_eq!(*kept.scores, [4.0, 3.0, 2.0, f32::NEG_INFINITY]);
    /// assert_eq!(*kept.counts, [2, 1]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`decoupled_search_into`](Self::decoupled_search_into).
    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
    ) -> Result<SelectionBuffers<Self::Memory>> {
        op.check_search(batch.as_ref(), &inputs)?;
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
    /// [`IdPolicy`](crate::IdPolicy), and always for a count above `K` or a counted position outside its history.
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
    /// The selection may come from [`decoupled_search`](Self::decoupled_search)
    /// ([`SelectionBuffers::selection`]) or from a search of your own:
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{AggregateInputs, Cpu, Decoupled, Host, Jagged, Selection, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let representation = [1.0_f32, 10.0, 2.0, 20.0, 3.0, 30.0]; // three items, of width 2
    /// let tables = [Table::new(3, 2, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = AggregateInputs::new(&tables, Host::view(&[2, 1, 0]), Host::view(&[0]));
    /// // The candidate keeps the first and the third behaviour, with equal scores.
    /// let selection = Selection::new(Host::view(&[0, 2]), Host::view(&[5.0, 5.0]), Host::view(&[2]));
    /// let op = Decoupled::new([1.0]).with_top_k(Some(2));
    /// let out = backend.decoupled_aggregate(&op, &batch, inputs, selection)?;
    /// assert_eq!(*out, [2.0, 20.0]); // the mean of items 2 and 0
    /// # Ok::<(), longseq::Error>(())
    /// ```
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
        op.check_aggregate(batch.as_ref(), &inputs, &selection)?;
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_aggregate_into(op, batch, inputs, selection, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// Search and aggregation in one call, into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`](crate::IdPolicy).
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
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, DecoupledInputs, Host, Jagged, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let (attention, representation) = ([1.0_f32, 0.0, -1.0], [1.0_f32, 2.0, 4.0]); // three items, of width 1
    /// let attention = [Table::new(3, 1, TableData::F32(Host::view(&attention)))];
    /// let representation = [Table::new(3, 1, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = DecoupledInputs::new(&attention, &representation, Host::view(&[2, 0, 1]), Host::view(&[1]));
    /// // The candidate's attention row is 0, so all scores are equal. Without a top-K, all behaviours are kept.
    /// let op = Decoupled::new([1.0]).with_top_k(None).with_multiply_target(true);
    /// let out = backend.decoupled_attend(&op, &batch, inputs)?;
    /// assert!((out[0] - 2.0 * (4.0 + 1.0 + 2.0) / 3.0).abs() < 1e-6); // the mean, times the candidate's row
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`decoupled_attend_into`](Self::decoupled_attend_into).
    fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        op.check_attend(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
