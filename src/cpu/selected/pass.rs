//! What the tasks of the backward pass read, and what they find for behaviours.

use crate::cpu::selected::kept::WideInputs;
use crate::cpu::sorted_entries::Entry;
use crate::cpu::vector::WideRows;
use crate::ops::SelectedAttention;

/// What every task reads.
pub(super) struct Pass<'a> {
    pub(super) operation: &'static str,
    pub(super) op: &'a SelectedAttention,
    pub(super) inputs: WideInputs<'a>,
    /// `[M, H, d_v]`.
    pub(super) grad_out: WideRows<'a>,
    /// `[M, H]`.
    pub(super) grad_lse: Option<&'a [f32]>,
    pub(super) asked: Asked,
}

/// Which gradients are asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) queries: bool,
    pub(super) gammas: bool,
    pub(super) similarities: bool,
    /// What scores give behaviours: the gradients of keys and of the bias.
    pub(super) grads: bool,
    /// What weights give behaviours: the gradients of values, or of keys that are the values.
    pub(super) weights: bool,
}

impl Asked {
    /// Whether anything depends on the gradients of scores.
    pub(super) fn scores(self) -> bool {
        self.queries || self.gammas || self.similarities || self.grads
    }
}

/// What some candidates give to others than themselves.
#[derive(Default)]
pub(super) struct Found {
    /// Gradients of scores, times rows of queries.
    pub(super) grads: Vec<Entry>,
    /// Weights, times rows of `grad_out`.
    pub(super) weights: Vec<Entry>,
    /// `[H, 3]`.
    pub(super) gammas: Vec<f64>,
}
