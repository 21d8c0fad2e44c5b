//! The CPU backend: host slices in, host slices out, work spread over the threads of the current rayon pool.
//!
//! The batch alone decides how work is cut, never the number of threads, so results do not depend on it. A *piece* is a
//! tile of candidates against a span of their user's history (`pieces.rs`). A kernel reads its span in *blocks* small
//! enough to stay in cache, and computes with vectors of sixteen lanes (`vector/`). The results of the pieces of one
//! tile are *combined* in the order of the history.

mod decoupled;
mod din;
mod gather;
mod gradient_rows;
mod interest_channels;
mod lookup;
mod picked;
mod pieces;
mod sdim;
mod search;
mod selected;
mod selection;
mod softmax;
mod sorted_entries;
mod sorted_ids;
mod spans;
mod table_gradient;
mod tables;
mod target_attention;
mod threads;
mod tile_pooling;
mod tin;
mod vector;

pub use vector::Instructions;

use crate::device::{DeviceOps, expect_length};
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::host::{Host, HostBuffer, reserve};
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};

/// Runs the operations on this machine's CPU.
///
/// Its views are slices, so data need no upload: wrap a slice with [`Host::view`] or [`Host::view_mut`]. Buffers are
/// cache-line aligned, so rows of large tables load faster. Calls have finished when they return. With the feature
/// `rayon` they use the current thread pool; results are the same without it. They do not depend on the floating-point mode of
/// the caller's thread (rounding, flushing of subnormal numbers) either, and leave it as it is.
///
/// The same call gives the same bits. In another batch, the last bits of a user's results may differ: the batch as a whole
/// decides where long histories are cut.
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

    /// The CPU with the given vector instructions: to compare instruction sets, or to get bit-identical results on
    /// different machines.
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

    /// Always true: every machine has a CPU.
    pub fn is_available() -> bool {
        true
    }
}

impl DeviceOps for Cpu {
    type Memory = Host;

    type Jagged = Jagged;

    type Batch = Batch;

    fn device(&self) -> String {
        let threads = threads::count();
        let (arch, instructions) = (std::env::consts::ARCH, self.instructions);
        format!("CPU ({arch}, {instructions:?}), {threads} thread{}", if threads == 1 { "" } else { "s" })
    }

    fn fork(&self) -> Result<Self> {
        Ok(*self)
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<HostBuffer<T>> {
        HostBuffer::copy_of("upload", data)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<HostBuffer<T>> {
        HostBuffer::zeroed("zeros", length)
    }

    fn upload_into<T: Scalar>(&self, mut out: ViewMut<'_, Host, T>, data: &[T]) -> Result<()> {
        expect_length("upload_into", "data", data.len(), out.len())?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn copy<T: Scalar>(&self, from: View<'_, Host, T>, mut to: ViewMut<'_, Host, T>) -> Result<()> {
        expect_length("copy", "from", from.len(), to.len())?;
        to.copy_from_slice(&from);
        Ok(())
    }

    fn download<T: Scalar>(&self, view: View<'_, Host, T>) -> Result<Vec<T>> {
        let mut data = reserve("download", view.len())?;
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
}
