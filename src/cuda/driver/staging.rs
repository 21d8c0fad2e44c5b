//! Copies to the device, whose sources live until they are done.

use std::any::Any;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaStream, result};

use crate::cuda::driver::context::bind;
use crate::cuda::driver::error::driver_error;
use crate::cuda::driver::memory::{Allocation, write};
use crate::error::Result;
use crate::gpu::lock;

/// From this size on, a copy is waited for: the driver itself waits for the stream before it begins to copy pageable memory. The source
/// is the caller's then, and the one kind of memory that cannot be kept where waiting fails.
const LARGE: usize = 1 << 20;
/// The most bytes that are kept; then the stream is waited for.
const MOST: usize = 16 << 20;
/// What keeping a source takes besides its bytes, roughly.
const PER_SOURCE: usize = 64;

/// Sources of copies that the stream may not have made yet. A driver does not promise to have read pageable memory when it returns.
#[derive(Debug)]
pub(in crate::cuda) struct Staging {
    stream: Arc<CudaStream>,
    kept: Mutex<Kept>,
}

/// Sources of copies enqueued so far.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Kept {
    sources: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Staging {
    pub(in crate::cuda) fn new(stream: &Arc<CudaStream>) -> Self {
        Self { stream: stream.clone(), kept: Mutex::default() }
    }

    /// Enqueues a copy. The bytes may be dropped or changed once this returns.
    pub(in crate::cuda) fn upload(
        &self,
        operation: &'static str,
        to: &Allocation,
        bytes: &[u8],
    ) -> Result<()> {
        assert!(bytes.len() <= to.bytes(), "within the allocation");
        self.upload_to(operation, to.pointer(), bytes)
    }

    /// As [`upload`](Self::upload), to memory that the caller knows to be allocated.
    pub(in crate::cuda) fn upload_to(&self, operation: &'static str, to: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= LARGE {
            let copied = write(&self.stream, operation, to, bytes);
            return self.wait(operation).and(copied);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let mut kept = lock(&self.kept);
        let size = bytes.len() + PER_SOURCE;
        if kept.bytes + size > MOST {
            self.wait(operation)?;
            *kept = Kept::default();
        }
        let own: Box<[u8]> = bytes.into();
        write(&self.stream, operation, to, &own)?;
        kept.bytes += size;
        kept.sources.push(own);
        Ok(())
    }

    /// The sources of all copies so far, which the caller drops once the stream has made them.
    pub(in crate::cuda) fn take(&self) -> Kept {
        std::mem::take(&mut *lock(&self.kept))
    }

    /// Keeps sources again, because waiting failed.
    pub(in crate::cuda) fn put_back(&self, taken: Kept) {
        let mut kept = lock(&self.kept);
        kept.bytes += taken.bytes;
        kept.sources.extend(taken.sources);
    }

    /// Waits for the stream, and leaves errors that no call could return to the next [`wait`](super::wait).
    pub(in crate::cuda) fn wait(&self, operation: &'static str) -> Result<()> {
        let failed = |error| driver_error(operation, error);
        bind(self.stream.context()).map_err(failed)?;
        // SAFETY: the stream is alive, and its context is current.
        unsafe { result::stream::synchronize(self.stream.cu_stream()) }.map_err(failed)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let kept = self.take();
        if kept.sources.is_empty() {
            return;
        }
        let context = self.stream.context();
        context.record_err(bind(context));
        // SAFETY: the stream is alive, and its context is current.
        let waited = unsafe { result::stream::synchronize(self.stream.cu_stream()) };
        if waited.is_err() {
            abandon(kept);
        }
        context.record_err(waited);
    }
}

static ABANDONED: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());

/// Keeps host memory for as long as the program runs: waiting for a copy failed, so that it may still be made.
pub(in crate::cuda) fn abandon(memory: impl Any + Send) {
    lock(&ABANDONED).push(Box::new(memory));
}
