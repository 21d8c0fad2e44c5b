//! "Initialization", "Version Management" and "Device Management".

use std::sync::atomic::Ordering;

use super::abi::{CUdevice, CUresult, Handle, Out};
use super::entry::{Call, INITIALISED, always, entry};
use super::objects::{OBJECTS, lock};
use super::pool;
use crate::error::CudaError;

/// There is a single device, number 0.
pub(super) fn check_device(call: &Call, device: CUdevice) -> Result<(), CudaError> {
    if device == 0 {
        Ok(())
    } else {
        Err(call.misuse(
            CudaError::InvalidDevice,
            format!("device {device} does not exist; there is only device 0"),
        ))
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> CUresult {
    always("cuInit", |call| {
        if flags != 0 {
            return Err(
                call.misuse(CudaError::InvalidValue, format!("the flags are {flags:#x}, but must be 0"))
            );
        }
        INITIALISED.store(true, Ordering::Release);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(out: Out<i32>) -> CUresult {
    always("cuDriverGetVersion", |call| out.set(call.session.device().driver_version.code()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(out: Out<i32>) -> CUresult {
    entry("cuDeviceGetCount", |_| out.set(1))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(out: Out<CUdevice>, ordinal: i32) -> CUresult {
    entry("cuDeviceGet", |call| {
        check_device(call, ordinal)?;
        out.set(ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(out: Out<u8>, length: i32, device: CUdevice) -> CUresult {
    entry("cuDeviceGetName", |call| {
        check_device(call, device)?;
        let Some(room) = usize::try_from(length).ok().and_then(|length| length.checked_sub(1)) else {
            return Err(call.misuse(CudaError::InvalidValue, "the buffer has no room for the name"));
        };
        let name = call.session.device().name;
        let name = &name.as_bytes()[..name.len().min(room)];
        for (index, byte) in name.iter().chain([&0]).enumerate() {
            out.at(index).set(*byte)?;
        }
        Ok(())
    })
}

/// The same for all sessions: an emulated device has no identity of its own.
const UUID: [u8; 16] = *b"cuda-emulator-00";

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: CUdevice) -> CUresult {
    entry("cuDeviceGetUuid", |call| {
        check_device(call, device)?;
        out.set(UUID)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: CUdevice) -> CUresult {
    entry("cuDeviceGetUuid_v2", |call| {
        check_device(call, device)?;
        out.set(UUID)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(out: Out<usize>, device: CUdevice) -> CUresult {
    entry("cuDeviceTotalMem_v2", |call| {
        check_device(call, device)?;
        out.set(call.session.memory.capacity() as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(out: Out<i32>, attribute: u32, device: CUdevice) -> CUresult {
    entry("cuDeviceGetAttribute", |call| {
        check_device(call, device)?;
        let answer = call.session.device().attribute(attribute);
        out.set(answer.ok_or_else(|| {
            call.misuse(CudaError::InvalidValue, format!("there is no device attribute {attribute}"))
        })?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(out: Out<Handle>, device: CUdevice) -> CUresult {
    entry("cuDeviceGetDefaultMemPool", |call| {
        check_device(call, device)?;
        pool::check_supported(call)?;
        out.set(pool::DEFAULT)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(out: Out<Handle>, device: CUdevice) -> CUresult {
    entry("cuDeviceGetMemPool", |call| {
        check_device(call, device)?;
        pool::check_supported(call)?;
        out.set(*lock(&call.session.current_pool))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(device: CUdevice, handle: Handle) -> CUresult {
    entry("cuDeviceSetMemPool", |call| {
        check_device(call, device)?;
        pool::check_supported(call)?;
        if handle != pool::DEFAULT {
            OBJECTS.pools.get(handle)?;
        }
        *lock(&call.session.current_pool) = handle;
        Ok(())
    })
}
