//! SDIM: signatures (`signatures.rs`, `items.rs`), bucket tables (`encode.rs`, `shares.rs`, `tables.rs`), what reads them (`query.rs`), and both at once
//! (`attend.rs`); gradients (`backward.rs`, `gather.rs`).

pub(super) mod attend;
pub(super) mod backward;
pub(super) mod encode;
pub(super) mod gather;
pub(super) mod items;
pub(super) mod query;
pub(super) mod shares;
pub(super) mod signatures;
pub(super) mod tables;

use crate::cuda::batch::{CudaBatch, CudaJagged};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::element::{Element, GradientOf, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};

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
        encode::encode(self, Change::Encode, op, histories, &inputs, table)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &CudaJagged,
        inputs: SdimEncodeInputs<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        encode::encode(self, Change::Append, op, new, &inputs, table)
    }

    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &CudaJagged,
        inputs: SdimEncodeInputs<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        encode::encode(self, Change::Remove, op, gone, &inputs, table)
    }

    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, CudaMemory, f32>,
        factors: View<'_, CudaMemory, f32>,
    ) -> Result<()> {
        tables::decay(self, op, table, factors)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, CudaMemory, f32>,
        other: View<'_, CudaMemory, f32>,
    ) -> Result<()> {
        tables::add_tables(self, op, table, other)
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
        attend::attend(self, op, batch, &inputs, out)
    }

    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &CudaJagged,
        inputs: SdimQueryInputs<'_, CudaMemory, T>,
        grad_out: View<'_, CudaMemory, T>,
        grad_table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        backward::query(self, op, targets, &inputs, (grad_out, grad_table))
    }

    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &CudaJagged,
        inputs: SdimEncodeInputs<'_, CudaMemory, T>,
        grad_table: View<'_, CudaMemory, f32>,
        grad_history: ViewMut<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::encode(self, op, histories, &inputs, (grad_table, grad_history))
    }

    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &CudaBatch,
        inputs: SdimAttendInputs<'_, CudaMemory, T>,
        grad_out: View<'_, CudaMemory, T>,
        grad_history: ViewMut<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::attend(self, op, batch, &inputs, (grad_out, grad_history))
    }
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    let forward = [signatures::table(), encode::table(), tables::table(), query::table()];
    [forward.concat(), items::table(), backward::table(), gather::table()].concat()
}
