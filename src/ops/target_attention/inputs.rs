//! Inputs and outputs of target attention.

use crate::element::Element;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::copy_views;

/// The inputs of target attention. `T` is the storage type, `S` the kind of memory.
#[non_exhaustive]
pub struct TargetAttentionInputs<'a, S: Memory, T: Element> {
    /// `[M, H, d]`, one row per candidate.
    pub queries: View<'a, S, T>,
    /// `[N, H_kv, d]`, one row per behaviour.
    pub keys: View<'a, S, T>,
    /// `[N, H_kv, d_v]`; with `None` the keys are the values (`d_v = d`) and are read only once.
    pub values: Option<View<'a, S, T>>,
    /// `[N, H]`, added to the scaled dot products.
    pub bias: Option<View<'a, S, f32>>,
}

/// The outputs of target attention.
#[non_exhaustive]
pub struct TargetAttentionOutputs<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`.
    pub out: ViewMut<'a, S, T>,
    /// `[M, H]`: the natural logarithm of `Σ exp s_l`; only with
    /// [`Weighting::Softmax`](crate::Weighting::Softmax).
    pub lse: Option<ViewMut<'a, S, f32>>,
}

/// One of two results of softmax attention over disjoint spans of the same histories.
#[non_exhaustive]
pub struct PartialAttention<'a, S: Memory, T: Element> {
    /// `[M, H, d_v]`.
    pub out: View<'a, S, T>,
    /// `[M, H]`.
    pub lse: View<'a, S, f32>,
}

copy_views!(TargetAttentionInputs<T>, PartialAttention<T>);

impl<'a, S: Memory, T: Element> TargetAttentionInputs<'a, S, T> {
    /// Queries and keys; the keys are the values, and there is no bias.
    pub fn new(queries: View<'a, S, T>, keys: View<'a, S, T>) -> Self {
        Self { queries, keys, values: None, bias: None }
    }

    /// Sets separate values, `[N, H_kv, d_v]`.
    pub fn with_values(self, values: View<'a, S, T>) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Sets a bias `[N, H]`, which is added to the scaled dot products.
    pub fn with_bias(self, bias: View<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

impl<'a, S: Memory, T: Element> TargetAttentionOutputs<'a, S, T> {
    /// Writes the output only.
    pub fn new(out: ViewMut<'a, S, T>) -> Self {
        Self { out, lse: None }
    }

    /// Also writes the log-sum-exp of the scores, `[M, H]`.
    pub fn with_lse(self, lse: ViewMut<'a, S, f32>) -> Self {
        Self { lse: Some(lse), ..self }
    }
}

impl<'a, S: Memory, T: Element> PartialAttention<'a, S, T> {
    /// An output `[M, H, d_v]` and its log-sum-exp `[M, H]`.
    pub fn new(out: View<'a, S, T>, lse: View<'a, S, f32>) -> Self {
        Self { out, lse }
    }
}
