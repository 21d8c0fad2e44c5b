//! The calls of DIN's local activation unit.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::din::inputs::DinInputs;
use crate::ops::din::parameters::Din;

/// DIN's local activation unit on a device; see [`Din`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait DinOps: DeviceOps {
    /// DIN's local activation unit into a given output `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// Those of [`Din::check`].
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "din"))
    }

    /// DIN's local activation unit, `[M, d]`; see [`Din`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Activation, Cpu, Din, DinInputs, DinLayer, DinPooling, Host, Jagged};
    ///
    /// let backend = Cpu::new();
    /// // Two users with 2 and 0 behaviours, one candidate each; width 2, two hidden layers of 3 and 2 units.
    /// let batch = backend.batch(&Jagged::from_lengths(&[2, 0])?, &Jagged::from_lengths(&[1, 1])?)?;
    /// let (targets, history) = ([0.5_f32; 4], [1.0, 2.0, 3.0, 4.0]);
    /// let (w1, b1, w2, b2) = ([0.0_f32; 3 * 8], [0.0; 3], [0.0_f32; 2 * 3], [0.0; 2]);
    /// let hidden = [
    ///     DinLayer::new(Host::view(&w1), Host::view(&b1), Activation::Sigmoid),
    ///     DinLayer::new(Host::view(&w2), Host::view(&b2), Activation::Prelu { alpha: Host::view(&[0.25]) }),
    /// ];
    /// let (w3, b3) = ([1.0_f32; 2], [0.0]);
    /// let inputs = DinInputs::new(
    ///     Host::view(&targets),
    ///     Host::view(&history),
    ///     &hidden,
    ///     Host::view(&w3),
    ///     Host::view(&b3),
    /// );
    /// let op = Din::new(2).with_pooling(DinPooling::Softmax);
    /// let out = backend.din(&op, &batch, inputs)?;
    /// assert_eq!(*out, [2.0, 3.0, 0.0, 0.0]); // equal scores: the mean; an empty history: zeros
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`din_into`](Self::din_into).
    fn din<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.din_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
