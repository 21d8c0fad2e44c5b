//! DIN: folds the first layer, scores and pools.

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::memory::CudaMemory;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::memory::ViewMut;
use crate::ops::*;

pub(super) fn attend<T: Element>(
    _gpu: &Cuda,
    _op: &Din,
    _batch: &CudaBatch,
    _inputs: &DinInputs<'_, CudaMemory, T>,
    _out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "din",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}
