//! The trait, each call passed on to its room.

use crate::backend::Backend;
use crate::element::{Element, Scalar, Signature};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::ops::*;
use crate::webgpu::batch::{WgpuBatch, WgpuJagged};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::{Wgpu, din, target_attention};

fn later(operation: &'static str) -> Error {
    Error::Unsupported { operation, what: "this operation on Wgpu".into(), supported: "Cpu".into() }
}

impl Backend for Wgpu {
    type Memory = WgpuMemory;
    type Jagged = WgpuJagged;
    type Batch = WgpuBatch;

    fn device(&self) -> String {
        let info = self.shared.device.adapter_info();
        format!("{} ({:?}, {:?})", info.name, info.backend, info.device_type)
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
        _op: &Sdim,
        _rows: View<'_, WgpuMemory, T>,
        _rotations: View<'_, WgpuMemory, f32>,
        _out: ViewMut<'_, WgpuMemory, W>,
    ) -> Result<()> {
        Err(later("sdim_signatures"))
    }

    fn sdim_encode_into<T: Element>(
        &self,
        _op: &Sdim,
        _histories: &WgpuJagged,
        _inputs: SdimHistory<'_, WgpuMemory, T>,
        _table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        Err(later("sdim_encode"))
    }

    fn sdim_append<T: Element>(
        &self,
        _op: &Sdim,
        _new: &WgpuJagged,
        _inputs: SdimHistory<'_, WgpuMemory, T>,
        _table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        Err(later("sdim_append"))
    }

    fn sdim_add_tables(
        &self,
        _op: &Sdim,
        _table: ViewMut<'_, WgpuMemory, f32>,
        _other: View<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        Err(later("sdim_add_tables"))
    }

    fn sdim_query_into<T: Element>(
        &self,
        _op: &Sdim,
        _targets: &WgpuJagged,
        _inputs: SdimQuery<'_, WgpuMemory, T>,
        _out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        Err(later("sdim_query"))
    }

    fn sdim_attend_into<T: Element>(
        &self,
        _op: &Sdim,
        _batch: &WgpuBatch,
        _inputs: SdimInputs<'_, WgpuMemory, T>,
        _out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        Err(later("sdim_attend"))
    }

    fn lookup_into(
        &self,
        _op: &Lookup,
        _bags: Bags<'_, WgpuJagged>,
        _inputs: LookupInputs<'_, WgpuMemory>,
        _outputs: LookupOutputs<'_, WgpuMemory>,
    ) -> Result<()> {
        Err(later("lookup"))
    }

    fn decoupled_search_into(
        &self,
        _op: &Decoupled,
        _batch: &WgpuBatch,
        _inputs: SearchInputs<'_, WgpuMemory>,
        _out: SelectionMut<'_, WgpuMemory>,
    ) -> Result<()> {
        Err(later("decoupled_search"))
    }

    fn decoupled_aggregate_into(
        &self,
        _op: &Decoupled,
        _batch: &WgpuBatch,
        _inputs: AggregateInputs<'_, WgpuMemory>,
        _selection: Selection<'_, WgpuMemory>,
        _out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        Err(later("decoupled_aggregate"))
    }

    fn decoupled_attend_into(
        &self,
        _op: &Decoupled,
        _batch: &WgpuBatch,
        _inputs: DecoupledInputs<'_, WgpuMemory>,
        _out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        Err(later("decoupled_attend"))
    }
}
