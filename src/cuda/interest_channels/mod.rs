//! Interest channels (`pool.rs`) and their gradients (`backward.rs`): axes at right angles (`axes.rs`), and the parts of a batch that are
//! computed together (`parts.rs`).

pub(super) mod axes;
pub(super) mod backward;
pub(super) mod parts;
pub(super) mod pool;

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::cuda::tables::COLUMNS;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::View;
use crate::ops::*;

/// Bytes of a number.
const WORD: usize = size_of::<f32>();

impl InterestChannelsOps for Cuda {
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &CudaBatch,
        inputs: InterestChannelsInputs<'_, CudaMemory, T>,
        outputs: InterestChannelsOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        pool::write(self, op, batch, &inputs, &outputs)
    }

    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &CudaBatch,
        inputs: InterestChannelsInputs<'_, CudaMemory, T>,
        saved: InterestChannelsSaved<'_, CudaMemory>,
        grad_out: View<'_, CudaMemory, T>,
        grads: InterestChannelsGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::backward(self, op, batch, &inputs, (&saved, &grad_out), &grads)
    }
}

/// The width of rows, and the channels of a candidate, as kernels take them.
fn row_sizes(operation: &'static str, op: &InterestChannels) -> Result<[u32; 2]> {
    // Kernels count the bytes of a row in 32 bits, and some past its end.
    fit(operation, "width", op.width.saturating_add(32 * COLUMNS).saturating_mul(WORD))?;
    Ok([op.width as u32, fit(operation, "channels", op.channels)?])
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [axes::table(), pool::table(), backward::table()].concat()
}
