//! Device memory: allocation in stream order, and copies from and to the host.

use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaStream, DriverError, result, sys};

use crate::cuda::driver::context::{bind, check_not_captured, is_captured};
use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};
use crate::gpu::lock;

/// Memory dropped while its stream was captured: freeing it then would become part of the graph.
struct Late {
    pointer: u64,
    bytes: usize,
    stream: Arc<CudaStream>,
}

static LATE: Mutex<Vec<Late>> = Mutex::new(Vec::new());

/// Frees what was dropped during a capture of the stream, which has ended.
pub(super) fn free_late(stream: &CudaStream) {
    let mut late = lock(&LATE);
    if late.is_empty() {
        return;
    }
    let (due, left) = std::mem::take(&mut *late).into_iter().partition(|late| *late.stream == *stream);
    *late = left;
    drop(late);
    let due: Vec<Late> = due;
    for Late { pointer, bytes, stream } in due {
        drop(Allocation { pointer, bytes, stream });
    }
}

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
        check_not_captured(stream, operation, "an allocation")?;
        free_late(stream);
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

    /// How many bytes it holds.
    pub(in crate::cuda) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets every byte.
    pub(in crate::cuda) fn fill(&self, operation: &'static str, byte: u8) -> Result<()> {
        fill(&self.stream, operation, self.pointer, byte, self.bytes)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let context = self.stream.context();
        context.record_err(bind(context));
        if is_captured(&self.stream) {
            lock(&LATE).push(Late { pointer: self.pointer, bytes: self.bytes, stream: self.stream.clone() });
            return;
        }
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

/// Copies from the host to memory that the caller knows to be allocated. The bytes live, unchanged, until the stream has made the copy.
pub(super) fn write(stream: &CudaStream, operation: &'static str, pointer: u64, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: the caller's region is within an allocation of this stream.
    unsafe { result::memcpy_htod_async(pointer, bytes, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}

/// Copies between memory that the caller knows to be allocated, in the order of the stream.
pub(in crate::cuda) fn copy(
    stream: &CudaStream,
    operation: &'static str,
    from: u64,
    to: u64,
    bytes: usize,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: both regions of the caller are within allocations of this stream.
    unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}

/// Sets `bytes` bytes of memory that the caller knows to be allocated to 0, in the order of the stream.
pub(in crate::cuda) fn clear(
    stream: &CudaStream,
    operation: &'static str,
    pointer: u64,
    bytes: usize,
) -> Result<()> {
    fill(stream, operation, pointer, 0, bytes)
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
    check_not_captured(stream, operation, "a copy to the host")?;
    // SAFETY: the source region is within an allocation of this stream. The caller waits before it uses or drops the
    // destination.
    unsafe { result::memcpy_dtoh_async(bytes, pointer, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}
