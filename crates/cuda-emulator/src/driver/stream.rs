//! Streams, and how work gets into them.

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

/// The null stream and its two names: `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
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
    /// A stream that exists until it is destroyed.
    pub(super) fn create(context: &Arc<Context>, flags: u32, priority: i32) -> Arc<Self> {
        OBJECTS.streams.add(|handle| Arc::new(Self::new(handle, context, flags, priority)))
    }

    fn new(handle: Handle, context: &Arc<Context>, flags: u32, priority: i32) -> Self {
        Self { handle, context: Arc::clone(context), flags, priority, capture: Mutex::default() }
    }

    /// The stream of a handle that a caller passed; the default streams are those of the current context.
    pub(super) fn by_handle(call: &Call, handle: Handle) -> Result<Arc<Self>, CudaError> {
        if DEFAULT_STREAMS.contains(&handle) {
            return Ok(Arc::new(Self::new(handle, &call.any_context()?, 0, LEAST_PRIORITY)));
        }
        OBJECTS.streams.get(handle).map_err(|error| {
            call.misuse(error, format!("{handle:#x} is no stream, or one that was destroyed"))
        })
    }

    /// Whether this is a default stream, which every context has and nothing can destroy.
    pub(super) fn is_default(&self) -> bool {
        DEFAULT_STREAMS.contains(&self.handle)
    }

    /// The capture that records this stream's work, which must be sound.
    pub(super) fn captured(&self) -> Result<Option<Arc<Capture>>, CudaError> {
        let capture = lock(&self.capture).clone();
        if let Some(capture) = &capture {
            capture.check()?;
        }
        Ok(capture)
    }

    /// Fails if the stream is being captured, and spoils the capture: the call cannot be part of a graph.
    pub(super) fn forbid_capture(&self) -> Result<(), CudaError> {
        match &*lock(&self.capture) {
            None => Ok(()),
            Some(capture) => {
                capture.invalidate();
                Err(CudaError::StreamCaptureUnsupported)
            }
        }
    }

    /// Does the work now, or adds it to the capture.
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
