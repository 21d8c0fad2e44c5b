//! Binding a context to the calling thread, and what a stream is and does.

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};

/// Makes the context the thread's current one. Unlike cudarc's own function, this leaves errors that no call could return,
/// such as that of a free, to the next [`wait`](super::wait): the call that happens to come next did not cause them.
pub(super) fn bind(context: &CudaContext) -> std::result::Result<(), DriverError> {
    if result::ctx::get_current()? == Some(context.cu_ctx()) {
        return Ok(());
    }
    // SAFETY: the context lives as long as the `CudaContext`.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}

/// Whether the stream's work is being captured into a graph. If the driver does not say, the next [`wait`](super::wait) returns its error.
pub(in crate::cuda) fn is_captured(stream: &CudaStream) -> bool {
    // SAFETY: the stream is alive.
    match unsafe { result::stream::is_capturing(stream.cu_stream()) } {
        Ok(status) => status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE,
        Err(error) => {
            stream.context().record_err::<()>(Err(error));
            false
        }
    }
}

/// Fails if the stream's work is being captured into a graph, which would hold what does not outlive the call.
pub(in crate::cuda) fn check_not_captured(
    stream: &CudaStream,
    operation: &'static str,
    what: &'static str,
) -> Result<()> {
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    if !is_captured(stream) {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation,
        what: format!("{what} during a stream capture"),
        supported: "calls that have been made with the same batch before the capture, with a workspace"
            .into(),
    })
}

/// Fails for the per-thread default stream: handles to it are equal on all threads, and name another stream on each.
pub(in crate::cuda) fn check_stream_kind(operation: &'static str, stream: &CudaStream) -> Result<()> {
    const PER_THREAD: usize = 2;
    if stream.cu_stream() as usize != PER_THREAD {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation,
        what: "the per-thread default stream".into(),
        supported: "the default stream, and streams that were created".into(),
    })
}
