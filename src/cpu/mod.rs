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

use crate::device::DeviceOps;
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::host::{Host, HostBuffer, reserve};
use crate::jagged::{Batch, Jagged};
use crate::memory::View;

/// Runs the operations on this machine's CPU.
///
/// Its views are slices, so data need no upload: pass `&[T]` and `&mut [T]` by [`Host::view`]. Buffers begin at cache lines,
/// which reads rows of large tables the faster. Calls have
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

impl DeviceOps for Cpu {
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

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<HostBuffer<T>> {
        HostBuffer::copy_of("upload", data)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<HostBuffer<T>> {
        HostBuffer::zeroed("zeros", length)
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
