//! "Memory Management": copies.

use std::sync::Arc;

use super::abi::{CUdeviceptr, CUresult, Handle, Host};
use super::capture;
use super::context_calls::by_handle;
use super::entry::{Call, entry};
use super::host::Later;
use super::launch::{HostSide, Work};
use super::stream::Stream;
use crate::error::CudaError;

/// Copies to the device in a stream's order. Host memory may be pageable: a graph keeps its address all the same.
fn to_device(
    call: &Call,
    to: CUdeviceptr,
    from: Host,
    bytes: usize,
    stream: Handle,
) -> Result<(), CudaError> {
    call.context()?;
    let stream = Stream::by_handle(call, stream)?;
    let host = host_side(call, &stream, from, bytes)?;
    stream.submit(call, Work::HostToDevice { to, host })
}

fn to_host(call: &Call, to: Host, from: CUdeviceptr, bytes: usize, stream: Handle) -> Result<(), CudaError> {
    call.context()?;
    let stream = Stream::by_handle(call, stream)?;
    let host = host_side(call, &stream, to, bytes)?;
    stream.submit(call, Work::DeviceToHost { host, from })
}

/// The host memory of a copy in this stream.
fn host_side(call: &Call, stream: &Stream, host: Host, bytes: usize) -> Result<HostSide, CudaError> {
    if host.is_null() && bytes != 0 {
        return Err(call.misuse(CudaError::InvalidValue, "the host address is null"));
    }
    Ok(match stream.captured()? {
        Some(_) => HostSide::Later(Later::of_graph(host, bytes)),
        None => HostSide::Now { host, bytes },
    })
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
    entry("cuMemcpyHtoD_v2", |call| to_device(call, to, from, bytes, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: Host, bytes: usize, stream: Handle) -> CUresult {
    entry("cuMemcpyHtoDAsync_v2", |call| to_device(call, to, from, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: Host, from: CUdeviceptr, bytes: usize) -> CUresult {
    entry("cuMemcpyDtoH_v2", |call| to_host(call, to, from, bytes, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: Host, from: CUdeviceptr, bytes: usize, stream: Handle) -> CUresult {
    entry("cuMemcpyDtoHAsync_v2", |call| to_host(call, to, from, bytes, stream))
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
        let mut copy = vec![0; bytes];
        from_context
            .session
            .memory
            .read(from, &mut copy)
            .and_then(|()| to_context.session.memory.write(to, &copy))
            .map_err(|error| call.memory_error(&error))
    })
}
