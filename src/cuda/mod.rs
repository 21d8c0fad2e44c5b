//! The `Cuda` backend: hand-written CUDA C++ kernels, shipped as PTX, on NVIDIA GPUs from Ampere on.
//!
//! Building and using it need nothing but the driver. `kernels/<stem>/` has the sources, each with its formula, layout and
//! variants at the top, and `kernels/ptx/` what ships. The driver compiles a PTX file at the first call that needs it,
//! and caches the result on disk.

mod batch;
mod borrow;
mod call;
#[cfg(test)]
mod contracts;
mod decoupled;
mod device;
mod din;
mod driver;
mod handle;
mod interest_channels;
mod kernel;
mod kernels;
mod lookup;
mod memory;
mod occupancy;
mod records;
mod sdim;
mod search;
mod selected;
mod selection;
mod tables;
mod target_attention;
mod tin;
mod twin;
mod waiter;
mod workspace;

pub use batch::{CudaBatch, CudaJagged};
pub use borrow::{CudaBorrow, CudaBorrowMut};
pub use handle::Cuda;
pub use kernels::kernels;
pub use memory::{CudaBuffer, CudaMemory};
