//! "Memory Management": copies.

use std::sync::Arc;

use super::abi::{CUdeviceptr, CUresult, Handle, Host};
use super::capture;
use super::context_calls::by_handle;
use super::entry::{Call, entry};
use super::host::Later;
use super::host_memory;
use super::launch::{HostSide, Work};
use super::objects::lock;
use super::stream::Stream;
use crate::control::PageableCopies;
use crate::error::CudaError;

/// How a copy between host and device treats the host's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Done with it when the call returns.
    Synchronous,
    /// Until the stream has reached the copy, unless the memory is pageable and the session's setting says otherwise.
    Asynchronous,
}

/// Whether the host's memory is used only when the stream reaches the copy.
fn is_late(stream: &Stream, host: Host, manner: Manner) -> bool {
    let copies = lock(&stream.context.session.settings).pageable_copies;
    let pinned = host_memory::block(host.0 as u64).is_some();
    manner == Manner::Asynchronous && (pinned || copies == PageableCopies::Late)
}

/// Host memory that is used when the stream reaches the copy.
fn watched(call: &Call, host: Host, bytes: usize) -> Result<HostSide, CudaError> {
    let later = Later::watched(host, bytes);
    later.map(HostSide::Later).map_err(|_| {
        call.misuse(CudaError::InvalidValue, format!("there are no {bytes} bytes of host memory at {host:?}"))
    })
}

fn refuse_null(call: &Call, host: Host, bytes: usize) -> Result<(), CudaError> {
    if host.is_null() && bytes != 0 {
        return Err(call.misuse(CudaError::InvalidValue, "the host address is null"));
    }
    Ok(())
}

/// Copies to the device. A graph keeps the host's address, also if the memory is pageable.
fn to_device(
    call: &Call,
    to: CUdeviceptr,
    from: Host,
    bytes: usize,
    stream: Handle,
    manner: Manner,
) -> Result<(), CudaError> {
    call.context()?;
    refuse_null(call, from, bytes)?;
    let stream = Stream::by_handle(call, stream)?;
    let host = if stream.captured()?.is_some() {
        HostSide::Later(Later::of_graph(from, bytes))
    } else if !stream.context.session.queues(call) {
        HostSide::Now { host: from, bytes }
    } else if is_late(&stream, from, manner) {
        watched(call, from, bytes)?
    } else {
        HostSide::Staged(Arc::new(from.read(bytes)?))
    };
    stream.submit(call, Work::HostToDevice { to, host })
}

/// Copies to the host.
fn to_host(
    call: &Call,
    to: Host,
    from: CUdeviceptr,
    bytes: usize,
    stream: Handle,
    manner: Manner,
) -> Result<(), CudaError> {
    call.context()?;
    refuse_null(call, to, bytes)?;
    let stream = Stream::by_handle(call, stream)?;
    if stream.captured()?.is_some() {
        let host = HostSide::Later(Later::of_graph(to, bytes));
        return stream.submit(call, Work::DeviceToHost { host, from });
    }
    let queues = stream.context.session.queues(call);
    if queues && is_late(&stream, to, manner) {
        let host = watched(call, to, bytes)?;
        return stream.submit(call, Work::DeviceToHost { host, from });
    }
    stream.submit(call, Work::DeviceToHost { host: HostSide::Now { host: to, bytes }, from })?;
    if queues {
        stream.context.session.queue.finish_stream(call, &stream);
        return stream.context.settle();
    }
    Ok(())
}

/// A copy or a fill that takes no stream argument is done in the default stream, and no capture may be in progress.
pub(super) fn without_stream(call: &Call) -> Result<Handle, CudaError> {
    capture::forbid_unsafe(call, &call.session)?;
    Ok(0)
}

fn on_device(
    call: &Call,
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    stream: Handle,
) -> Result<(), CudaError> {
    call.context()?;
    Stream::by_handle(call, stream)?.submit(call, Work::DeviceToDevice { to, from, bytes })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: Host, bytes: usize) -> CUresult {
    entry("cuMemcpyHtoD_v2", |call| {
        to_device(call, to, from, bytes, without_stream(call)?, Manner::Synchronous)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: Host, bytes: usize, stream: Handle) -> CUresult {
    entry("cuMemcpyHtoDAsync_v2", |call| to_device(call, to, from, bytes, stream, Manner::Asynchronous))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: Host, from: CUdeviceptr, bytes: usize) -> CUresult {
    entry("cuMemcpyDtoH_v2", |call| {
        to_host(call, to, from, bytes, without_stream(call)?, Manner::Synchronous)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: Host, from: CUdeviceptr, bytes: usize, stream: Handle) -> CUresult {
    entry("cuMemcpyDtoHAsync_v2", |call| to_host(call, to, from, bytes, stream, Manner::Asynchronous))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> CUresult {
    entry("cuMemcpyDtoD_v2", |call| on_device(call, to, from, bytes, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    entry("cuMemcpyDtoDAsync_v2", |call| on_device(call, to, from, bytes, stream))
}

/// Contexts of one session share the device memory; between sessions the bytes are copied through the host.
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: CUdeviceptr,
    to_context: Handle,
    from: CUdeviceptr,
    from_context: Handle,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    entry("cuMemcpyPeerAsync", |call| {
        let (to_context, from_context) = (by_handle(call, to_context)?, by_handle(call, from_context)?);
        if Arc::ptr_eq(&to_context.session, &from_context.session) {
            return on_device(call, to, from, bytes, stream);
        }
        call.context()?;
        Stream::by_handle(call, stream)?.forbid_capture()?;
        for session in [&to_context.session, &from_context.session] {
            session.queue.finish(call, None);
        }
        let mut copy = vec![0; bytes];
        from_context
            .session
            .memory
            .read(from, &mut copy)
            .and_then(|()| to_context.session.memory.write(to, &copy))
            .map_err(|error| call.memory_error(&error))
    })
}
