//! The calls of search.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::search::inputs::SimilarityInputs;
use crate::ops::search::parameters::{NAME, Search};
use crate::ops::search::signs::Signs;
use crate::ops::selection::{SelectionBuffers, SelectionMut};

/// Search by rows, packed signs and keys on a device; see [`Search`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait SearchOps: DeviceOps {
    /// The best behaviours of each candidate into given outputs `[M, K]`, `[M, K]` and `[M]`; see [`Search`].
    ///
    /// # Errors
    /// Those of [`Search::check`] and [`Search::check_outputs`].
    fn search_into(
        &self,
        op: &Search,
        batch: &Self::Batch,
        inputs: SimilarityInputs<'_, Self::Memory>,
        out: SelectionMut<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, NAME))
    }

    /// The best behaviours of each candidate; see [`Search`].
    ///
    /// SIM's hard search, the newest behaviours of the candidate's category:
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, EMPTY_SLOT, Host, Jagged, Search, SearchRows, SimilarityInputs};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[5])?, &Jagged::from_lengths(&[2])?)?;
    /// let [candidates, history] = [&[7, 8][..], &[7, 8, 7, 9, 7]].map(|keys| SearchRows::Keys(Host::view(keys)));
    /// let op = Search::matching().with_top_k(2);
    /// let kept = backend.search(&op, &batch, SimilarityInputs::new(candidates, history))?;
    /// assert_eq!(*kept.positions, [4, 2, 1, EMPTY_SLOT]);
    /// assert_eq!(*kept.counts, [2, 1]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`search_into`](Self::search_into).
    fn search(
        &self,
        op: &Search,
        batch: &Self::Batch,
        inputs: SimilarityInputs<'_, Self::Memory>,
    ) -> Result<SelectionBuffers<Self::Memory>> {
        op.check(batch.as_ref(), &inputs)?;
        let length = op.selection_length(batch.as_ref())?;
        let mut kept = SelectionBuffers {
            positions: self.zeros(length)?,
            scores: self.zeros(length)?,
            counts: self.zeros(batch.as_ref().targets().rows())?,
        };
        self.search_into(op, batch, inputs, kept.selection_mut())?;
        Ok(kept)
    }

    /// Packs the signs of rotated rows `[rows, d]` into a given output `[rows, ⌈bits/32⌉]`; see [`Signs`].
    ///
    /// # Errors
    /// Those of [`Signs::check`] and [`Signs::check_output`].
    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, Self::Memory, T>,
        rotations: View<'_, Self::Memory, f32>,
        out: ViewMut<'_, Self::Memory, u32>,
    ) -> Result<()> {
        let _ = (op, rows, rotations, out);
        Err(unsupported(self, "pack_signs"))
    }

    /// The packed signs of rotated rows `[rows, d]`: `[rows, ⌈bits/32⌉]`; see [`Signs`].
    ///
    /// # Errors
    /// As [`pack_signs_into`](Self::pack_signs_into).
    fn pack_signs<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, Self::Memory, T>,
        rotations: View<'_, Self::Memory, f32>,
    ) -> Result<Buffer<Self, u32>> {
        let count = op.check(rows.len(), rotations.len())?;
        let mut out = self.zeros(count * op.words())?;
        self.pack_signs_into(op, rows, rotations, self.view_mut(&mut out))?;
        Ok(out)
    }
}
