//! Inputs and outputs of decoupled embeddings.

use crate::memory::{Memory, View, ViewMut};
use crate::ops::lookup::Table;
use crate::ops::shape::copy_views;

/// The inputs of `search`.
#[non_exhaustive]
pub struct SearchInputs<'a, S: Memory> {
    /// `A_f`, one attention table per feature.
    pub attention: &'a [Table<'a, S>],
    /// `[N, F]`, one row per behaviour.
    pub history_ids: View<'a, S, u32>,
    /// `[M, F]`, one row per candidate.
    pub target_ids: View<'a, S, u32>,
}

/// The inputs of `aggregate` in addition to a [`Selection`].
#[non_exhaustive]
pub struct AggregateInputs<'a, S: Memory> {
    /// `R_f`, one representation table per feature.
    pub representation: &'a [Table<'a, S>],
    /// `[N, F]`, one row per behaviour.
    pub history_ids: View<'a, S, u32>,
    /// `[M, F]`, one row per candidate; read only with `multiply_target`.
    pub target_ids: View<'a, S, u32>,
}

/// The inputs of `attend`.
#[non_exhaustive]
pub struct DecoupledInputs<'a, S: Memory> {
    /// `A_f`, one attention table per feature.
    pub attention: &'a [Table<'a, S>],
    /// `R_f`, one representation table per feature.
    pub representation: &'a [Table<'a, S>],
    /// `[N, F]`, one row per behaviour.
    pub history_ids: View<'a, S, u32>,
    /// `[M, F]`, one row per candidate.
    pub target_ids: View<'a, S, u32>,
}

/// The behaviours that a search kept, best first.
#[non_exhaustive]
pub struct Selection<'a, S: Memory> {
    /// `[M, K]`: positions within the user's history; [`EMPTY_SLOT`] after the last one kept.
    pub positions: View<'a, S, u32>,
    /// `[M, K]`: their scores; `-∞` after the last one kept.
    pub scores: View<'a, S, f32>,
    /// `[M]`: the number of behaviours kept, `min(K, L)`.
    pub counts: View<'a, S, u32>,
}

/// The outputs of a search.
#[non_exhaustive]
pub struct SelectionMut<'a, S: Memory> {
    /// `[M, K]`: positions within the user's history; [`EMPTY_SLOT`] after the last one kept.
    pub positions: ViewMut<'a, S, u32>,
    /// `[M, K]`: their scores; `-∞` after the last one kept.
    pub scores: ViewMut<'a, S, f32>,
    /// `[M]`: the number of behaviours kept, `min(K, L)`.
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

copy_views!(SearchInputs, AggregateInputs, DecoupledInputs, Selection);

impl<'a, S: Memory> SearchInputs<'a, S> {
    /// Attention tables, and the ids of behaviours `[N, F]` and candidates `[M, F]`.
    pub fn new(
        attention: &'a [Table<'a, S>],
        history_ids: View<'a, S, u32>,
        target_ids: View<'a, S, u32>,
    ) -> Self {
        Self { attention, history_ids, target_ids }
    }
}

impl<'a, S: Memory> AggregateInputs<'a, S> {
    /// Representation tables, and the ids of behaviours `[N, F]` and candidates `[M, F]`.
    pub fn new(
        representation: &'a [Table<'a, S>],
        history_ids: View<'a, S, u32>,
        target_ids: View<'a, S, u32>,
    ) -> Self {
        Self { representation, history_ids, target_ids }
    }
}

impl<'a, S: Memory> DecoupledInputs<'a, S> {
    /// Both sets of tables, and the ids of behaviours `[N, F]` and candidates `[M, F]`.
    pub fn new(
        attention: &'a [Table<'a, S>],
        representation: &'a [Table<'a, S>],
        history_ids: View<'a, S, u32>,
        target_ids: View<'a, S, u32>,
    ) -> Self {
        Self { attention, representation, history_ids, target_ids }
    }
}

impl<'a, S: Memory> Selection<'a, S> {
    /// A selection from a search, or made by the caller: `[M, K]`, `[M, K]`, `[M]`.
    pub fn new(positions: View<'a, S, u32>, scores: View<'a, S, f32>, counts: View<'a, S, u32>) -> Self {
        Self { positions, scores, counts }
    }
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
