//! Interest channels and their gradients.
//!
//! The axes of all candidates are put at right angles first (`axes.rs`). A search keeps the best behaviours of each channel: it scores each
//! along all axes of a candidate, which says where it goes, and offers it to the list of its channel (`search.rs`). Then the rows that channels
//! keep are gathered and added up as those of a selection are, one list for each channel (`lists.rs`, `src/webgpu/selected/sums.rs`).

mod axes;
mod backward;
mod forward;
mod lists;
mod search;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{
    InterestChannels, InterestChannelsGradients, InterestChannelsInputs, InterestChannelsOps,
    InterestChannelsOutputs, InterestChannelsSaved,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl InterestChannelsOps for Wgpu {
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &WgpuBatch,
        inputs: InterestChannelsInputs<'_, WgpuMemory, T>,
        outputs: InterestChannelsOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| forward::forward(gpu, op, batch, &inputs, outputs))
    }

    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &WgpuBatch,
        inputs: InterestChannelsInputs<'_, WgpuMemory, T>,
        saved: InterestChannelsSaved<'_, WgpuMemory>,
        grad_out: View<'_, WgpuMemory, T>,
        grads: InterestChannelsGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward(gpu, op, batch, &inputs, (&saved, grad_out), grads))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [axes::variants(), search::variants(), lists::variants(), forward::variants(), backward::variants()]
        .concat()
}
