//! Inputs of decoupled embeddings.

use crate::memory::{Memory, View};
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

/// The inputs of `aggregate` in addition to a [`Selection`](crate::Selection).
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

copy_views!(SearchInputs, AggregateInputs, DecoupledInputs);

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
