//! Decoupled embeddings: searches in one table, aggregates from another.

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::memory::CudaMemory;
use crate::error::{Error, Result};
use crate::memory::ViewMut;
use crate::ops::*;

pub(super) fn search(
    _gpu: &Cuda,
    _op: &Decoupled,
    _batch: &CudaBatch,
    _inputs: &SearchInputs<'_, CudaMemory>,
    _out: SelectionMut<'_, CudaMemory>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "decoupled_search",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn aggregate(
    _gpu: &Cuda,
    _op: &Decoupled,
    _batch: &CudaBatch,
    _inputs: &AggregateInputs<'_, CudaMemory>,
    _selection: &Selection<'_, CudaMemory>,
    _out: ViewMut<'_, CudaMemory, f32>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "decoupled_aggregate",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn attend(
    _gpu: &Cuda,
    _op: &Decoupled,
    _batch: &CudaBatch,
    _inputs: &DecoupledInputs<'_, CudaMemory>,
    _out: ViewMut<'_, CudaMemory, f32>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "decoupled_attend",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}
