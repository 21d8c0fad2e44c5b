//! The calls of interest channels.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::interest_channels::backward::{
    InterestChannelsGradients, InterestChannelsSaved, NAME as BACKWARD,
};
use crate::ops::interest_channels::inputs::{InterestChannelsInputs, InterestChannelsOutputs};
use crate::ops::interest_channels::parameters::{InterestChannels, NAME};

/// Interest channels on a device; see [`InterestChannels`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait InterestChannelsOps: DeviceOps {
    /// Interest channels into given outputs; see [`InterestChannels`].
    ///
    /// # Errors
    /// Those of [`InterestChannels::check`] and [`InterestChannels::check_outputs`].
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &Self::Batch,
        inputs: InterestChannelsInputs<'_, Self::Memory, T>,
        outputs: InterestChannelsOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, outputs);
        Err(unsupported(self, NAME))
    }

    /// Interest channels, `[M, c, d]`; see [`InterestChannels`].
    ///
    /// # Errors
    /// As [`interest_channels_into`](Self::interest_channels_into).
    fn interest_channels<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &Self::Batch,
        inputs: InterestChannelsInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.interest_channels_into(
            op,
            batch,
            inputs,
            InterestChannelsOutputs::new(self.view_mut(&mut out)),
        )?;
        Ok(out)
    }

    /// The gradients of interest channels, of what was kept; see [`InterestChannels`]. `grad_out` is the gradient of the output,
    /// `[M, c, d]`. For one candidate:
    ///
    /// ```text
    /// dr_i = grad_out_i                                     with normalise: (grad_out_i − u·⟨u, grad_out_i⟩)/‖r_i‖, u = r_i/‖r_i‖;
    ///                                                       grad_out_i/1e-12 where ‖r_i‖ is not above that
    /// de_l = (1/L) Σ_m (A_li·dr_i + ⟨dr_i, e_l⟩·O_i)        i the channel that keeps l
    /// dO_i = (1/L) Σ_{l in kept_i} ⟨dr_i, e_l⟩·e_l
    /// dM from dO through O·R = M                            for i from c down to 1:
    ///     dv = (dO_i − O_i·⟨O_i, dO_i⟩)/R_ii                dM_i = dv − Σ_{j<i} O_j·⟨O_j, dv⟩
    ///     dO_j −= R_ji·dv + ⟨O_j, dv⟩·M_i                   j < i
    /// ```
    ///
    /// None goes through the choice of channels and of what is kept. Every row of a user is overwritten: with zeros where nothing contributes.
    /// Rows that belong to nobody are left as they are. A candidate whose axes are not finite has gradients of NaN of its axes.
    ///
    /// # Errors
    /// Those of [`InterestChannels::check`] and [`InterestChannels::check_backward`].
    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &Self::Batch,
        inputs: InterestChannelsInputs<'_, Self::Memory, T>,
        saved: InterestChannelsSaved<'_, Self::Memory>,
        grad_out: View<'_, Self::Memory, T>,
        grads: InterestChannelsGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, saved, grad_out, grads);
        Err(unsupported(self, BACKWARD))
    }
}
