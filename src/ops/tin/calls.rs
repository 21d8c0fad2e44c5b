//! The calls of TIN.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::Result;
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
}
