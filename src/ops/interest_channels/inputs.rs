//! Inputs and outputs of interest channels.

use crate::element::Element;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::selection::SelectionMut;
use crate::ops::shape::copy_views;

/// The inputs of interest channels.
#[non_exhaustive]
pub struct InterestChannelsInputs<'a, S: Memory, T: Element> {
    /// `M`: `[M, c, d]`, the axes of each candidate before they are put at right angles: row `i` of a candidate is column `i` of its matrix.
    pub axes: View<'a, S, T>,
    /// `e`: `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
}

/// The outputs of interest channels.
#[non_exhaustive]
pub struct InterestChannelsOutputs<'a, S: Memory, T: Element> {
    /// `[M, c, d]`.
    pub out: ViewMut<'a, S, T>,
    /// What each channel keeps, best first: positions and scores `A` `[M, c, K]`, counts `[M, c]`; the backward pass needs it.
    pub kept: Option<SelectionMut<'a, S>>,
}

copy_views!(InterestChannelsInputs<T>);

impl<'a, S: Memory, T: Element> InterestChannelsInputs<'a, S, T> {
    /// The axes of candidates, and rows of behaviours.
    pub fn new(axes: View<'a, S, T>, history: View<'a, S, T>) -> Self {
        Self { axes, history }
    }
}

impl<'a, S: Memory, T: Element> InterestChannelsOutputs<'a, S, T> {
    /// Writes the output only.
    pub fn new(out: ViewMut<'a, S, T>) -> Self {
        Self { out, kept: None }
    }

    /// Also writes what each channel keeps: positions and scores `[M, c, K]`, counts `[M, c]`.
    pub fn with_kept(self, kept: SelectionMut<'a, S>) -> Self {
        Self { kept: Some(kept), ..self }
    }
}
