//! Waiting for a stream.

use cudarc::driver::{CudaStream, result};

use crate::cuda::driver::context::check_not_captured;
use crate::cuda::driver::error::driver_error;
use crate::cuda::driver::memory::free_late;
use crate::error::Result;

/// Waits for all work on the stream, and returns errors since the last wait that no call could return.
pub(in crate::cuda) fn wait(stream: &CudaStream, operation: &'static str) -> Result<()> {
    let failed = |error| driver_error(operation, error);
    check_not_captured(stream, operation, "a wait")?;
    free_late(stream);
    // SAFETY: the stream is alive, and its context is current.
    unsafe { result::stream::synchronize(stream.cu_stream()) }.map_err(failed)?;
    stream.context().check_err().map_err(failed)
}
