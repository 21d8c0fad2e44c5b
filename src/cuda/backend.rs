//! The trait, each call passed on to its room.

use std::sync::{Arc, Mutex};

use crate::backend::Backend;
use crate::cuda::batch::{CudaBatch, CudaJagged};
use crate::cuda::faults::Records;
use crate::cuda::launch::{Allocation, read};
use crate::cuda::memory::{CudaBuffer, CudaMemory};
use crate::cuda::{
    Cuda, decoupled, decoupled_search, din, lookup, sdim, sdim_encode, sdim_query, target_attention,
};
use crate::element::{Element, Scalar, Signature};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::ops::*;

impl Backend for Cuda {
    type Memory = CudaMemory;
    type Jagged = CudaJagged;
    type Batch = CudaBatch;

    fn device(&self) -> String {
        self.shared.name.clone()
    }

    fn fork(&self) -> Result<Self> {
        let records = Records::new(self.stream(), "fork")?;
        Ok(Self { records: Arc::new(Mutex::new(records)), ..self.clone() })
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<CudaBuffer<T>> {
        let allocation = self.list("upload", data)?;
        Ok(CudaBuffer::allocated(allocation, data.len(), self.stream().clone()))
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<CudaBuffer<T>> {
        const NAME: &str = "zeros";
        let limit = isize::MAX as u64;
        let bytes = length
            .checked_mul(size_of::<T>())
            .filter(|&bytes| bytes as u64 <= limit)
            .ok_or(Error::Limit { operation: NAME, argument: "length", needed: length as u64, limit })?;
        let allocation = Allocation::new(self.stream(), NAME, bytes)?;
        allocation.fill(NAME, 0)?;
        Ok(CudaBuffer::allocated(allocation, length, self.stream().clone()))
    }

    fn download<T: Scalar>(&self, view: View<'_, CudaMemory, T>) -> Result<Vec<T>> {
        const NAME: &str = "download";
        let region = self.region(NAME, &view)?;
        let mut data = vec![T::zeroed(); region.length];
        read(self.stream(), NAME, region.pointer, bytemuck::cast_slice_mut(&mut data))?;
        self.take_records(NAME)?;
        Ok(data)
    }

    fn synchronize(&self) -> Result<()> {
        self.take_records("synchronize")
    }

    fn jagged(&self, jagged: &Jagged) -> Result<CudaJagged> {
        CudaJagged::new(jagged.clone(), self.stream())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<CudaBatch> {
        Ok(CudaBatch::new(Batch::new(histories.clone(), targets.clone())?, self.stream()))
    }

    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &CudaBatch,
        inputs: TargetAttentionInputs<'_, CudaMemory, T>,
        outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        target_attention::attend(self, op, batch, &inputs, outputs)
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, CudaMemory, T>,
        second: PartialAttention<'_, CudaMemory, T>,
        outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        target_attention::merge(self, op, first, second, outputs)
    }

    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &CudaBatch,
        inputs: DinInputs<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        din::attend(self, op, batch, &inputs, out)
    }

    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, CudaMemory, T>,
        rotations: View<'_, CudaMemory, f32>,
        out: ViewMut<'_, CudaMemory, W>,
    ) -> Result<()> {
        sdim::signatures(self, op, rows, rotations, out)
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &CudaJagged,
        inputs: SdimHistory<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        sdim_encode::encode(self, "sdim_encode", op, histories, &inputs, table, false)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &CudaJagged,
        inputs: SdimHistory<'_, CudaMemory, T>,
        table: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        sdim_encode::encode(self, "sdim_append", op, new, &inputs, table, true)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, CudaMemory, f32>,
        other: View<'_, CudaMemory, f32>,
    ) -> Result<()> {
        sdim_encode::add_tables(self, op, table, other)
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &CudaJagged,
        inputs: SdimQuery<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        sdim_query::query(self, op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &CudaBatch,
        inputs: SdimInputs<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        sdim_query::attend(self, op, batch, &inputs, out)
    }

    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, CudaJagged>,
        inputs: LookupInputs<'_, CudaMemory>,
        outputs: LookupOutputs<'_, CudaMemory>,
    ) -> Result<()> {
        lookup::lookup(self, op, bags, &inputs, outputs)
    }

    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: SearchInputs<'_, CudaMemory>,
        out: SelectionMut<'_, CudaMemory>,
    ) -> Result<()> {
        decoupled_search::search(self, op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: AggregateInputs<'_, CudaMemory>,
        selection: Selection<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        decoupled::aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: DecoupledInputs<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        decoupled::attend(self, op, batch, &inputs, out)
    }
}
