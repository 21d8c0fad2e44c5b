//! SDIM: hash, encode, query, attention without tables, and gradients.

mod attend;
mod backward;
mod encode;
mod gather;
mod items;
mod loops;
mod query;
mod signatures;
mod tables;

use crate::element::{Element, GradientOf, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};
use crate::webgpu::batch::{WgpuBatch, WgpuJagged};
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl SdimOps for Wgpu {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, WgpuMemory, T>,
        rotations: View<'_, WgpuMemory, f32>,
        out: ViewMut<'_, WgpuMemory, W>,
    ) -> Result<()> {
        self.call(|gpu| signatures::signatures(gpu, op, rows, rotations, out))
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| encode::encode(gpu, ("sdim_encode", Change::Encode), op, histories, &inputs, table))
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| encode::encode(gpu, ("sdim_append", Change::Append), op, new, &inputs, table))
    }

    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| encode::encode(gpu, ("sdim_remove", Change::Remove), op, gone, &inputs, table))
    }

    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, WgpuMemory, f32>,
        factors: View<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| tables::decay(gpu, op, table, factors))
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, WgpuMemory, f32>,
        other: View<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| tables::add_tables(gpu, op, table, other))
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &WgpuJagged,
        inputs: SdimQueryInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| query::query(gpu, "sdim_query", op, targets, &inputs, out))
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &WgpuBatch,
        inputs: SdimAttendInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend::attend(gpu, op, batch, &inputs, out))
    }

    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &WgpuJagged,
        inputs: SdimQueryInputs<'_, WgpuMemory, T>,
        grad_out: View<'_, WgpuMemory, T>,
        grad_table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        self.call(|gpu| backward::query(gpu, op, targets, &inputs, (grad_out, grad_table)))
    }

    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        grad_table: View<'_, WgpuMemory, f32>,
        grad_history: ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::encode(gpu, op, histories, &inputs, (grad_table, grad_history)))
    }

    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &WgpuBatch,
        inputs: SdimAttendInputs<'_, WgpuMemory, T>,
        grad_out: View<'_, WgpuMemory, T>,
        grad_history: ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::attend(gpu, op, batch, &inputs, (grad_out, grad_history)))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let forward = [signatures::variants(), encode::variants(), query::variants(), attend::variants()];
    let others = [tables::variants(), backward::variants(), gather::variants(), items::variants()];
    [forward.concat(), others.concat()].concat()
}
