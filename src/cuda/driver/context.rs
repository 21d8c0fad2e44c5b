//! Binding a context to the calling thread, and waiting for a stream.

use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use crate::cuda::driver::error::driver_error;
use crate::error::Result;

/// Makes the context the thread's current one. Unlike cudarc's own function, this leaves errors that no call could return,
/// such as that of a free, to the next [`wait`]: the call that happens to come next did not cause them.
pub(super) fn bind(context: &CudaContext) -> std::result::Result<(), DriverError> {
    if result::ctx::get_current()? == Some(context.cu_ctx()) {
        return Ok(());
    }
    // SAFETY: the context lives as long as the `CudaContext`.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}

/// Waits for all work on the stream, and returns errors since the last wait that no call could return.
pub(in crate::cuda) fn wait(stream: &CudaStream, operation: &'static str) -> Result<()> {
    let failed = |error| driver_error(operation, error);
    bind(stream.context()).map_err(failed)?;
    // SAFETY: the stream is alive, and its context is current.
    unsafe { result::stream::synchronize(stream.cu_stream()) }.map_err(failed)?;
    stream.context().check_err().map_err(failed)
}
