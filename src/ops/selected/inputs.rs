//! Inputs and outputs of attention over a selection.

use crate::element::Element;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::selection::Selection;
use crate::ops::shape::copy_views;

/// The inputs of attention over a selection.
#[non_exhaustive]
pub struct SelectedAttentionInputs<'a, S: Memory, T: Element> {
    /// `[M, H, d]`.
    pub queries: View<'a, S, T>,
    /// `[N, H_kv, d]`: of all behaviours, of which those that are kept are read.
    pub keys: View<'a, S, T>,
    /// `[N, H_kv, d_v]`; `None`: the keys are the values.
    pub values: Option<View<'a, S, T>>,
    /// `[N, H]`: added to the scores. One of `-∞` removes the behaviour.
    pub bias: Option<View<'a, S, f32>>,
    /// `[H, 3]`: `γ₁`, `γ₂`, `γ₃` of each head; `None`: 1, 0, 0.
    pub gammas: Option<View<'a, S, f32>>,
    /// What a search kept, `[M, K]`, or a selection of the caller's. Its scores are the similarities `R`.
    pub selection: Selection<'a, S>,
}

/// The outputs of attention over a selection.
#[non_exhaustive]
pub struct SelectedAttentionOutputs<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`.
    pub out: ViewMut<'a, S, T>,
    /// `[M, H]`: the log-sum-exp of `α`, for merging with attention over other behaviours.
    pub lse: Option<ViewMut<'a, S, f32>>,
}

copy_views!(SelectedAttentionInputs<T>);

impl<'a, S: Memory, T: Element> SelectedAttentionInputs<'a, S, T> {
    /// The keys are the values too.
    pub fn new(queries: View<'a, S, T>, keys: View<'a, S, T>, selection: Selection<'a, S>) -> Self {
        Self { queries, keys, values: None, bias: None, gammas: None, selection }
    }

    /// Sets values of their own, `[N, H_kv, d_v]`.
    pub fn with_values(self, values: View<'a, S, T>) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Adds a bias `[N, H]` to the scores.
    pub fn with_bias(self, bias: View<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Sets how scores and similarities add up: `γ₁`, `γ₂`, `γ₃` of each head, `[H, 3]`.
    pub fn with_gammas(self, gammas: View<'a, S, f32>) -> Self {
        Self { gammas: Some(gammas), ..self }
    }
}

impl<'a, S: Memory, T: Element> SelectedAttentionOutputs<'a, S, T> {
    /// Writes the output only.
    pub fn new(out: ViewMut<'a, S, T>) -> Self {
        Self { out, lse: None }
    }

    /// Also writes the log-sum-exp, `[M, H]`.
    pub fn with_lse(self, lse: ViewMut<'a, S, f32>) -> Self {
        Self { lse: Some(lse), ..self }
    }
}
