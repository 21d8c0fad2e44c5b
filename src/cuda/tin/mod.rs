//! TIN: target attention whose keys, which are the values, are sums of behaviours and positions, made as the history is read.
//!
//! The candidates' sums come first, in scratch memory; then the kernels of `kernels/target_attention`, with loaders that add rows of
//! positions; then what combines partial results, and multiplies by the candidates.

pub(super) mod attend;
pub(super) mod backward;
pub(super) mod positions;
pub(super) mod rows;
pub(super) mod variants;

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{Tin, TinGradients, TinInputs, TinOps, TinOutputs, TinSaved};

impl TinOps for Cuda {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &CudaBatch,
        inputs: TinInputs<'_, CudaMemory, T>,
        outputs: TinOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        attend::attend(self, op, batch, &inputs, &outputs)
    }

    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &CudaBatch,
        inputs: TinInputs<'_, CudaMemory, T>,
        saved: TinSaved<'_, CudaMemory, T>,
        grad_out: View<'_, CudaMemory, T>,
        grads: TinGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::backward(self, op, batch, &inputs, (&saved, grad_out), &grads)
    }
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    variants::table()
}
