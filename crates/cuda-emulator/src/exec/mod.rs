//! Runs kernels: blocks over worker threads, warps of a block in turn, 32 lanes an instruction.

#![allow(clippy::needless_range_loop, reason = "a lane indexes several rows at once")]

mod access;
mod approximation;
mod barrier;
mod block;
pub(crate) mod code;
mod copies;
mod counts;
pub(crate) mod decode;
mod fault;
mod finding;
mod frames;
mod global;
mod lanes;
mod launch;
mod local;
mod machine;
mod memory_map;
mod ops;
mod options;
mod program;
mod race;
mod random;
mod registers;
mod rounding;
mod sectors;
mod shared;
mod specials;
mod warp;

pub use counts::{Class, Counts};
pub use finding::{Finding, FindingKind};
pub use launch::launch;
pub use options::{Approximation, MmaOrder, Options};
pub use program::Program;

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

#[cfg(test)]
pub(crate) mod tests;
