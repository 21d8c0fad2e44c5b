//! Device memory: allocation in stream order, and copies from and to the host.

use std::sync::Arc;

use cudarc::driver::{CudaStream, DriverError, result, sys};

use crate::cuda::driver::context::bind;
use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};

/// Device memory of a stream. It is freed in stream order, after the work enqueued so far. If freeing fails, the next
/// [`wait`](super::wait) returns the error.
#[derive(Debug)]
pub(in crate::cuda) struct Allocation {
    pointer: u64,
    bytes: usize,
    stream: Arc<CudaStream>,
}

impl Allocation {
    /// Uninitialised memory.
    pub(in crate::cuda) fn new(
        stream: &Arc<CudaStream>,
        operation: &'static str,
        bytes: usize,
    ) -> Result<Self> {
        let context = stream.context();
        bind(context).map_err(|error| driver_error(operation, error))?;
        // The driver refuses to allocate zero bytes.
        let size = bytes.max(1);
        // SAFETY: the context is bound, the stream is one of its own, and nothing reads memory before it is written.
        let made = unsafe {
            if context.has_async_alloc() {
                result::malloc_async(stream.cu_stream(), size)
            } else {
                result::malloc_sync(size)
            }
        };
        match made {
            Ok(pointer) => Ok(Self { pointer, bytes, stream: stream.clone() }),
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(Error::OutOfMemory { operation, bytes: bytes as u64 })
            }
            Err(error) => Err(driver_error(operation, error)),
        }
    }

    pub(in crate::cuda) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Sets every byte.
    pub(in crate::cuda) fn fill(&self, operation: &'static str, byte: u8) -> Result<()> {
        fill(&self.stream, operation, self.pointer, byte, self.bytes)
    }

    /// Copies from the host. The bytes may be dropped or changed once this returns: the driver has staged pageable memory
    /// by then.
    pub(in crate::cuda) fn write(&self, operation: &'static str, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() <= self.bytes, "within the allocation");
        if bytes.is_empty() {
            return Ok(());
        }
        bind(self.stream.context()).map_err(|error| driver_error(operation, error))?;
        // SAFETY: the destination holds that many bytes, as asserted.
        unsafe { result::memcpy_htod_async(self.pointer, bytes, self.stream.cu_stream()) }
            .map_err(|error| driver_error(operation, error))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let context = self.stream.context();
        context.record_err(bind(context));
        if context.has_async_alloc() {
            // SAFETY: allocated by `malloc_async`, freed once, after all work enqueued so far.
            context.record_err(unsafe { result::free_async(self.pointer, self.stream.cu_stream()) });
        } else {
            // SAFETY: the stream is alive.
            context.record_err(unsafe { result::stream::synchronize(self.stream.cu_stream()) });
            // SAFETY: allocated by `malloc_sync`, freed once, and the stream is done with it.
            context.record_err(unsafe { result::free_sync(self.pointer) });
        }
    }
}

/// Sets `bytes` bytes of memory that the caller knows to be allocated.
fn fill(stream: &CudaStream, operation: &'static str, pointer: u64, byte: u8, bytes: usize) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: the caller's region is within an allocation of this stream.
    unsafe { result::memset_d8_async(pointer, byte, bytes, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}

/// Copies memory that the caller knows to be allocated to the host. The copy is complete after the stream's next
/// synchronisation.
pub(in crate::cuda) fn read(
    stream: &CudaStream,
    operation: &'static str,
    pointer: u64,
    bytes: &mut [u8],
) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: the source region is within an allocation of this stream. The driver copies to pageable memory before
    // it returns, so the destination need not outlive the call.
    unsafe { result::memcpy_dtoh_async(bytes, pointer, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}
