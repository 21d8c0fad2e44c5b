//! Decoupled embeddings: searches in one set of tables (`search.rs`), aggregates from another (`aggregate.rs`), or attends
//! to all behaviours (`attend.rs`); and their gradients (`backward/`). `scores.rs` and `rows.rs` have what these share.

pub(super) mod aggregate;
pub(super) mod attend;
pub(super) mod backward;
pub(super) mod rows;
pub(super) mod scores;
pub(super) mod search;

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::error::Result;
use crate::gpu;
use crate::memory::{View, ViewMut};
use crate::ops::*;

impl DecoupledOps for Cuda {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: SearchInputs<'_, CudaMemory>,
        out: SelectionMut<'_, CudaMemory>,
    ) -> Result<()> {
        search::search(self, op, batch, &inputs, out)
    }

    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: SearchInputs<'_, CudaMemory>,
    ) -> Result<SelectionBuffers<CudaMemory>> {
        gpu::search(self, op, batch, inputs)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: AggregateInputs<'_, CudaMemory>,
        selection: Selection<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        aggregate::aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: DecoupledInputs<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        attend::attend(self, op, batch, &inputs, out)
    }

    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: SearchInputs<'_, CudaMemory>,
        selection: Selection<'_, CudaMemory>,
        grad_scores: View<'_, CudaMemory, f32>,
        grads: SearchGradients<'_, CudaMemory>,
    ) -> Result<()> {
        backward::search_backward(self, op, batch, (&inputs, &selection), grad_scores, &grads)
    }

    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: AggregateInputs<'_, CudaMemory>,
        selection: Selection<'_, CudaMemory>,
        grad_out: View<'_, CudaMemory, f32>,
        grads: AggregateGradients<'_, CudaMemory>,
    ) -> Result<()> {
        backward::aggregate_backward(self, op, batch, (&inputs, &selection), grad_out, &grads)
    }

    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: DecoupledInputs<'_, CudaMemory>,
        saved: DecoupledSaved<'_, CudaMemory>,
        grad_out: View<'_, CudaMemory, f32>,
        grads: DecoupledGradients<'_, CudaMemory>,
    ) -> Result<()> {
        backward::attend_backward(self, op, batch, (&inputs, &saved), grad_out, &grads)
    }
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [search::table(), aggregate::table(), attend::table(), backward::table()].concat()
}
