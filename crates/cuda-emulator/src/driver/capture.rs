//! Stream capture: work that is recorded instead of executed.
//!
//! A graph keeps its nodes in the order in which the program submitted them. That order respects all dependencies that
//! streams and events express, so executing the nodes one after another is valid.

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use super::abi::{CUdeviceptr, Handle};
use super::context::Context;
use super::entry::Call;
use super::graph::{GraphMemory, Node, Nodes};
use super::launch::Work;
use super::objects::{OBJECTS, lock};
use super::session::Session;
use super::stream::Stream;
use crate::error::CudaError;

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`: no thread may make unsafe calls.
const GLOBAL: u32 = 0;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`: any thread may end the capture and make unsafe calls.
const RELAXED: u32 = 2;

/// A capture in progress.
#[derive(Debug)]
pub(super) struct Capture {
    origin: Handle,
    session: Arc<Session>,
    thread: ThreadId,
    mode: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Nodes,
    /// Memory that the capture has freed.
    freed: Vec<CUdeviceptr>,
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
        if slot.is_some() {
            return Err(CudaError::IllegalState);
        }
        if origin.is_legacy() {
            return Err(CudaError::StreamCaptureUnsupported);
        }
        let mut state = State::default();
        state.streams.push((origin.handle, Progress::default()));
        *slot = Some(Arc::new(Self {
            origin: origin.handle,
            session: Arc::clone(&origin.context.session),
            thread: std::thread::current().id(),
            mode,
            state: Mutex::new(state),
        }));
        Ok(())
    }

    /// Ends the capture on the stream where it began, and returns the nodes.
    pub(super) fn end(self: &Arc<Self>, stream: &Stream) -> Result<Nodes, CudaError> {
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
        let node = Node::new(&self.session, work);
        let mut state = lock(&self.state);
        state.nodes.list.push(Arc::new(node));
        state.advance(stream);
    }

    /// Adds an allocation: reserves addresses, at which the graph makes memory whenever it is launched.
    pub(super) fn allocate(
        &self,
        call: &Call,
        stream: Handle,
        bytes: usize,
    ) -> Result<CUdeviceptr, CudaError> {
        let reserved = self.session.memory.reserve(bytes as u64);
        let address = reserved.map_err(|error| call.memory_error(&error))?;
        let memory = Arc::new(GraphMemory::new(&self.session, address));
        lock(&self.state).nodes.memory.push(memory);
        self.add(stream, Work::Allocate { address });
        Ok(address)
    }

    /// Adds a free, which must be that of an allocation of a graph.
    pub(super) fn free(&self, call: &Call, stream: Handle, address: CUdeviceptr) -> Result<(), CudaError> {
        let mut state = lock(&self.state);
        if !self.session.memory.is_reserved(address) || state.freed.contains(&address) {
            let what = format!(
                "{address:#x} is not an allocation of a graph, or this capture has freed it already; a capture can free \
                 nothing else"
            );
            return Err(call.misuse(CudaError::InvalidValue, what));
        }
        state.freed.push(address);
        drop(state);
        self.add(stream, Work::Free { address });
        Ok(())
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
        if stream.is_legacy() {
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

/// Fails if a capture that is in progress forbids this thread calls that no graph can contain and that may wait for other
/// streams: allocations and frees outside a stream, copies without one, loading a module, asking for an event's state
/// (`cuThreadExchangeStreamCaptureMode`). The attempt invalidates the capture.
pub(super) fn forbid_unsafe(call: &Call, session: &Session) -> Result<(), CudaError> {
    let thread = std::thread::current().id();
    let forbids = |stream: &Stream| {
        lock(&stream.capture).as_ref().is_some_and(|capture| {
            std::ptr::eq(Arc::as_ptr(&capture.session), session)
                && (capture.mode == GLOBAL || capture.mode != RELAXED && capture.thread == thread)
        })
    };
    for stream in OBJECTS.streams.select(forbids) {
        stream.forbid_capture().map_err(|error| {
            call.misuse(error, "a stream is being captured, in a mode that does not allow this call")
        })?;
    }
    Ok(())
}
