//! Inputs and outputs of TIN.

use crate::element::Element;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::copy_views;

/// The inputs of TIN.
#[non_exhaustive]
pub struct TinInputs<'a, S: Memory, T: Element> {
    /// `v`: `[M, d]`, one row per candidate.
    pub targets: View<'a, S, T>,
    /// `e`: `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
    /// `p`: `[P, d]`, one row per position; behaviours and candidates share them.
    pub positions: View<'a, S, T>,
    /// `f(l)`: `[N]`, the row of `positions` that a behaviour adds; `None`: 1 for the user's newest, 2 for the one before, and so on, at
    /// most `P − 1`.
    pub history_positions: Option<View<'a, S, u32>>,
    /// `f(m)`: `[M]`, the same for candidates; `None`: 0.
    pub target_positions: Option<View<'a, S, u32>>,
}

/// The outputs of TIN.
#[non_exhaustive]
pub struct TinOutputs<'a, S: Memory, T: Element> {
    /// `[M, d]`.
    pub out: ViewMut<'a, S, T>,
    /// `[M, d]`: `Σ α·ẽ`, before the product with the candidate; the backward pass needs it.
    pub pooled: Option<ViewMut<'a, S, T>>,
    /// `[M]`: the log-sum-exp of the scores; the backward pass needs it.
    pub lse: Option<ViewMut<'a, S, f32>>,
}

copy_views!(TinInputs<T>);

impl<'a, S: Memory, T: Element> TinInputs<'a, S, T> {
    /// Rows of candidates, of behaviours and of positions, which are counted from the newest behaviour.
    pub fn new(targets: View<'a, S, T>, history: View<'a, S, T>, positions: View<'a, S, T>) -> Self {
        Self { targets, history, positions, history_positions: None, target_positions: None }
    }

    /// Gives the position of each behaviour, `[N]`, such as a bucket of the time since then.
    pub fn with_history_positions(self, history_positions: View<'a, S, u32>) -> Self {
        Self { history_positions: Some(history_positions), ..self }
    }

    /// Gives the position of each candidate, `[M]`.
    pub fn with_target_positions(self, target_positions: View<'a, S, u32>) -> Self {
        Self { target_positions: Some(target_positions), ..self }
    }
}

impl<'a, S: Memory, T: Element> TinOutputs<'a, S, T> {
    /// Writes the output only.
    pub fn new(out: ViewMut<'a, S, T>) -> Self {
        Self { out, pooled: None, lse: None }
    }

    /// Also writes what the backward pass needs: `Σ α·ẽ`, `[M, d]`, and the log-sum-exp, `[M]`.
    pub fn with_saved(self, pooled: ViewMut<'a, S, T>, lse: ViewMut<'a, S, f32>) -> Self {
        Self { pooled: Some(pooled), lse: Some(lse), ..self }
    }
}
