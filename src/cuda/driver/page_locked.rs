//! Page-locked host memory: the driver copies to it without making the caller wait.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::cuda::driver::context::{bind, check_not_captured};
use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};

/// A copy of device memory that the stream makes when it gets there.
#[derive(Debug)]
pub(in crate::cuda) struct PageLocked {
    pointer: *mut u8,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the memory belongs to the value alone, and a driver takes it back on any thread.
unsafe impl Send for PageLocked {}

impl PageLocked {
    /// Enqueues a copy of memory that the caller knows to be allocated.
    pub(in crate::cuda) fn copy_of(
        stream: &CudaStream,
        operation: &'static str,
        pointer: u64,
        bytes: usize,
    ) -> Result<Self> {
        check_not_captured(stream, operation, "a copy to the host")?;
        let context = stream.context();
        bind(context).map_err(|error| driver_error(operation, error))?;
        // SAFETY: the context is bound. A driver refuses to allocate zero bytes.
        let host = match unsafe { result::malloc_host(bytes.max(1), 0) } {
            Ok(host) => host.cast::<u8>(),
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                return Err(Error::OutOfMemory { operation, bytes: bytes as u64 });
            }
            Err(error) => return Err(driver_error(operation, error)),
        };
        // SAFETY: the driver has allocated as many bytes, of any value.
        unsafe { host.write_bytes(0, bytes) };
        let copy = Self { pointer: host, bytes, context: context.clone() };
        if bytes > 0 {
            // SAFETY: the memory lives until the copy is made (`bytes`' caller waits), and nothing else refers to it.
            let to = unsafe { std::slice::from_raw_parts_mut(host, bytes) };
            // SAFETY: the source region is within an allocation of this stream.
            unsafe { result::memcpy_dtoh_async(to, pointer, stream.cu_stream()) }
                .map_err(|error| driver_error(operation, error))?;
        }
        Ok(copy)
    }

    /// What was copied. The caller has waited for the stream.
    pub(in crate::cuda) fn bytes(&self) -> &[u8] {
        // SAFETY: as many initialised bytes, which nobody writes any more.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        self.context.record_err(bind(&self.context));
        // SAFETY: allocated by `malloc_host`, freed once, after the stream is done with it.
        self.context.record_err(unsafe { result::free_host(self.pointer.cast()) });
    }
}
