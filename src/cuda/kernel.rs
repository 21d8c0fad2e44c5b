//! Kernels as rows of tables, and how one is launched.
//!
//! Each stem lists its kernels with their literal symbols, so that a symbol found in a profile, in PTX or in a trace can
//! be searched for. `contracts/` compares the tables with the PTX that ships.

use crate::element::{DType, Element};

/// A kernel: a row of its stem's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The PTX file, as `kernels()` names it.
    pub(super) file: &'static str,
    /// The entry of the file.
    pub(super) symbol: &'static str,
    /// Threads per block; the most where each launch chooses.
    pub(super) threads: u32,
    /// Registers per thread on compute capability 8.0, as ptxas reports.
    pub(super) registers: u32,
}

impl Kernel {
    pub(super) const fn new(file: &'static str, symbol: &'static str, threads: u32, registers: u32) -> Self {
        Self { file, symbol, threads, registers }
    }

    /// A launch of `blocks` blocks.
    pub(super) fn blocks(&self, blocks: usize) -> Launch {
        Launch { kernel: *self, blocks, threads: self.threads, shared: 0 }
    }
}

/// A kernel for each storage type: f32, f16, bf16.
#[derive(Debug)]
pub(super) struct ByType(pub(super) [Kernel; 3]);

impl ByType {
    /// The kernel for `T`.
    pub(super) fn of<T: Element>(&self) -> &Kernel {
        match T::DTYPE {
            DType::F32 => &self.0[0],
            DType::F16 => &self.0[1],
            DType::Bf16 => &self.0[2],
        }
    }
}

/// A kernel with its grid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch {
    pub(super) kernel: Kernel,
    pub(super) blocks: usize,
    /// Threads per block.
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory per block.
    pub(super) shared: u32,
}

impl Launch {
    pub(super) fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads as u32, ..self }
    }

    pub(super) fn with_shared(self, shared: usize) -> Self {
        Self { shared: shared as u32, ..self }
    }
}
