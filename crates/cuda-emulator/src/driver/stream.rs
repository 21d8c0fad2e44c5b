//! Streams, and the submission of work.

use std::sync::{Arc, Mutex};

use super::abi::Handle;
use super::capture::Capture;
use super::context::Context;
use super::entry::Call;
use super::launch::Work;
use super::objects::{OBJECTS, lock};
use crate::error::CudaError;

/// Priorities of `cuCtxGetStreamPriorityRange`; lower numbers are more urgent.
pub(super) const LEAST_PRIORITY: i32 = 0;
pub(super) const GREATEST_PRIORITY: i32 = -5;

/// The default streams: the null stream, `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
const DEFAULT_STREAMS: [Handle; 3] = [0, 1, 2];

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) flags: u32,
    pub(super) priority: i32,
    pub(super) capture: Mutex<Option<Arc<Capture>>>,
}

impl Stream {
    /// Creates a stream, which exists until it is destroyed.
    pub(super) fn create(context: &Arc<Context>, flags: u32, priority: i32) -> Arc<Self> {
        OBJECTS.streams.add(|handle| Arc::new(Self::new(handle, context, flags, priority)))
    }

    fn new(handle: Handle, context: &Arc<Context>, flags: u32, priority: i32) -> Self {
        Self { handle, context: Arc::clone(context), flags, priority, capture: Mutex::default() }
    }

    /// The stream with the given handle; the default streams are those of the current context.
    pub(super) fn by_handle(call: &Call, handle: Handle) -> Result<Arc<Self>, CudaError> {
        if DEFAULT_STREAMS.contains(&handle) {
            return Ok(Arc::new(Self::new(handle, &call.any_context()?, 0, LEAST_PRIORITY)));
        }
        OBJECTS.streams.get(handle).map_err(|error| {
            call.misuse(error, format!("{handle:#x} is not a stream, or the stream has been destroyed"))
        })
    }

    /// Whether this is a default stream, which every context has and which cannot be destroyed.
    pub(super) fn is_default(&self) -> bool {
        DEFAULT_STREAMS.contains(&self.handle)
    }

    /// The capture that records this stream's work, which must be valid.
    pub(super) fn captured(&self) -> Result<Option<Arc<Capture>>, CudaError> {
        let capture = lock(&self.capture).clone();
        if let Some(capture) = &capture {
            capture.check()?;
        }
        Ok(capture)
    }

    /// Fails if the stream is being captured, and invalidates the capture: the call cannot be part of a graph.
    pub(super) fn forbid_capture(&self) -> Result<(), CudaError> {
        match &*lock(&self.capture) {
            None => Ok(()),
            Some(capture) => {
                capture.invalidate();
                Err(CudaError::StreamCaptureUnsupported)
            }
        }
    }

    /// Executes the work, or adds it to the capture.
    pub(super) fn submit(&self, call: &Call, work: Work) -> Result<(), CudaError> {
        self.context.check()?;
        match self.captured()? {
            Some(capture) => {
                capture.add(self.handle, work);
                Ok(())
            }
            None => work.run(call, &self.context),
        }
    }
}
