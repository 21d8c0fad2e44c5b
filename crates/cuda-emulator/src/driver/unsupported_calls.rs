//! Functions for optional features that bindings look up. They return `CUDA_ERROR_NOT_SUPPORTED`; the device attributes
//! report the features as unsupported, too.

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
    refuse("cuImportExternalMemory", "external memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuExternalMemoryGetMappedBuffer(
    _out: Out<CUdeviceptr>,
    _memory: Handle,
    _description: Out<u8>,
) -> CUresult {
    refuse("cuExternalMemoryGetMappedBuffer", "external memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuDestroyExternalMemory(_memory: Handle) -> CUresult {
    refuse("cuDestroyExternalMemory", "external memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveClusters(_out: Out<i32>, _function: Handle, _config: Out<u8>) -> CUresult {
    refuse("cuOccupancyMaxActiveClusters", "cluster launch")
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialClusterSize(
    _out: Out<i32>,
    _function: Handle,
    _config: Out<u8>,
) -> CUresult {
    refuse("cuOccupancyMaxPotentialClusterSize", "cluster launch")
}

/// There is no profiler, but programs may call this anyway.
#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> CUresult {
    entry("cuProfilerStart", |call| call.context().map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> CUresult {
    entry("cuProfilerStop", |call| call.context().map(drop))
}
