//! "Primary Context Management".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::abi::{CUdevice, CUresult, Handle, Out};
use super::context::Context;
use super::device_calls::check_device;
use super::entry::{entry, release};
use super::objects::lock;
use crate::error::CudaError;

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(out: Out<Handle>, device: CUdevice) -> CUresult {
    entry("cuDevicePrimaryCtxRetain", |call| {
        check_device(call, device)?;
        if out.is_null() {
            return Err(CudaError::InvalidValue);
        }
        let mut primary = lock(&call.session.primary);
        let flags = primary.flags;
        let context = primary.context.get_or_insert_with(|| Context::create(&call.session, flags));
        out.set(context.handle)?;
        primary.retained += 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> CUresult {
    release("cuDevicePrimaryCtxRelease_v2", |call| {
        check_device(call, device)?;
        let mut primary = lock(&call.session.primary);
        if primary.retained == 0 {
            return Err(call.misuse(
                CudaError::InvalidContext,
                "the primary context was released more often than retained",
            ));
        }
        primary.retained -= 1;
        if primary.retained == 0 {
            let context = primary.context.take();
            drop(primary);
            if let Some(context) = context {
                context.session.queue.finish(call, Some(&context));
                context.end();
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> CUresult {
    release("cuDevicePrimaryCtxReset_v2", |call| {
        check_device(call, device)?;
        let mut primary = lock(&call.session.primary);
        let context = primary.context.take();
        primary.retained = 0;
        primary.flags = 0;
        drop(primary);
        if let Some(context) = context {
            context.session.queue.finish(call, Some(&context));
            context.end();
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(device: CUdevice, flags: Out<u32>, active: Out<i32>) -> CUresult {
    entry("cuDevicePrimaryCtxGetState", |call| {
        check_device(call, device)?;
        let primary = lock(&call.session.primary);
        flags.set(primary.flags)?;
        active.set(primary.context.is_some().into())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: CUdevice, flags: u32) -> CUresult {
    entry("cuDevicePrimaryCtxSetFlags_v2", |call| {
        check_device(call, device)?;
        let mut primary = lock(&call.session.primary);
        primary.flags = flags;
        if let Some(context) = primary.context.as_ref().map(Arc::clone) {
            context.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    })
}
