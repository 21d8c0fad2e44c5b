//! What a search keeps.

use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{copy_views, dim, expect};

/// The behaviours that a search kept, best first.
#[non_exhaustive]
pub struct Selection<'a, S: Memory> {
    /// `[M, K]`: positions within the user's history; [`EMPTY_SLOT`] after the last one kept.
    pub positions: View<'a, S, u32>,
    /// `[M, K]`: their scores; `-∞` after the last one kept.
    pub scores: View<'a, S, f32>,
    /// `[M]`: the number of behaviours kept: `min(K, L)`, or fewer where a score leaves some out.
    pub counts: View<'a, S, u32>,
}

/// The outputs of a search.
#[non_exhaustive]
pub struct SelectionMut<'a, S: Memory> {
    /// `[M, K]`: positions within the user's history; [`EMPTY_SLOT`] after the last one kept.
    pub positions: ViewMut<'a, S, u32>,
    /// `[M, K]`: their scores; `-∞` after the last one kept.
    pub scores: ViewMut<'a, S, f32>,
    /// `[M]`: the number of behaviours kept: `min(K, L)`, or fewer where a score leaves some out.
    pub counts: ViewMut<'a, S, u32>,
}

/// The owned buffers of a [`Selection`].
#[non_exhaustive]
pub struct SelectionBuffers<S: Memory> {
    /// `[M, K]`.
    pub positions: S::Buffer<u32>,
    /// `[M, K]`.
    pub scores: S::Buffer<f32>,
    /// `[M]`.
    pub counts: S::Buffer<u32>,
}

/// The position in an empty slot of a selection.
pub const EMPTY_SLOT: u32 = u32::MAX;

copy_views!(Selection);

impl<'a, S: Memory> Selection<'a, S> {
    /// A selection from a search, or made by the caller: `[M, K]`, `[M, K]`, `[M]`.
    pub fn new(positions: View<'a, S, u32>, scores: View<'a, S, f32>, counts: View<'a, S, u32>) -> Self {
        Self { positions, scores, counts }
    }

    /// Checks that it has `top_k` slots for each of so many candidates.
    pub(in crate::ops) fn check(
        &self,
        operation: &'static str,
        candidates: usize,
        top_k: usize,
    ) -> Result<()> {
        let shape = [dim("M", candidates), dim("K", top_k)];
        expect(operation, "positions", self.positions.len(), &shape)?;
        expect(operation, "scores", self.scores.len(), &shape)?;
        expect(operation, "counts", self.counts.len(), &shape[..1])?;
        Ok(())
    }
}

impl Selection<'_, Host> {
    /// Checks on the host that counts and positions, which may be the caller's, are inside slots and histories.
    pub(crate) fn check_host(&self, operation: &'static str, batch: &Batch, top_k: usize) -> Result<()> {
        self.check_host_lists(operation, batch, (1, top_k))
    }

    /// The same of several lists for each candidate.
    pub(crate) fn check_host_lists(
        &self,
        operation: &'static str,
        batch: &Batch,
        (lists, top_k): (usize, usize),
    ) -> Result<()> {
        for (history, targets) in batch.requests() {
            for list in targets.start * lists..targets.end * lists {
                let count = self.check_count(operation, list, top_k)?;
                for slot in (list * top_k..).take(count) {
                    let position = self.positions[slot];
                    if position as usize >= history.len() {
                        return Err(outside(operation, "positions", slot, position, history.len()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks on the host that counts are inside slots.
    pub(crate) fn check_counts(&self, operation: &'static str, batch: &Batch, top_k: usize) -> Result<()> {
        let mut candidates = batch.targets().ranges().flatten();
        candidates.try_for_each(|m| self.check_count(operation, m, top_k).map(drop))
    }

    /// The count of candidate `m`, if it has so many slots.
    fn check_count(&self, operation: &'static str, m: usize, top_k: usize) -> Result<usize> {
        let count = self.counts[m];
        if count as usize > top_k {
            return Err(outside(operation, "counts", m, count, top_k.saturating_add(1)));
        }
        Ok(count as usize)
    }
}

/// The error of a count or a position.
fn outside(operation: &'static str, argument: &'static str, place: usize, id: u32, bound: usize) -> Error {
    Error::IndexOutOfRange { operation, argument, position: place as u64, id: id.into(), bound: bound as u64 }
}

impl<'a, S: Memory> SelectionMut<'a, S> {
    /// The outputs of a search: `[M, K]`, `[M, K]`, `[M]`.
    pub fn new(
        positions: ViewMut<'a, S, u32>,
        scores: ViewMut<'a, S, f32>,
        counts: ViewMut<'a, S, u32>,
    ) -> Self {
        Self { positions, scores, counts }
    }

    /// Checks that there is room for `top_k` behaviours of each of so many candidates.
    pub(in crate::ops) fn check(
        &self,
        operation: &'static str,
        candidates: usize,
        top_k: usize,
    ) -> Result<()> {
        let shape = [dim("M", candidates), dim("K", top_k)];
        expect(operation, "positions", self.positions.len(), &shape)?;
        expect(operation, "scores", self.scores.len(), &shape)?;
        expect(operation, "counts", self.counts.len(), &shape[..1])?;
        Ok(())
    }
}

impl<S: Memory> SelectionBuffers<S> {
    /// Views of the buffers for reading.
    pub fn selection(&self) -> Selection<'_, S> {
        let counts = View::new(S::data(&self.counts));
        Selection::new(View::new(S::data(&self.positions)), View::new(S::data(&self.scores)), counts)
    }

    /// Views of the buffers for writing.
    pub fn selection_mut(&mut self) -> SelectionMut<'_, S> {
        let counts = ViewMut::new(S::data_mut(&mut self.counts));
        let scores = ViewMut::new(S::data_mut(&mut self.scores));
        SelectionMut::new(ViewMut::new(S::data_mut(&mut self.positions)), scores, counts)
    }
}
