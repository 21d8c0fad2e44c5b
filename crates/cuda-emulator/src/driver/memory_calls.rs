//! "Memory Management": allocating, freeing and setting device memory.

use std::sync::Arc;

use super::abi::{CUdeviceptr, CUresult, Handle, Out};
use super::capture;
use super::context::Context;
use super::copy_calls::without_stream;
use super::entry::{Call, entry, release};
use super::launch::Work;
use super::objects::lock;
use super::pool;
use super::stream::Stream;
use crate::control::AllocationKind;
use crate::error::CudaError;

/// Allocates device memory and records it for the context.
pub(super) fn allocate(
    call: &Call,
    context: &Arc<Context>,
    bytes: usize,
    kind: AllocationKind,
) -> Result<CUdeviceptr, CudaError> {
    let session = &context.session;
    let address = session.memory.alloc(bytes as u64).map_err(|error| call.memory_error(&error))?;
    lock(&session.allocations).add(context.handle, kind, address, bytes as u64);
    Ok(address)
}

/// Frees memory returned by [`allocate`]; address 0 is ignored.
pub(super) fn free(call: &Call, address: CUdeviceptr) -> Result<(), CudaError> {
    if address == 0 {
        return Ok(());
    }
    strike_out(call, address)?;
    call.session.memory.free(address).map_err(|error| call.memory_error(&error))
}

/// Removes an allocation from the records of the session and of its pool, ahead of freeing it.
pub(super) fn strike_out(call: &Call, address: CUdeviceptr) -> Result<(), CudaError> {
    let session = &call.session;
    // The session's memory also contains the variables of modules, which the program must not free.
    if lock(&session.allocations).live.remove(&(false, address)).is_none() {
        let what =
            format!("{address:#x} is not the start of a live allocation: never allocated, or already freed");
        return Err(call.misuse(CudaError::InvalidValue, what));
    }
    pool::forget(session, address);
    Ok(())
}

fn fill(call: &Call, to: CUdeviceptr, pattern: &[u8], count: usize, stream: Handle) -> Result<(), CudaError> {
    call.context()?;
    if !to.is_multiple_of(pattern.len() as u64) {
        return Err(
            call.misuse(CudaError::InvalidValue, format!("{to:#x} is not aligned to the size of the value"))
        );
    }
    let work = Work::Fill { to, pattern: pattern.to_vec(), count };
    Stream::by_handle(call, stream)?.submit(call, work)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(out: Out<CUdeviceptr>, bytes: usize) -> CUresult {
    entry("cuMemAlloc_v2", |call| {
        let context = call.context()?;
        if out.is_null() || bytes == 0 {
            return Err(
                call.misuse(CudaError::InvalidValue, "the size is zero or the output pointer is null")
            );
        }
        capture::forbid_unsafe(call, &call.session)?;
        out.set(allocate(call, &context, bytes, AllocationKind::Device)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    release("cuMemFree_v2", |call| {
        let context = call.any_context()?;
        capture::forbid_unsafe(call, &call.session)?;
        // Unlike `cuMemFreeAsync`, this waits for the work that may use the memory.
        context.session.queue.finish(call, Some(&context));
        free(call, address)?;
        context.check()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> CUresult {
    entry("cuMemGetInfo_v2", |call| {
        let context = call.context()?;
        let memory = &context.session.memory;
        free.set_if_wanted((memory.capacity() - memory.used()) as usize);
        total.set_if_wanted(memory.capacity() as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(
    start: Out<CUdeviceptr>,
    bytes: Out<usize>,
    address: CUdeviceptr,
) -> CUresult {
    entry("cuMemGetAddressRange_v2", |call| {
        let context = call.context()?;
        let allocation = context.session.memory.allocation(address).ok_or_else(|| {
            call.misuse(CudaError::NotFound, format!("{address:#x} is not in any allocation"))
        })?;
        start.set_if_wanted(allocation.address);
        bytes.set_if_wanted(allocation.bytes as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: CUdeviceptr, value: u8, count: usize) -> CUresult {
    entry("cuMemsetD8_v2", |call| fill(call, to, &[value], count, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16_v2(to: CUdeviceptr, value: u16, count: usize) -> CUresult {
    entry("cuMemsetD16_v2", |call| fill(call, to, &value.to_le_bytes(), count, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: CUdeviceptr, value: u32, count: usize) -> CUresult {
    entry("cuMemsetD32_v2", |call| fill(call, to, &value.to_le_bytes(), count, without_stream(call)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: CUdeviceptr, value: u8, count: usize, stream: Handle) -> CUresult {
    entry("cuMemsetD8Async", |call| fill(call, to, &[value], count, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(to: CUdeviceptr, value: u16, count: usize, stream: Handle) -> CUresult {
    entry("cuMemsetD16Async", |call| fill(call, to, &value.to_le_bytes(), count, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: CUdeviceptr, value: u32, count: usize, stream: Handle) -> CUresult {
    entry("cuMemsetD32Async", |call| fill(call, to, &value.to_le_bytes(), count, stream))
}
