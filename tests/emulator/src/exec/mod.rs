//! Runs kernels: blocks over worker threads, warps of a block in turn, 32 lanes an instruction.

mod counts;
mod finding;
mod options;

pub use counts::{Class, Counts};
pub use finding::{Finding, FindingKind};
pub use options::{Approximation, MmaOrder, Options};

use crate::memory::{Memory, MemoryError};
use crate::ptx::Module;
use std::sync::Arc;

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes, on top of what the kernel declares.
    pub dynamic_shared_bytes: u32,
}

/// Why a launch did not finish.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// The launch's shape or arguments do not fit the kernel or the device.
    #[error("{0}")]
    Invalid(String),
    /// The kernel's target is newer than the device.
    #[error("the module is for sm_{module}, the device is sm_{device}")]
    Target {
        /// From `.target`.
        module: u32,
        /// From [`Options::architecture`].
        device: u32,
    },
    /// A check failed; the kernel was stopped.
    #[error("{0}")]
    Finding(Box<Finding>),
}

/// A module whose variables have a place in a device's memory.
#[derive(Debug)]
pub struct Program {
    module: Arc<Module>,
}

impl Program {
    /// Allocates and initialises the module's variables.
    ///
    /// # Errors
    /// When the device's memory does not hold them.
    pub fn new(module: Arc<Module>, memory: &Memory) -> Result<Self, MemoryError> {
        let _ = memory;
        Ok(Self { module })
    }

    /// The module.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Address and size in bytes of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        let _ = name;
        None
    }

    /// Whether an allocation at this address belongs to the program (so that it is no leak of the caller's).
    pub fn owns(&self, address: u64) -> bool {
        let _ = address;
        false
    }

    /// Frees the variables.
    pub fn release(&self, memory: &Memory) {
        let _ = memory;
    }
}

/// Runs a kernel to its end.
///
/// `parameters` is the parameter block, laid out as [`crate::ptx::Kernel::parameters`] says.
///
/// # Errors
/// See [`LaunchError`].
pub fn launch(
    program: &Program,
    kernel: &str,
    config: &LaunchConfig,
    parameters: &[u8],
    memory: &Memory,
    options: &Options,
) -> Result<Counts, LaunchError> {
    let _ = (program, config, parameters, memory, options);
    Err(LaunchError::Invalid(format!("no kernel {kernel}")))
}
