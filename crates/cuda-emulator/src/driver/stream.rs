//! Streams, and the submission of work.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::ThreadId;

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

/// The null stream and `CU_STREAM_LEGACY`, which are the same.
const LEGACY: [Handle; 2] = [0, 1];
/// `CU_STREAM_PER_THREAD`: another stream on each thread.
const PER_THREAD: Handle = 2;

/// `CU_STREAM_NON_BLOCKING`.
pub(super) const NON_BLOCKING: u32 = 1;

/// Whether the program made a stream, or it is one of those that every context has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Created,
    Legacy,
    PerThread,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Unique, also for default streams, whose handles in the interface are the same in every context and on every thread.
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) flags: u32,
    pub(super) priority: i32,
    origin: Origin,
    pub(super) capture: Mutex<Option<Arc<Capture>>>,
}

/// The default streams that have been used, by context and, for the per-thread streams, by thread.
type Defaults = HashMap<(Handle, Option<ThreadId>), Arc<Stream>>;

static DEFAULTS: LazyLock<Mutex<Defaults>> = LazyLock::new(Mutex::default);

/// Forgets the default streams of a context that is destroyed.
pub(super) fn forget_defaults(context: &Context) {
    let mut streams = lock(&DEFAULTS);
    let gone: Vec<_> = streams.extract_if(|(of, _), _| *of == context.handle).collect();
    drop(streams);
    // Dropped after the lock is released.
    drop(gone);
}

impl Stream {
    /// Creates a stream, which exists until it is destroyed.
    pub(super) fn create(context: &Arc<Context>, flags: u32, priority: i32) -> Arc<Self> {
        Self::add(context, flags, priority, Origin::Created)
    }

    fn add(context: &Arc<Context>, flags: u32, priority: i32, origin: Origin) -> Arc<Self> {
        OBJECTS.streams.add(|handle| {
            let context = Arc::clone(context);
            Arc::new(Self { handle, context, flags, priority, origin, capture: Mutex::default() })
        })
    }

    /// The stream with the given handle; the default streams are those of the current context.
    pub(super) fn by_handle(call: &Call, handle: Handle) -> Result<Arc<Self>, CudaError> {
        if LEGACY.contains(&handle) || handle == PER_THREAD {
            let context = call.any_context()?;
            let (origin, thread) = match handle {
                PER_THREAD => (Origin::PerThread, Some(std::thread::current().id())),
                _ => (Origin::Legacy, None),
            };
            let mut streams = lock(&DEFAULTS);
            let stream = streams
                .entry((context.handle, thread))
                .or_insert_with(|| Self::add(&context, 0, LEAST_PRIORITY, origin));
            return Ok(Arc::clone(stream));
        }
        OBJECTS.streams.get(handle).map_err(|error| {
            call.misuse(error, format!("{handle:#x} is not a stream, or the stream has been destroyed"))
        })
    }

    /// Whether this is a default stream, which every context has and which cannot be destroyed.
    pub(super) fn is_default(&self) -> bool {
        self.origin != Origin::Created
    }

    /// Whether this is the legacy default stream, which waits for all streams that are not `NON_BLOCKING`, and they for it.
    pub(super) fn is_legacy(&self) -> bool {
        self.origin == Origin::Legacy
    }

    /// Whether the stream and the legacy default stream wait for each other.
    pub(super) fn is_blocking(&self) -> bool {
        self.flags & NON_BLOCKING == 0
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
            None => {
                self.forbid_implicit(call)?;
                let session = &self.context.session;
                if session.queues(call) {
                    session.queue.add(call, self, Some(work), Vec::new());
                    return Ok(());
                }
                work.run(call, &self.context)
            }
        }
    }

    /// Fails for the legacy default stream while a stream that it would wait for is being captured, and invalidates that
    /// capture.
    fn forbid_implicit(&self, call: &Call) -> Result<(), CudaError> {
        if !self.is_legacy() {
            return Ok(());
        }
        let captured = |other: &Self| {
            other.is_blocking()
                && Arc::ptr_eq(&other.context, &self.context)
                && lock(&other.capture).is_some()
        };
        let mut streams = OBJECTS.streams.select(captured);
        let Some(other) = streams.pop() else { return Ok(()) };
        if let Some(capture) = &*lock(&other.capture) {
            capture.invalidate();
        }
        let what = "the default stream waits for a stream that is being captured";
        Err(call.misuse(CudaError::StreamCaptureImplicit, what))
    }
}
