//! The CPU backend: host slices in, host slices out, spread over the threads of the current rayon pool.
//!
//! Work is cut by users and candidates, never by the number of threads, so results do not depend on it.

mod decoupled;
mod din;
mod gather;
mod lookup;
mod parts;
mod pieces;
mod sdim;
mod tables;
mod target_attention;
mod tile_pooling;
mod tiles;
mod vector;

pub use vector::Instructions;

use crate::backend::Backend;
use crate::element::{Element, Scalar, Signature};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{Host, View, ViewMut};
use crate::ops::*;

/// Runs the operations on this machine's CPU.
///
/// Its buffers are vectors and its views are slices, so data need no upload: pass `&[T]` and `&mut [T]`. Calls have
/// finished when they return. With the feature `rayon` they use the current thread pool; results are the same
/// without it.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    instructions: Instructions,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// The CPU, with the best vector instructions it has.
    pub fn new() -> Self {
        Self { instructions: Instructions::best() }
    }

    /// The CPU with vector instructions of the caller's choice: to compare them, or to have the same bits on machines
    /// of different kinds.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where this machine lacks them.
    pub fn with_instructions(instructions: Instructions) -> Result<Self> {
        if instructions.is_available() {
            return Ok(Self { instructions });
        }
        Err(Error::Unsupported {
            operation: "Cpu::with_instructions",
            what: format!("{instructions:?}"),
            supported: format!("{:?}", Instructions::available()),
        })
    }

    /// The vector instructions it computes with.
    pub fn instructions(&self) -> Instructions {
        self.instructions
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
        let (arch, instructions) = (std::env::consts::ARCH, self.instructions);
        format!("CPU ({arch}, {instructions:?}), {threads} thread{}", if threads == 1 { "" } else { "s" })
    }

    fn fork(&self) -> Result<Self> {
        Ok(*self)
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

    fn download<T: Scalar>(&self, view: View<'_, Host, T>) -> Result<Vec<T>> {
        let mut data = with_capacity("download", view.len())?;
        data.extend_from_slice(view.as_slice());
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
        target_attention::attend(self.instructions, op, batch, &inputs, outputs)
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
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        din::din(self.instructions, op, batch, &inputs, out)
    }

    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, Host, T>,
        rotations: View<'_, Host, f32>,
        out: ViewMut<'_, Host, W>,
    ) -> Result<()> {
        let count = op.check_signatures(rows.len(), rotations.len())?;
        op.check_signatures_output::<W>(count, out.len())?;
        sdim::signatures(self.instructions, op, rows.as_slice(), rotations.as_slice(), out.into_slice());
        Ok(())
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimHistory<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        sdim::encode(self.instructions, op, histories, &inputs, table)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Jagged,
        inputs: SdimHistory<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        sdim::append(self.instructions, op, new, &inputs, table)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Host, f32>,
        other: View<'_, Host, f32>,
    ) -> Result<()> {
        op.check_add(table.len(), other.len())?;
        vector::add(table.into_slice(), other.as_slice());
        Ok(())
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQuery<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        sdim::query(self.instructions, op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        sdim::attend(self.instructions, op, batch, &inputs, out)
    }

    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Jagged>,
        inputs: LookupInputs<'_, Host>,
        outputs: LookupOutputs<'_, Host>,
    ) -> Result<()> {
        lookup::lookup(self.instructions, op, &bags, &inputs, outputs)
    }

    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        decoupled::search(self.instructions, op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        decoupled::aggregate(self.instructions, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        decoupled::attend(self.instructions, op, batch, &inputs, out)
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
