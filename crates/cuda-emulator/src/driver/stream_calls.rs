//! "Stream Management".

use std::sync::Arc;

use super::abi::{CUresult, Handle, Out};
use super::capture::Capture;
use super::entry::{Call, entry, release};
use super::event::{self, Recorded};
use super::graph::Graph;
use super::objects::{OBJECTS, lock};
use super::stream::{GREATEST_PRIORITY, LEAST_PRIORITY, NON_BLOCKING, Stream};
use crate::error::CudaError;

fn create(call: &Call, out: Out<Handle>, flags: u32, priority: i32) -> Result<(), CudaError> {
    let context = call.context()?;
    if out.is_null() || flags & !NON_BLOCKING != 0 {
        return Err(call.misuse(CudaError::InvalidValue, format!("invalid stream flags {flags:#x}")));
    }
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    out.set(Stream::create(&context, flags, priority).handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(out: Out<Handle>, flags: u32) -> CUresult {
    entry("cuStreamCreate", |call| create(call, out, flags, LEAST_PRIORITY))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(out: Out<Handle>, flags: u32, priority: i32) -> CUresult {
    entry("cuStreamCreateWithPriority", |call| create(call, out, flags, priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(handle: Handle) -> CUresult {
    release("cuStreamDestroy_v2", |call| {
        let stream = Stream::by_handle(call, handle)?;
        if stream.is_default() {
            return Err(call.misuse(CudaError::InvalidHandle, "a default stream cannot be destroyed"));
        }
        if let Some(capture) = &*lock(&stream.capture) {
            capture.invalidate();
        }
        OBJECTS.streams.remove(handle)?;
        stream.context.check()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(handle: Handle) -> CUresult {
    entry("cuStreamSynchronize", |call| {
        let stream = Stream::by_handle(call, handle)?;
        stream.context.check()?;
        stream.forbid_capture()?;
        stream.context.session.queue.finish_stream(call, &stream);
        stream.context.settle()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(handle: Handle) -> CUresult {
    entry("cuStreamQuery", |call| {
        let stream = Stream::by_handle(call, handle)?;
        stream.context.check()?;
        stream.forbid_capture()?;
        if let Some(goal) = stream.context.session.queue.last(&stream) {
            event::poll(call, &goal)?;
        }
        stream.context.settle()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) -> CUresult {
    entry("cuStreamWaitEvent", |call| {
        let stream = Stream::by_handle(call, stream)?;
        let event = event::by_handle(call, event)?;
        stream.context.check()?;
        // CU_EVENT_WAIT_EXTERNAL (1) is not emulated.
        if flags != 0 {
            return Err(
                call.misuse(CudaError::NotSupported, format!("wait flags {flags:#x} are not emulated"))
            );
        }
        let recorded = lock(&event.recorded).clone();
        match (stream.captured()?, recorded) {
            (_, Recorded::Captured { capture, stream: waited_for, sequence }) => {
                capture.join(&stream, waited_for, sequence)
            }
            (Some(own), Recorded::At(_) | Recorded::Queued(_)) => {
                own.invalidate();
                Err(call
                    .misuse(CudaError::StreamCaptureIsolation, "the event was recorded outside the capture"))
            }
            (None, Recorded::Queued(mark)) => {
                stream.context.session.queue.add(call, &stream, None, vec![mark]);
                Ok(())
            }
            // The recorded work is already complete.
            (None, Recorded::At(_)) | (_, Recorded::Nothing) => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(handle: Handle, out: Out<i32>) -> CUresult {
    entry("cuStreamGetPriority", |call| out.set(Stream::by_handle(call, handle)?.priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(handle: Handle, out: Out<u32>) -> CUresult {
    entry("cuStreamGetFlags", |call| out.set(Stream::by_handle(call, handle)?.flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(handle: Handle, out: Out<Handle>) -> CUresult {
    entry("cuStreamGetCtx", |call| out.set(Stream::by_handle(call, handle)?.context.handle))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(handle: Handle, mode: u32) -> CUresult {
    entry("cuStreamBeginCapture_v2", |call| {
        let stream = Stream::by_handle(call, handle)?;
        stream.context.check()?;
        if mode > 2 {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid capture mode {mode}")));
        }
        Capture::begin(&stream, mode)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(handle: Handle, out: Out<Handle>) -> CUresult {
    entry("cuStreamEndCapture", |call| {
        let stream = Stream::by_handle(call, handle)?;
        out.set(0)?;
        let capture = lock(&stream.capture).clone();
        let nodes = capture.ok_or(CudaError::IllegalState)?.end(&stream)?;
        let context = Arc::clone(&stream.context);
        let instantiated = Arc::default();
        let graph = OBJECTS.graphs.add(|handle| Arc::new(Graph { handle, context, nodes, instantiated }));
        out.set(graph.handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(handle: Handle, out: Out<u32>) -> CUresult {
    entry("cuStreamIsCapturing", |call| {
        let stream = Stream::by_handle(call, handle)?;
        let status = match &*lock(&stream.capture) {
            None => 0,
            Some(capture) if capture.check().is_ok() => 1,
            Some(_) => 2,
        };
        out.set(status)
    })
}
