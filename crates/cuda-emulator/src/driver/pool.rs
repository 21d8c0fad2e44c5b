//! "Stream Ordered Memory Allocator": memory pools and stream-ordered allocation.
//!
//! Memory is released as soon as it is freed, or where work is queued, when the stream reaches the free. Pools therefore
//! reserve no more than what is in use.

use std::sync::{Arc, Mutex};

use super::abi::{CUdeviceptr, CUresult, Handle, Out};
use super::entry::{Call, entry, release};
use super::launch::Work;
use super::memory_calls;
use super::objects::{OBJECTS, lock};
use super::session::Session;
use super::stream::Stream;
use crate::control::AllocationKind;
use crate::error::CudaError;

/// The handle of a session's default pool.
pub(super) const DEFAULT: Handle = 6 << 40;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) handle: Handle,
    pub(super) session: Arc<Session>,
    state: Mutex<PoolState>,
}

/// The attributes and the usage of a pool.
#[derive(Debug)]
pub(super) struct PoolState {
    /// The three reuse policies, 0 or 1.
    reuse: [i32; 3],
    release_threshold: u64,
    used: u64,
    used_high: u64,
    /// Sizes of the pool's live allocations, by address.
    sizes: std::collections::BTreeMap<u64, u64>,
}

impl Default for PoolState {
    fn default() -> Self {
        Self { reuse: [1; 3], release_threshold: 0, used: 0, used_high: 0, sizes: Default::default() }
    }
}

impl PoolState {
    fn give(&mut self, address: u64, bytes: u64) {
        self.sizes.insert(address, bytes);
        self.used += bytes;
        self.used_high = self.used_high.max(self.used);
    }

    fn take_back(&mut self, address: u64) {
        if let Some(bytes) = self.sizes.remove(&address) {
            self.used -= bytes;
        }
    }
}

/// Fails on a device without memory pools.
pub(super) fn check_supported(call: &Call) -> Result<(), CudaError> {
    if call.session.device().memory_pools {
        Ok(())
    } else {
        Err(call.misuse(CudaError::NotSupported, "the device has no memory pools"))
    }
}

fn with_pool<T>(
    call: &Call,
    handle: Handle,
    use_it: impl FnOnce(&mut PoolState) -> Result<T, CudaError>,
) -> Result<T, CudaError> {
    check_supported(call)?;
    if handle == DEFAULT {
        return use_it(&mut lock(&call.session.default_pool));
    }
    let pool = OBJECTS.pools.get(handle).map_err(|error| {
        call.misuse(error, format!("{handle:#x} is not a memory pool, or the pool has been destroyed"))
    })?;
    use_it(&mut lock(&pool.state))
}

/// Removes a freed allocation from its pool.
pub(super) fn forget(session: &Arc<Session>, address: u64) {
    lock(&session.default_pool).take_back(address);
    for pool in OBJECTS.pools.select(|pool| Arc::ptr_eq(&pool.session, session)) {
        lock(&pool.state).take_back(address);
    }
}

