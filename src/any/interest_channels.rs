//! Interest channels.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory};
use crate::any::open::opens;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{
    InterestChannels, InterestChannelsGradients, InterestChannelsInputs, InterestChannelsOps,
    InterestChannelsOutputs, InterestChannelsSaved,
};

opens! {
    InterestChannelsInputs<T> { axes, history } as [];
    InterestChannelsOutputs<T> { out, kept } as [];
    InterestChannelsSaved { kept } as ["saved"];
    InterestChannelsGradients<T> { axes, history } as ["grads"];
}

impl InterestChannelsOps for AnyBackend {
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &AnyBatch,
        inputs: InterestChannelsInputs<'_, AnyMemory, T>,
        outputs: InterestChannelsOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("interest_channels", self.interest_channels_into(op; batch, inputs, outputs))
    }

    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &AnyBatch,
        inputs: InterestChannelsInputs<'_, AnyMemory, T>,
        saved: InterestChannelsSaved<'_, AnyMemory>,
        grad_out: View<'_, AnyMemory, T>,
        grads: InterestChannelsGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("interest_channels_backward", self.interest_channels_backward_into(op; batch, inputs, saved, grad_out, grads))
    }
}
