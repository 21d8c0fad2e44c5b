//! Runs kernels: blocks on worker threads, the warps of a block in turn, 32 lanes per instruction.

#![allow(clippy::needless_range_loop, reason = "a lane index addresses several rows")]

mod access;
mod approximation;
mod barrier;
mod block;
pub(crate) mod code;
mod copies;
mod counts;
pub(crate) mod decode;
mod divergence;
mod fault;
mod finding;
mod frames;
mod global;
mod groups;
mod lanes;
mod launch;
mod local;
mod machine;
mod memory_map;
mod ops;
mod options;
mod program;
mod race;
pub(crate) mod random;
mod registers;
mod rounding;
mod sectors;
mod shared;
mod specials;
mod timing;
mod warp;

pub use counts::{Class, Counts};
pub use finding::{Finding, FindingKind};
pub use launch::launch;
pub use options::{Approximation, MmaOrder, Options};
pub use program::Program;

/// Dimensions of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Grid dimensions in blocks.
    pub grid: [u32; 3],
    /// Block dimensions in threads.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes, in addition to what the kernel declares.
    pub dynamic_shared_bytes: u32,
}

/// Why a launch failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// The dimensions or arguments of the launch do not suit the kernel or the device.
    #[error("{0}")]
    Invalid(String),
    /// The kernel's target is newer than the device.
    #[error("the module targets sm_{module}, but the device is sm_{device}")]
    Target {
        /// The number in `.target`.
        module: u32,
        /// See [`Options::architecture`].
        device: u32,
    },
    /// A check failed; the kernel was stopped.
    #[error("{0}")]
    Finding(Box<Finding>),
}
