//! A `libcuda` that runs PTX on the CPU, with memory and race checks.
//!
//! [`ptx`] turns PTX text into a [`ptx::Module`], [`memory::Memory`] is a device's address space, and
//! [`exec::launch`] runs a kernel of a module on it, 32 lanes at a time.

pub mod control;
pub mod device;
mod driver;
pub mod error;
pub mod exec;
pub mod functions;
mod loader;
pub mod memory;
pub mod ptx;
pub mod report;

pub use control::Emulator;
pub use device::{CudaVersion, Device};
pub use error::CudaError;
