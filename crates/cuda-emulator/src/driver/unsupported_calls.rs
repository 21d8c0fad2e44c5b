//! Functions that bindings look up and a device may lack: they exist and say that they are not supported. The
//! device's attributes say the same.

use super::abi::{CUdeviceptr, CUresult, Handle, Out};
use super::entry::entry;
use crate::error::CudaError;

fn refuse(name: &'static str, what: &str) -> CUresult {
    entry(name, |call| Err(call.misuse(CudaError::NotSupported, format!("{what} is not emulated"))))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(_out: Out<CUdeviceptr>, _bytes: usize, _flags: u32) -> CUresult {
    refuse("cuMemAllocManaged", "managed memory")
}

/// `CUmemLocation`.
#[repr(C)]
struct Location {
    kind: u32,
    number: i32,
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAdvise_v2(_at: CUdeviceptr, _bytes: usize, _advice: u32, _where: Location) -> CUresult {
    refuse("cuMemAdvise_v2", "managed memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPrefetchAsync_v2(
    _at: CUdeviceptr,
    _bytes: usize,
    _where: Location,
    _flags: u32,
    _stream: Handle,
) -> CUresult {
    refuse("cuMemPrefetchAsync_v2", "managed memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamAttachMemAsync(
    _stream: Handle,
    _at: CUdeviceptr,
    _bytes: usize,
    _flags: u32,
) -> CUresult {
    refuse("cuStreamAttachMemAsync", "managed memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuImportExternalMemory(_out: Out<Handle>, _description: Out<u8>) -> CUresult {
    refuse("cuImportExternalMemory", "memory of other interfaces")
}

#[unsafe(no_mangle)]
extern "C" fn cuExternalMemoryGetMappedBuffer(
    _out: Out<CUdeviceptr>,
    _memory: Handle,
    _description: Out<u8>,
) -> CUresult {
    refuse("cuExternalMemoryGetMappedBuffer", "memory of other interfaces")
}

#[unsafe(no_mangle)]
extern "C" fn cuDestroyExternalMemory(_memory: Handle) -> CUresult {
    refuse("cuDestroyExternalMemory", "memory of other interfaces")
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveClusters(_out: Out<i32>, _function: Handle, _config: Out<u8>) -> CUresult {
    refuse("cuOccupancyMaxActiveClusters", "a cluster launch")
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialClusterSize(
    _out: Out<i32>,
    _function: Handle,
    _config: Out<u8>,
) -> CUresult {
    refuse("cuOccupancyMaxPotentialClusterSize", "a cluster launch")
}

/// There is no profiler to start; programs call this whether or not one is there.
#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> CUresult {
    entry("cuProfilerStart", |call| call.context().map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> CUresult {
    entry("cuProfilerStop", |call| call.context().map(drop))
}
