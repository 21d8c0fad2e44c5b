//! The trait, each call passed on to its room.

use std::sync::Arc;

use crate::backend::Backend;
use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::ops::*;
use crate::webgpu::batch::{WgpuBatch, WgpuJagged};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::{Wgpu, decoupled, din, lookup, sdim, target_attention};

impl Backend for Wgpu {
    type Memory = WgpuMemory;
    type Jagged = WgpuJagged;
    type Batch = WgpuBatch;

    fn device(&self) -> String {
        let info = self.shared.device.adapter_info();
        format!("{} ({:?}, {:?})", info.name, info.backend, info.device_type)
    }

    fn fork(&self) -> Result<Self> {
        Ok(Self { reports: Arc::default(), ..self.clone() })
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<WgpuBuffer<T>> {
        self.upload_slice("upload", data)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<WgpuBuffer<T>> {
        self.zeroed("zeros", length)
    }

    fn download<T: Scalar>(&self, view: View<'_, WgpuMemory, T>) -> Result<Vec<T>> {
        self.download_view("download", Some(Region::of(view)))
    }

    fn synchronize(&self) -> Result<()> {
        self.download_view::<u32>("synchronize", None).map(drop)
    }

    fn jagged(&self, jagged: &Jagged) -> Result<WgpuJagged> {
        WgpuJagged::new(jagged.clone())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<WgpuBatch> {
        Ok(WgpuBatch::new(Batch::new(histories.clone(), targets.clone())?))
    }

    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &WgpuBatch,
        inputs: TargetAttentionInputs<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        target_attention::attend(self, op, batch, &inputs, outputs)
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, WgpuMemory, T>,
        second: PartialAttention<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        target_attention::merge(self, op, first, second, outputs)
    }

    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &WgpuBatch,
        inputs: DinInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        din::attend(self, op, batch, &inputs, out)
    }

    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, WgpuMemory, T>,
        rotations: View<'_, WgpuMemory, f32>,
        out: ViewMut<'_, WgpuMemory, W>,
    ) -> Result<()> {
        sdim::signatures(self, op, rows, rotations, out)
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &WgpuJagged,
        inputs: SdimHistory<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        sdim::encode(self, "sdim_encode", op, histories, &inputs, table, false)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &WgpuJagged,
        inputs: SdimHistory<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        sdim::encode(self, "sdim_append", op, new, &inputs, table, true)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, WgpuMemory, f32>,
        other: View<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        sdim::add_tables(self, op, table, other)
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &WgpuJagged,
        inputs: SdimQuery<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        sdim::query(self, "sdim_query", op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &WgpuBatch,
        inputs: SdimInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        sdim::attend(self, op, batch, &inputs, out)
    }

    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, WgpuJagged>,
        inputs: LookupInputs<'_, WgpuMemory>,
        outputs: LookupOutputs<'_, WgpuMemory>,
    ) -> Result<()> {
        lookup::lookup(self, op, bags, &inputs, outputs)
    }

    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: SearchInputs<'_, WgpuMemory>,
        out: SelectionMut<'_, WgpuMemory>,
    ) -> Result<()> {
        decoupled::search(self, op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: AggregateInputs<'_, WgpuMemory>,
        selection: Selection<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        decoupled::aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: DecoupledInputs<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        decoupled::attend(self, op, batch, &inputs, out)
    }
}
