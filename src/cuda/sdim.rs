//! SDIM: hashes, fills and reads bucket tables.

use crate::cuda::Cuda;
use crate::cuda::batch::{CudaBatch, CudaJagged};
use crate::cuda::memory::CudaMemory;
use crate::element::{Element, Signature};
use crate::error::{Error, Result};
use crate::memory::{View, ViewMut};
use crate::ops::*;

pub(super) fn signatures<T: Element, W: Signature>(
    _gpu: &Cuda,
    _op: &Sdim,
    _rows: View<'_, CudaMemory, T>,
    _rotations: View<'_, CudaMemory, f32>,
    _out: ViewMut<'_, CudaMemory, W>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "sdim_signatures",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn encode<T: Element>(
    _gpu: &Cuda,
    _operation: &'static str,
    _op: &Sdim,
    _histories: &CudaJagged,
    _inputs: &SdimHistory<'_, CudaMemory, T>,
    _table: ViewMut<'_, CudaMemory, f32>,
    _append: bool,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "sdim_encode",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn add_tables(
    _gpu: &Cuda,
    _op: &Sdim,
    _table: ViewMut<'_, CudaMemory, f32>,
    _other: View<'_, CudaMemory, f32>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "sdim_add_tables",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn query<T: Element>(
    _gpu: &Cuda,
    _op: &Sdim,
    _targets: &CudaJagged,
    _inputs: &SdimQuery<'_, CudaMemory, T>,
    _out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "sdim_query",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn attend<T: Element>(
    _gpu: &Cuda,
    _op: &Sdim,
    _batch: &CudaBatch,
    _inputs: &SdimInputs<'_, CudaMemory, T>,
    _out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    Err(Error::Unsupported {
        operation: "sdim_attend",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}
