//! Stream capture: work that is recorded instead of executed, and the resulting graphs.
//!
//! A graph keeps its nodes in the order in which the program submitted them. That order respects all dependencies that
//! streams and events express, so executing the nodes one after another is valid.

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use super::abi::Handle;
use super::context::Context;
use super::launch::Work;
use super::objects::{OBJECTS, lock};
use super::stream::Stream;
use crate::error::CudaError;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: any thread may end the capture.
const RELAXED: u32 = 2;

/// A capture in progress.
#[derive(Debug)]
pub(super) struct Capture {
    origin: Handle,
    thread: ThreadId,
    mode: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Arc<Work>>,
    sequence: u64,
    invalid: bool,
    /// A capture has few streams.
    streams: Vec<(Handle, Progress)>,
}

/// The progress of a stream of the capture, and how much of it other streams of the capture have joined.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    last: u64,
    joined: u64,
}

impl Capture {
    /// Begins a capture on a stream.
    pub(super) fn begin(origin: &Stream, mode: u32) -> Result<(), CudaError> {
        let mut slot = lock(&origin.capture);
        if slot.is_some() || origin.is_default() {
            return Err(if slot.is_some() {
                CudaError::IllegalState
            } else {
                CudaError::StreamCaptureUnsupported
            });
        }
        let mut state = State::default();
        state.streams.push((origin.handle, Progress::default()));
        *slot = Some(Arc::new(Self {
            origin: origin.handle,
            thread: std::thread::current().id(),
            mode,
            state: Mutex::new(state),
        }));
        Ok(())
    }

    /// Ends the capture on the stream where it began, and returns the nodes.
    pub(super) fn end(self: &Arc<Self>, stream: &Stream) -> Result<Vec<Arc<Work>>, CudaError> {
        if stream.handle != self.origin {
            return Err(CudaError::StreamCaptureUnmatched);
        }
        if self.mode != RELAXED && std::thread::current().id() != self.thread {
            return Err(CudaError::StreamCaptureWrongThread);
        }
        for member in OBJECTS.streams.select(|member| member.is_captured_by(self)) {
            *lock(&member.capture) = None;
        }
        let state = lock(&self.state);
        if state.invalid {
            return Err(CudaError::StreamCaptureInvalidated);
        }
        let unjoined = |(handle, progress): &(Handle, Progress)| {
            *handle != self.origin && progress.joined < progress.last
        };
        if state.streams.iter().any(unjoined) {
            return Err(CudaError::StreamCaptureUnjoined);
        }
        Ok(state.nodes.clone())
    }

    /// Fails if an earlier error has invalidated the capture.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        if lock(&self.state).invalid { Err(CudaError::StreamCaptureInvalidated) } else { Ok(()) }
    }

    pub(super) fn invalidate(&self) {
        lock(&self.state).invalid = true;
    }

    /// Adds work that a stream submits.
    pub(super) fn add(&self, stream: Handle, work: Work) {
        let mut state = lock(&self.state);
        state.nodes.push(Arc::new(work));
        state.advance(stream);
    }

    /// The progress of a stream.
    pub(super) fn progress_of(&self, stream: Handle) -> u64 {
        lock(&self.state).progress(stream).map_or(0, |progress| progress.last)
    }

    /// Makes a stream wait for a point of this capture; the stream joins the capture if it is not part of it yet.
    pub(super) fn join(
        self: &Arc<Self>,
        stream: &Stream,
        waited_for: Handle,
        sequence: u64,
    ) -> Result<(), CudaError> {
        if OBJECTS.streams.select(|member| member.is_captured_by(self)).is_empty() {
            // The capture has ended, and the event has not been recorded again since.
            return Err(CudaError::CapturedEvent);
        }
        if stream.is_default() {
            self.invalidate();
            return Err(CudaError::StreamCaptureImplicit);
        }
        let mut slot = lock(&stream.capture);
        if slot.as_ref().is_some_and(|own| !Arc::ptr_eq(own, self)) {
            self.invalidate();
            return Err(CudaError::StreamCaptureMerge);
        }
        *slot = Some(Arc::clone(self));
        let mut state = lock(&self.state);
        if stream.handle != waited_for {
            state.advance(stream.handle);
            if let Some(progress) = state.progress(waited_for) {
                progress.joined = progress.joined.max(sequence);
            }
        }
        Ok(())
    }
}

impl State {
    fn progress(&mut self, stream: Handle) -> Option<&mut Progress> {
        self.streams.iter_mut().find(|(handle, _)| *handle == stream).map(|(_, progress)| progress)
    }

    fn advance(&mut self, stream: Handle) {
        self.sequence += 1;
        let last = self.sequence;
        match self.progress(stream) {
            Some(progress) => progress.last = last,
            None => self.streams.push((stream, Progress { last, joined: 0 })),
        }
    }
}

impl Stream {
    fn is_captured_by(&self, capture: &Arc<Capture>) -> bool {
        lock(&self.capture).as_ref().is_some_and(|own| Arc::ptr_eq(own, capture))
    }
}

/// Fails if any stream of the context is being captured, for calls that wait for the whole context.
pub(super) fn forbid_in_context(context: &Arc<Context>) -> Result<(), CudaError> {
    for stream in OBJECTS.streams.select(|stream| Arc::ptr_eq(&stream.context, context)) {
        stream.forbid_capture()?;
    }
    Ok(())
}

/// A graph: a sequence of work.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) nodes: Vec<Arc<Work>>,
}

/// A graph that can be launched.
#[derive(Debug)]
pub(super) struct GraphExec {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) nodes: Vec<Arc<Work>>,
}
