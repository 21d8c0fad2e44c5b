//! The backward pass of TIN: what comes in, what is asked for, and their checks.

use crate::element::Element;
use crate::error::Result;
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{Dim, copy_views, dim, expect, product};
use crate::ops::tin::inputs::TinInputs;
use crate::ops::tin::parameters::Tin;

const NAME: &str = "tin_backward";

/// What the backward pass takes from the forward pass.
#[non_exhaustive]
pub struct TinSaved<'a, S: Memory, T: Element> {
    /// `[M, d]`: `Σ α·ẽ`, before the product with the candidate.
    pub pooled: View<'a, S, T>,
    /// `[M]`: the log-sum-exp.
    pub lse: View<'a, S, f32>,
}

/// The gradients that the backward pass writes: those that are asked for. `G` is the storage type of the inputs, or `f32`.
#[non_exhaustive]
pub struct TinGradients<'a, S: Memory, G: Element> {
    /// `[M, d]`.
    pub targets: Option<ViewMut<'a, S, G>>,
    /// `[N, d]`.
    pub history: Option<ViewMut<'a, S, G>>,
    /// `[P, d]`: the sums over the behaviours and candidates of each position; zeros where there are none.
    pub positions: Option<ViewMut<'a, S, G>>,
}

copy_views!(TinSaved<T>);

impl<'a, S: Memory, T: Element> TinSaved<'a, S, T> {
    /// What [`TinOutputs::with_saved`](crate::TinOutputs::with_saved) wrote.
    pub fn new(pooled: View<'a, S, T>, lse: View<'a, S, f32>) -> Self {
        Self { pooled, lse }
    }
}

impl<'a, S: Memory, G: Element> TinGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { targets: None, history: None, positions: None }
    }

    /// Asks for the gradient of the candidates, `[M, d]`.
    pub fn with_targets(self, targets: ViewMut<'a, S, G>) -> Self {
        Self { targets: Some(targets), ..self }
    }

    /// Asks for the gradient of the behaviours, `[N, d]`.
    pub fn with_history(self, history: ViewMut<'a, S, G>) -> Self {
        Self { history: Some(history), ..self }
    }

    /// Asks for the gradient of the table of positions, `[P, d]`.
    pub fn with_positions(self, positions: ViewMut<'a, S, G>) -> Self {
        Self { positions: Some(positions), ..self }
    }
}

impl<S: Memory, G: Element> Default for TinGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl Tin {
    /// Checks parameters, inputs, what comes into the backward pass and what it is to write.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`](crate::Error::Shape) for a view of the wrong size, and for histories that share rows.
    pub fn check_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &TinInputs<'_, S, T>,
        saved: &TinSaved<'_, S, T>,
        grad_out: usize,
        grads: &TinGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_backward_in(batch, inputs, grad_out)?;
        batch.histories().check_disjoint(NAME)?;
        let d = dim("d", self.width);
        let (m, n) = (dim("M", batch.targets().rows()), dim("N", batch.histories().rows()));
        expect(NAME, "saved.pooled", saved.pooled.len(), &[m, d])?;
        expect(NAME, "saved.lse", saved.lse.len(), &[m])?;
        let asked = |argument, view: &Option<ViewMut<'_, S, G>>, shape: [Dim; 2]| {
            view.as_ref().map_or(Ok(()), |view| expect(NAME, argument, view.len(), &shape).map(drop))
        };
        asked("grads.targets", &grads.targets, [m, d])?;
        asked("grads.history", &grads.history, [n, d])?;
        asked("grads.positions", &grads.positions, [dim("P", self.positions), d])
    }

    /// The same of inputs and of the length of the gradient that comes in alone.
    pub(crate) fn check_backward_in<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &TinInputs<'_, S, T>,
        grad_out: usize,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)?;
        let shape = [dim("M", batch.targets().rows()), dim("d", self.width)];
        expect(NAME, "grad_out", grad_out, &shape).map(drop)
    }

    /// Multiplications and additions of the backward pass with all gradients (exponentials not counted): scores and `⟨da, ẽ⟩` again, and
    /// the gradients of candidates and behaviours, `10·C·L·d`, summed over users. At most `u64::MAX`.
    pub fn backward_flops(&self, batch: &Batch) -> u64 {
        product(&[10, batch.pairs(), self.width as u64])
    }
}
