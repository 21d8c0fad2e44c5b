//! Look-ups: gathers rows, or pools them over bags.

use crate::cuda::Cuda;
use crate::cuda::batch::CudaJagged;
use crate::cuda::memory::CudaMemory;
use crate::error::{Error, Result};
use crate::ops::*;

pub(super) fn lookup(
    _gpu: &Cuda,
    _op: &Lookup,
    _bags: Bags<'_, CudaJagged>,
    _inputs: &LookupInputs<'_, CudaMemory>,
    _outputs: LookupOutputs<'_, CudaMemory>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "lookup",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}
