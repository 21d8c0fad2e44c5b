use cuda_emulator::{Device, Emulator};
use cudarc::driver::{CudaContext, result, sys};

use super::support::{CUresult, stream};

fn used(pool: sys::CUmemoryPool) -> u64 {
    let mut used = 0_u64;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
    unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut used).cast()) }.unwrap();
    used
}

#[test]
fn the_default_pool_counts_stream_ordered_allocations() {
    let (_emulator, context, stream) = stream();
    let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }.unwrap();
    assert_eq!(used(pool), 0);
    let slice = stream.alloc_zeros::<u8>(1000).unwrap();
    assert_eq!(used(pool), 1000);
    drop(slice);
    assert_eq!(used(pool), 0);
    let mut threshold = 1_u64 << 20;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    unsafe {
        result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()).unwrap();
        threshold = 0;
        result::mem_pool::get_attribute(pool, attribute, (&raw mut threshold).cast()).unwrap();
        result::mem_pool::trim_to(pool, 0).unwrap();
    }
    assert_eq!(threshold, 1 << 20);
    assert_eq!(unsafe { result::mem_pool::destroy(pool) }.unwrap_err().0, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_created_pool_can_become_the_current_pool_of_the_device() {
    let (emulator, context, stream) = stream();
    let mut properties: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    let pool = unsafe { result::mem_pool::create(&properties) }.unwrap();
    assert_eq!(emulator.live().pools, 1);
    unsafe { result::device::set_mem_pool(context.cu_device(), pool) }.unwrap();
    assert_eq!(unsafe { result::device::get_mem_pool(context.cu_device()) }.unwrap(), pool);
    let slice = stream.alloc_zeros::<u8>(64).unwrap();
    let direct = unsafe { result::mem_pool::alloc_async(pool, 32, stream.cu_stream()) }.unwrap();
    assert_eq!(used(pool), 96);
    drop(slice);
    unsafe { result::free_async(direct, stream.cu_stream()) }.unwrap();
    assert_eq!(used(pool), 0);
    unsafe { result::mem_pool::destroy(pool) }.unwrap();
    // The device falls back to its default pool.
    drop(stream.alloc_zeros::<u8>(64).unwrap());
    assert_eq!(
        unsafe { result::mem_pool::destroy(pool) }.unwrap_err().0,
        CUresult::CUDA_ERROR_INVALID_HANDLE
    );
    assert_eq!(emulator.live().pools, 0);
}

#[test]
fn a_device_without_pools_uses_plain_allocation() {
    let emulator = Emulator::install(Device::sm_80().without_memory_pools()).unwrap();
    let context = CudaContext::new(0).unwrap();
    assert!(!context.has_async_alloc());
    let stream = context.default_stream();
    let slice = stream.clone_htod(&[1_u8, 2, 3]).unwrap();
    assert_eq!(stream.clone_dtoh(&slice).unwrap(), [1, 2, 3]);
    drop(slice);
    assert_eq!(emulator.live_allocations(), []);
    let error = unsafe { result::malloc_async(stream.cu_stream(), 16) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_NOT_SUPPORTED);
}
