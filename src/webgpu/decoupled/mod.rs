//! Decoupled embeddings: search, aggregate, attend, and their gradients.

mod aggregate;
mod attend;
mod backward;
mod keys;
mod queries;
mod search;

use crate::error::Result;
use crate::gpu;
use crate::memory::{View, ViewMut};
use crate::ops::{
    AggregateGradients, AggregateInputs, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledOps,
    DecoupledSaved, SearchGradients, SearchInputs, Selection, SelectionBuffers, SelectionMut,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl DecoupledOps for Wgpu {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: SearchInputs<'_, WgpuMemory>,
        out: SelectionMut<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| search::search(gpu, op, batch, &inputs, out))
    }

    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: SearchInputs<'_, WgpuMemory>,
    ) -> Result<SelectionBuffers<WgpuMemory>> {
        gpu::search(self, op, batch, inputs)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: AggregateInputs<'_, WgpuMemory>,
        selection: Selection<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| aggregate::aggregate(gpu, op, batch, &inputs, &selection, out))
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: DecoupledInputs<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| attend::attend(gpu, op, batch, &inputs, out))
    }

    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: SearchInputs<'_, WgpuMemory>,
        selection: Selection<'_, WgpuMemory>,
        grad_scores: View<'_, WgpuMemory, f32>,
        grads: SearchGradients<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| backward::search_backward(gpu, op, batch, (&inputs, &selection), grad_scores, &grads))
    }

    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: AggregateInputs<'_, WgpuMemory>,
        selection: Selection<'_, WgpuMemory>,
        grad_out: View<'_, WgpuMemory, f32>,
        grads: AggregateGradients<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| backward::aggregate_backward(gpu, op, batch, (&inputs, &selection), grad_out, &grads))
    }

    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: DecoupledInputs<'_, WgpuMemory>,
        saved: DecoupledSaved<'_, WgpuMemory>,
        grad_out: View<'_, WgpuMemory, f32>,
        grads: DecoupledGradients<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| backward::attend_backward(gpu, op, batch, (&inputs, &saved), grad_out, &grads))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [aggregate::variants(), backward::variants(), keys::variants(), queries::variants()].concat()
}
