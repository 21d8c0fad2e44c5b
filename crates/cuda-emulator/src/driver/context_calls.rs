//! "Context Management".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::abi::{CUdevice, CUresult, Handle, Out};
use super::capture;
use super::context::{self, Context};
use super::device_calls::check_device;
use super::entry::{Call, entry, release};
use super::objects::{OBJECTS, lock};
use crate::error::CudaError;

/// The driver API version that `cuCtxGetApiVersion` returns for contexts created by `cuCtxCreate_v2` and later.
const API_VERSION: u32 = 3020;

fn create(call: &Call, out: Out<Handle>, flags: u32, device: CUdevice) -> Result<(), CudaError> {
    check_device(call, device)?;
    if out.is_null() {
        return Err(CudaError::InvalidValue);
    }
    let context = Context::create(&call.session, flags);
    out.set(context.handle)?;
    context::push(context);
    Ok(())
}

/// The context with the given handle.
pub(super) fn by_handle(call: &Call, handle: Handle) -> Result<Arc<Context>, CudaError> {
    OBJECTS.contexts.get(handle).map_err(|_| {
        call.misuse(
            CudaError::InvalidContext,
            format!("{handle:#x} is not a context, or the context has been destroyed"),
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(out: Out<Handle>, flags: u32, device: CUdevice) -> CUresult {
    entry("cuCtxCreate_v2", |call| create(call, out, flags, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v3(
    out: Out<Handle>,
    affinity: Out<u8>,
    affinities: i32,
    flags: u32,
    device: CUdevice,
) -> CUresult {
    entry("cuCtxCreate_v3", |call| {
        if !affinity.is_null() || affinities != 0 {
            return Err(call.misuse(CudaError::NotSupported, "execution affinity is not emulated"));
        }
        create(call, out, flags, device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v4(
    out: Out<Handle>,
    parameters: Out<u8>,
    flags: u32,
    device: CUdevice,
) -> CUresult {
    entry("cuCtxCreate_v4", |call| {
        if !parameters.is_null() {
            return Err(call.misuse(CudaError::NotSupported, "context parameters are not emulated"));
        }
        create(call, out, flags, device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(handle: Handle) -> CUresult {
    release("cuCtxDestroy_v2", |call| {
        let destroyed = by_handle(call, handle)?;
        if lock(&destroyed.session.primary).context.as_ref().is_some_and(|primary| primary.handle == handle) {
            return Err(
                call.misuse(CudaError::InvalidContext, "the primary context must be released, not destroyed")
            );
        }
        if context::current().is_some_and(|current| current.handle == handle) {
            context::pop();
        }
        destroyed.session.queue.finish(call, Some(&destroyed));
        destroyed.end();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(handle: Handle) -> CUresult {
    entry("cuCtxPushCurrent_v2", |call| {
        context::push(by_handle(call, handle)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(out: Out<Handle>) -> CUresult {
    entry("cuCtxPopCurrent_v2", |call| {
        let popped =
            context::pop().ok_or_else(|| call.misuse(CudaError::InvalidContext, "no context is current"))?;
        out.set_if_wanted(popped.handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(handle: Handle) -> CUresult {
    entry("cuCtxSetCurrent", |call| {
        let context = if handle == 0 { None } else { Some(by_handle(call, handle)?) };
        context::set_current(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(out: Out<Handle>) -> CUresult {
    entry("cuCtxGetCurrent", |_| out.set(context::current().map_or(0, |context| context.handle)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(out: Out<CUdevice>) -> CUresult {
    entry("cuCtxGetDevice", |call| {
        call.context()?;
        out.set(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetApiVersion(handle: Handle, out: Out<u32>) -> CUresult {
    entry("cuCtxGetApiVersion", |call| {
        if handle == 0 {
            call.context()?;
        } else {
            by_handle(call, handle)?;
        }
        out.set(API_VERSION)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(out: Out<u32>) -> CUresult {
    entry("cuCtxGetFlags", |call| out.set(call.context()?.flags.load(Ordering::Relaxed)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(flags: u32) -> CUresult {
    entry("cuCtxSetFlags", |call| {
        call.context()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetLimit(out: Out<usize>, limit: u32) -> CUresult {
    entry("cuCtxGetLimit", |call| {
        let context = call.context()?;
        let value = lock(&context.limits).get(limit as usize).copied();
        out.set(value.ok_or(CudaError::UnsupportedLimit)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: u32, value: usize) -> CUresult {
    entry("cuCtxSetLimit", |call| {
        let context = call.context()?;
        *lock(&context.limits).get_mut(limit as usize).ok_or(CudaError::UnsupportedLimit)? = value;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCacheConfig(out: Out<u32>) -> CUresult {
    entry("cuCtxGetCacheConfig", |call| out.set(call.context()?.cache_config.load(Ordering::Relaxed)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCacheConfig(config: u32) -> CUresult {
    entry("cuCtxSetCacheConfig", |call| {
        let context = call.context()?;
        if config > 3 {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid cache configuration {config}")));
        }
        context.cache_config.store(config, Ordering::Relaxed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) -> CUresult {
    entry("cuCtxGetStreamPriorityRange", |call| {
        call.context()?;
        least.set_if_wanted(super::stream::LEAST_PRIORITY);
        greatest.set_if_wanted(super::stream::GREATEST_PRIORITY);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> CUresult {
    entry("cuCtxSynchronize", |call| {
        let context = call.context()?;
        capture::forbid_in_context(&context)?;
        context.session.queue.finish(call, Some(&context));
        context.settle()
    })
}
