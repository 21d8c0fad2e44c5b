//! Decoupled embeddings: search, aggregate, attend.

mod aggregate;
mod attend;
mod combine;
mod keys;
mod queries;
mod search;

use crate::error::Result;
use crate::gpu;
use crate::memory::ViewMut;
use crate::ops::{
    AggregateInputs, Decoupled, DecoupledInputs, DecoupledOps, SearchInputs, Selection, SelectionBuffers,
    SelectionMut,
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
        search::search(self, op, batch, &inputs, out)
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
        aggregate::aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: DecoupledInputs<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        attend::attend(self, op, batch, &inputs, out)
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [aggregate::variants(), combine::variants(), keys::variants(), queries::variants()].concat()
}
