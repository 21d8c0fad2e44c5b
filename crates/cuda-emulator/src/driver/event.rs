//! "Event Management".
//!
//! Elapsed times are measured with this machine's monotonic clock: they are the time that the emulation took, and say
//! nothing about a GPU.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::abi::{CUresult, Handle, Out};
use super::capture::{self, Capture};
use super::context::Context;
use super::entry::{Call, entry, release};
use super::objects::{OBJECTS, lock};
use super::queue::Mark;
use super::stream::Stream;
use crate::error::CudaError;

/// The state of an event.
#[derive(Clone, Debug)]
pub(super) enum Recorded {
    Nothing,
    /// Recorded at this time.
    At(Instant),
    /// Recorded at a point that its stream may not have reached.
    Queued(Arc<Mark>),
    /// Recorded in a stream capture, at this point of a stream.
    Captured {
        capture: Arc<Capture>,
        stream: Handle,
        sequence: u64,
    },
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    flags: u32,
    pub(super) recorded: Mutex<Recorded>,
}

const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;

/// The event with the given handle.
pub(super) fn by_handle(call: &Call, handle: Handle) -> Result<Arc<Event>, CudaError> {
    OBJECTS.events.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not an event, or the event has been destroyed"))
    })
}

fn record(call: &Call, event: Handle, stream: Handle) -> Result<(), CudaError> {
    call.context()?;
    let event = by_handle(call, event)?;
    let stream = Stream::by_handle(call, stream)?;
    if !Arc::ptr_eq(&event.context, &stream.context) {
        return Err(
            call.misuse(CudaError::InvalidHandle, "the event and the stream belong to different contexts")
        );
    }
    let recorded = match stream.captured()? {
        None => {
            let session = &stream.context.session;
            let point = if session.queues(call) { session.queue.point(call, &stream) } else { None };
            point.map_or_else(|| Recorded::At(Instant::now()), Recorded::Queued)
        }
        Some(capture) => {
            let sequence = capture.progress_of(stream.handle);
            Recorded::Captured { capture, stream: stream.handle, sequence }
        }
    };
    *lock(&event.recorded) = recorded;
    Ok(())
}

/// Fails for an event recorded in a capture, and invalidates that capture.
fn reject_captured(event: &Event) -> Result<(), CudaError> {
    if let Recorded::Captured { capture, .. } = &*lock(&event.recorded) {
        capture.invalidate();
        return Err(CudaError::CapturedEvent);
    }
    Ok(())
}

/// When the event was recorded.
fn time(call: &Call, event: &Event) -> Result<Instant, CudaError> {
    match &*lock(&event.recorded) {
        Recorded::At(time) => Ok(*time),
        Recorded::Queued(mark) => mark.reached().ok_or(CudaError::NotReady),
        _ => Err(call.misuse(CudaError::InvalidHandle, "an event has not been recorded")),
    }
}

/// The point at which the event is recorded, if its stream has not reached it.
fn pending(event: &Event) -> Option<Arc<Mark>> {
    match &*lock(&event.recorded) {
        Recorded::Queued(mark) if mark.reached().is_none() => Some(Arc::clone(mark)),
        _ => None,
    }
}

/// Fails if a point is not reached yet. Asking moves the stream on, so that a program that asks again gets there.
pub(super) fn poll(call: &Call, goal: &Arc<Mark>) -> Result<(), CudaError> {
    call.session.queue.step(call, goal);
    if goal.reached().is_none() { Err(CudaError::NotReady) } else { Ok(()) }
}

fn elapsed(call: &Call, out: Out<f32>, start: Handle, end: Handle) -> Result<(), CudaError> {
    let (start, end) = (by_handle(call, start)?, by_handle(call, end)?);
    if !Arc::ptr_eq(&start.context, &end.context) || (start.flags | end.flags) & DISABLE_TIMING != 0 {
        return Err(call.misuse(
            CudaError::InvalidHandle,
            "the events belong to different contexts or were created without timing",
        ));
    }
    start.context.check()?;
    reject_captured(&start)?;
    reject_captured(&end)?;
    // Locked one after the other: both may be the same event.
    let from = time(call, &start)?;
    let to = time(call, &end)?;
    let milliseconds = match to.checked_duration_since(from) {
        Some(time) => time.as_secs_f64() * 1e3,
        None => (from - to).as_secs_f64() * -1e3,
    };
    out.set(milliseconds as f32)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(out: Out<Handle>, flags: u32) -> CUresult {
    entry("cuEventCreate", |call| {
        let context = call.context()?;
        let known = BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS;
        let shared_with_timing = flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0;
        if out.is_null() || flags & !known != 0 || shared_with_timing {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid event flags {flags:#x}")));
        }
        let event = OBJECTS.events.add(|handle| {
            Arc::new(Event { handle, context, flags, recorded: Mutex::new(Recorded::Nothing) })
        });
        out.set(event.handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(handle: Handle) -> CUresult {
    release("cuEventDestroy_v2", |call| {
        let event = by_handle(call, handle)?;
        OBJECTS.events.remove(handle)?;
        event.context.check()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> CUresult {
    entry("cuEventRecord", |call| record(call, event, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) -> CUresult {
    entry("cuEventRecordWithFlags", |call| {
        // CU_EVENT_RECORD_EXTERNAL (1) makes the record a node of its own in a captured graph, which makes no difference here.
        if flags & !1 != 0 {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid record flags {flags:#x}")));
        }
        record(call, event, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(handle: Handle) -> CUresult {
    entry("cuEventQuery", |call| {
        let event = by_handle(call, handle)?;
        event.context.check()?;
        reject_captured(&event)?;
        capture::forbid_unsafe(call, &event.context.session)?;
        if let Some(goal) = pending(&event) {
            poll(call, &goal)?;
        }
        event.context.settle()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(handle: Handle) -> CUresult {
    entry("cuEventSynchronize", |call| {
        let event = by_handle(call, handle)?;
        event.context.check()?;
        reject_captured(&event)?;
        if let Some(goal) = pending(&event) {
            event.context.session.queue.reach(call, &goal);
        }
        event.context.settle()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(out: Out<f32>, start: Handle, end: Handle) -> CUresult {
    entry("cuEventElapsedTime", |call| elapsed(call, out, start, end))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(out: Out<f32>, start: Handle, end: Handle) -> CUresult {
    entry("cuEventElapsedTime_v2", |call| elapsed(call, out, start, end))
}
