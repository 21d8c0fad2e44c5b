//! The CPU backend: host slices in, host slices out, spread over the threads of the current rayon pool.
//!
//! Work is cut by users and candidates, never by the number of threads, so results do not depend on it.

mod decoupled;
mod din;
mod lookup;
mod pooling;
mod sdim;
mod target_attention;
mod tiles;
mod vector;

use crate::backend::Backend;
use crate::element::{Element, Scalar, Signature};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::Host;
use crate::ops::*;

/// Runs the operations on this machine's CPU.
///
/// Its buffers are vectors and its views are slices, so data need no upload: pass `&[T]` and `&mut [T]`. Calls have
/// finished when they return. With the feature `rayon` they use the current thread pool; results are the same
/// without it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Cpu;

impl Cpu {
    /// The CPU.
    pub fn new() -> Self {
        Self
    }

    /// Always true: every machine has one.
    pub fn is_available() -> bool {
        true
    }
}

impl Backend for Cpu {
    type Memory = Host;
    type Jagged = Jagged;
    type Batch = Batch;

    fn device(&self) -> String {
        let threads = tiles::threads();
        format!("CPU ({}), {threads} thread{}", std::env::consts::ARCH, if threads == 1 { "" } else { "s" })
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<Vec<T>> {
        let mut buffer = with_capacity("upload", data.len())?;
        buffer.extend_from_slice(data);
        Ok(buffer)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<Vec<T>> {
        let mut buffer = with_capacity("zeros", length)?;
        buffer.resize(length, T::zeroed());
        Ok(buffer)
    }

    fn view<'a, T: Scalar>(&self, buffer: &'a Vec<T>) -> &'a [T] {
        buffer
    }

    fn view_mut<'a, T: Scalar>(&self, buffer: &'a mut Vec<T>) -> &'a mut [T] {
        buffer
    }

    fn slice<'a, T: Scalar>(&self, buffer: &'a Vec<T>, start: usize, length: usize) -> Result<&'a [T]> {
        let whole = buffer.len();
        let part = buffer.get(start..).and_then(|rest| rest.get(..length));
        part.ok_or_else(|| beyond("slice", start, length, whole))
    }

    fn slice_mut<'a, T: Scalar>(
        &self,
        buffer: &'a mut Vec<T>,
        start: usize,
        length: usize,
    ) -> Result<&'a mut [T]> {
        let whole = buffer.len();
        let part = buffer.get_mut(start..).and_then(|rest| rest.get_mut(..length));
        part.ok_or_else(|| beyond("slice_mut", start, length, whole))
    }

    fn download<T: Scalar>(&self, view: &[T]) -> Result<Vec<T>> {
        let mut data = with_capacity("download", view.len())?;
        data.extend_from_slice(view);
        Ok(data)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn jagged(&self, jagged: &Jagged) -> Result<Jagged> {
        Ok(jagged.clone())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Batch> {
        Batch::new(histories.clone(), targets.clone())
    }

    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        target_attention::attend(op, batch, &inputs, outputs)
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        target_attention::merge(op, &first, &second, outputs)
    }

    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Batch,
        inputs: DinInputs<'_, Host, T>,
        out: &mut [T],
    ) -> Result<()> {
        din::din(op, batch, &inputs, out)
    }

    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: &[T],
        rotations: &[f32],
        out: &mut [W],
    ) -> Result<()> {
        let count = op.check_signatures(&rows, &rotations)?;
        op.check_signatures_output::<W>(count, &out)?;
        sdim::signatures(op, rows, rotations, out);
        Ok(())
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimHistory<'_, Host, T>,
        table: &mut [f32],
    ) -> Result<()> {
        sdim::encode(op, histories, &inputs, table)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Jagged,
        inputs: SdimHistory<'_, Host, T>,
        table: &mut [f32],
    ) -> Result<()> {
        sdim::append(op, new, &inputs, table)
    }

    fn sdim_add_tables(&self, op: &Sdim, table: &mut [f32], other: &[f32]) -> Result<()> {
        op.check_add(&table, &other)?;
        vector::add(table, other);
        Ok(())
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQuery<'_, Host, T>,
        out: &mut [T],
    ) -> Result<()> {
        sdim::query(op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimInputs<'_, Host, T>,
        out: &mut [T],
    ) -> Result<()> {
        sdim::attend(op, batch, &inputs, out)
    }

    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        outputs: LookupOutputs<'_, Host>,
    ) -> Result<()> {
        lookup::lookup(op, &bags, &inputs, outputs)
    }

    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        decoupled::search(op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        out: &mut [f32],
    ) -> Result<()> {
        decoupled::aggregate(op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        out: &mut [f32],
    ) -> Result<()> {
        decoupled::attend(op, batch, &inputs, out)
    }
}

/// An empty vector with room for `length` elements, or an error where there is no room.
fn with_capacity<T>(operation: &'static str, length: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    match vector.try_reserve_exact(length) {
        Ok(()) => Ok(vector),
        Err(_) => {
            let bytes = (length as u64).saturating_mul(size_of::<T>() as u64);
            Err(Error::OutOfMemory { operation, bytes })
        }
    }
}

fn beyond(operation: &'static str, start: usize, length: usize, whole: usize) -> Error {
    Error::Shape {
        operation,
        argument: "start and length",
        expected: format!("a part of {whole} elements"),
        got: format!("{length} elements from {start} on"),
    }
}