fn allocate(
    call: &Call,
    out: Out<CUdeviceptr>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Result<(), CudaError> {
    let context = call.context()?;
    if out.is_null() {
        return Err(CudaError::InvalidValue);
    }
    let stream = Stream::by_handle(call, stream)?;
    let capture = stream.captured()?;
    // Unlike `cuMemAlloc`, this accepts a size of zero and returns a null address.
    if bytes == 0 {
        with_pool(call, pool, |_| Ok(()))?;
        return out.set(0);
    }
    if let Some(capture) = capture {
        with_pool(call, pool, |_| Ok(()))?;
        // The graph owns the allocation, not the pool.
        return out.set(capture.allocate(call, stream.handle, bytes)?);
    }
    let queues = context.session.queues(call);
    with_pool(call, pool, |state| {
        let address = if queues {
            begin(call, &stream, bytes)?
        } else {
            memory_calls::allocate(call, &context, bytes, AllocationKind::Pool)?
        };
        state.give(address, bytes as u64);
        out.set(address)
    })
}

/// An allocation whose memory exists from the moment its stream has reached it.
fn begin(call: &Call, stream: &Stream, bytes: usize) -> Result<CUdeviceptr, CudaError> {
    let (context, session) = (&stream.context, &stream.context.session);
    let address = session.memory.reserve(bytes as u64).map_err(|error| call.memory_error(&error))?;
    lock(&session.allocations).add(context.handle, AllocationKind::Pool, address, bytes as u64);
    stream.submit(call, Work::Begin { address }).inspect_err(|_| {
        let _ = memory_calls::strike_out(call, address);
        session.memory.give_up(address);
    })?;
    Ok(address)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(out: Out<CUdeviceptr>, bytes: usize, stream: Handle) -> CUresult {
    entry("cuMemAllocAsync", |call| {
        let pool = *lock(&call.session.current_pool);
        allocate(call, out, bytes, pool, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(
    out: Out<CUdeviceptr>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> CUresult {
    entry("cuMemAllocFromPoolAsync", |call| allocate(call, out, bytes, pool, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: CUdeviceptr, stream: Handle) -> CUresult {
    release("cuMemFreeAsync", |call| {
        let context = call.any_context()?;
        check_supported(call)?;
        let stream = Stream::by_handle(call, stream)?;
        match stream.captured()? {
            Some(capture) => capture.free(call, stream.handle, address)?,
            None if address != 0 && context.session.queues(call) => {
                memory_calls::strike_out(call, address)?;
                stream.submit(call, Work::End { address })?;
            }
            None => memory_calls::free(call, address)?,
        }
        context.check()
    })
}

/// The beginning of `CUmemPoolProps`: allocation type, export handle types, location type, device.
type Properties = [u32; 4];

const PINNED: u32 = 1;
const ON_DEVICE: u32 = 1;

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolCreate(out: Out<Handle>, properties: Out<Properties>) -> CUresult {
    entry("cuMemPoolCreate", |call| {
        check_supported(call)?;
        let [kind, exports, place, device] = properties.get()?;
        if out.is_null() || (kind, place, device) != (PINNED, ON_DEVICE, 0) {
            return Err(call.misuse(CudaError::InvalidValue, "the pool must be of pinned memory on device 0"));
        }
        if exports != 0 {
            return Err(call.misuse(CudaError::NotSupported, "sharing pools is not emulated"));
        }
        let session = Arc::clone(&call.session);
        out.set(
            OBJECTS.pools.add(|handle| Arc::new(Pool { handle, session, state: Mutex::default() })).handle,
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(handle: Handle) -> CUresult {
    release("cuMemPoolDestroy", |call| {
        if handle == DEFAULT {
            return Err(call.misuse(CudaError::InvalidValue, "the default pool cannot be destroyed"));
        }
        with_pool(call, handle, |_| Ok(()))?;
        let mut current = lock(&call.session.current_pool);
        if *current == handle {
            *current = DEFAULT;
        }
        // Its allocations stay valid until they are freed.
        OBJECTS.pools.remove(handle).map(drop)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(handle: Handle, _bytes_to_keep: usize) -> CUresult {
    // There is never unused memory to release.
    entry("cuMemPoolTrimTo", |call| with_pool(call, handle, |_| Ok(())))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(handle: Handle, attribute: u32, out: Out<u64>) -> CUresult {
    entry("cuMemPoolGetAttribute", |call| {
        with_pool(call, handle, |state| match attribute {
            1..=3 => out.cast::<i32>().set(state.reuse[attribute as usize - 1]),
            4 => out.set(state.release_threshold),
            5 | 7 => out.set(state.used),
            6 | 8 => out.set(state.used_high),
            _ => Err(call.misuse(CudaError::InvalidValue, format!("invalid pool attribute {attribute}"))),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(handle: Handle, attribute: u32, value: Out<u64>) -> CUresult {
    entry("cuMemPoolSetAttribute", |call| {
        with_pool(call, handle, |state| {
            match attribute {
                1..=3 => state.reuse[attribute as usize - 1] = i32::from(value.cast::<i32>().get()? != 0),
                4 => state.release_threshold = value.get()?,
                // The high-water marks can only be reset to zero.
                6 | 8 if value.get()? == 0 => state.used_high = state.used,
                _ => {
                    let message = format!("pool attribute {attribute} cannot be set to this value");
                    return Err(call.misuse(CudaError::InvalidValue, message));
                }
            }
            Ok(())
        })
    })
}
