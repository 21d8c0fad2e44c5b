//! The calls of TIN.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::tin::backward::{TinGradients, TinSaved};
use crate::ops::tin::inputs::{TinInputs, TinOutputs};
use crate::ops::tin::parameters::{NAME, Tin};

/// TIN on a device; see [`Tin`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait TinOps: DeviceOps {
    /// TIN into given outputs; see [`Tin`].
    ///
    /// # Errors
    /// Those of [`Tin::check`] and [`Tin::check_outputs`].
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &Self::Batch,
        inputs: TinInputs<'_, Self::Memory, T>,
        outputs: TinOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, outputs);
        Err(unsupported(self, NAME))
    }

    /// TIN, `[M, d]`; see [`Tin`].
    ///
    /// # Errors
    /// As [`tin_into`](Self::tin_into).
    fn tin<T: Element>(
        &self,
        op: &Tin,
        batch: &Self::Batch,
        inputs: TinInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.tin_into(op, batch, inputs, TinOutputs::new(self.view_mut(&mut out)))?;
        Ok(out)
    }

    /// The gradients of TIN; see [`Tin`]. `grad_out` is the gradient of the output, `[M, d]`. With the weights `α` of one candidate:
    ///
    /// ```text
    /// da = grad_out ⊙ ṽ                 grad_out without multiply_target
    /// ds_l = α_l·(⟨da, ẽ_l⟩ − ⟨da, a⟩)
    /// dẽ_l = Σ_m (α_l·da + scale·ds_l·ṽ)
    /// dṽ = scale·Σ_l ds_l·ẽ_l + grad_out ⊙ a            the last term with multiply_target
    /// de = dẽ     dv = dṽ     dp[i] = Σ_{l: f(l) = i} dẽ_l + Σ_{m: f(m) = i} dṽ_m
    /// ```
    ///
    /// Every row of a user, and of positions, is overwritten: with zeros where nothing contributes. Rows that belong to nobody are left as they
    /// are. The sums of a position are in the order of behaviours, then of candidates.
    ///
    /// # Errors
    /// Those of [`Tin::check`] and [`Tin::check_backward`].
    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &Self::Batch,
        inputs: TinInputs<'_, Self::Memory, T>,
        saved: TinSaved<'_, Self::Memory, T>,
        grad_out: View<'_, Self::Memory, T>,
        grads: TinGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, saved, grad_out, grads);
        Err(unsupported(self, "tin_backward"))
    }
}
