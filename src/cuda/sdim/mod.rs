//! SDIM: signatures (`signatures.rs`), bucket tables (`encode.rs`), and what reads them (`query.rs`).

pub(super) mod encode;
pub(super) mod query;
pub(super) mod signatures;

use crate::cuda::batch::{CudaBatch, CudaJagged};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::element::{Element, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};

impl SdimOps for Cuda {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, CudaMemory, T>,
        rotations: View<'_, CudaMemory, f32>,
        out: ViewMut<'_, CudaMemory, W>,
    ) -> Result<()> {
        signatures::signatures(self, op, rows, rotations, out)
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &CudaJagged,
        inputs: SdimEncodeInputs<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        encode::encode(self, "sdim_encode", op, histories, &inputs, table, false)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &CudaJagged,
        inputs: SdimEncodeInputs<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        encode::encode(self, "sdim_append", op, new, &inputs, table, true)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, CudaMemory, f32>,
        other: View<'_, CudaMemory, f32>,
    ) -> Result<()> {
        encode::add_tables(self, op, table, other)
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &CudaJagged,
        inputs: SdimQueryInputs<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        query::query(self, op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &CudaBatch,
        inputs: SdimAttendInputs<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        query::attend(self, op, batch, &inputs, out)
    }
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [signatures::table(), encode::table(), query::table()].concat()
}
