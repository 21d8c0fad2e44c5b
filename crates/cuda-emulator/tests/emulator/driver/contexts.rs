use std::ptr::null_mut;

use cuda_emulator::{CudaVersion, Device, Emulator};
use cudarc::driver::{CudaContext, sys};

use super::support::{CUresult, emulator};

/// A context other than the primary one.
fn own_context() -> sys::CUcontext {
    let mut context = null_mut();
    let made = unsafe { sys::cuCtxCreate_v4(&mut context, null_mut(), 0, 0) };
    assert_eq!(made, CUresult::CUDA_SUCCESS);
    context
}

fn current() -> sys::CUcontext {
    let mut context = null_mut();
    assert_eq!(unsafe { sys::cuCtxGetCurrent(&mut context) }, CUresult::CUDA_SUCCESS);
    context
}

#[test]
fn cudarc_finds_the_emulator_without_environment_variables() {
    let _emulator = emulator();
    assert!(unsafe { sys::is_culib_present() });
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.compute_capability().unwrap(), (8, 0));
    assert_eq!(context.name().unwrap(), "CUDA emulator, sm_80 (as A100-SXM4-80GB)");
    assert_eq!(context.total_mem().unwrap(), 80 << 30);
    assert_eq!(context.uuid().unwrap().bytes.len(), 16);
    assert_eq!(CudaContext::device_count().unwrap(), 1);
}

#[test]
fn the_device_is_the_one_that_the_test_describes() {
    let device = Device::sm_90()
        .with_driver_version(CudaVersion::new(12, 2))
        .with_total_memory(1 << 30)
        .with_attribute(16, 20);
    let _emulator = Emulator::install(device).unwrap();
    let context = CudaContext::new(0).unwrap();
    let attribute = |name| context.attribute(name).unwrap();
    use sys::CUdevice_attribute as Attribute;
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    assert_eq!(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 20);
    assert_eq!(attribute(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
    assert_eq!(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK), 49_152);
    assert_eq!(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 232_448);
    assert_eq!(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z), 64);
    assert_eq!(context.total_mem().unwrap(), 1 << 30);
    let mut version = 0;
    assert_eq!(unsafe { sys::cuDriverGetVersion(&mut version) }, CUresult::CUDA_SUCCESS);
    assert_eq!(version, 12020);
}

#[test]
fn there_is_one_device() {
    let emulator = emulator();
    let error = CudaContext::new(1).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_DEVICE);
    assert_eq!(emulator.misuses()[0].message, "device 1 does not exist; there is only device 0");
}

#[test]
fn a_call_without_a_context_is_rejected() {
    let _emulator = emulator();
    cudarc::driver::result::init().unwrap();
    let error = cudarc::driver::result::mem_get_info().unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_CONTEXT);
}

#[test]
fn the_primary_context_lives_from_the_first_retain_to_the_last_release() {
    let emulator = emulator();
    let first = CudaContext::new(0).unwrap();
    let second = CudaContext::new(0).unwrap();
    assert_eq!(first.cu_ctx(), second.cu_ctx());
    let handle = first.cu_ctx();
    drop(first);
    assert_eq!(emulator.live().contexts, 1);
    second.synchronize().unwrap();
    drop(second);
    assert_eq!(emulator.live().contexts, 0);
    assert_eq!(emulator.leaks(), []);
    assert_eq!(unsafe { sys::cuCtxSetCurrent(handle) }, CUresult::CUDA_ERROR_INVALID_CONTEXT);
    let released = unsafe { sys::cuDevicePrimaryCtxRelease_v2(0) };
    assert_eq!(released, CUresult::CUDA_ERROR_INVALID_CONTEXT);
}

#[test]
fn created_contexts_form_a_stack() {
    let emulator = emulator();
    cudarc::driver::result::init().unwrap();
    let (first, second) = (own_context(), own_context());
    assert_eq!(current(), second);
    let mut popped = null_mut();
    assert_eq!(unsafe { sys::cuCtxPopCurrent_v2(&mut popped) }, CUresult::CUDA_SUCCESS);
    assert_eq!((popped, current()), (second, first));
    for context in [first, second] {
        assert_eq!(unsafe { sys::cuCtxDestroy_v2(context) }, CUresult::CUDA_SUCCESS);
    }
    assert_eq!(current(), null_mut());
    assert_eq!(unsafe { sys::cuCtxDestroy_v2(first) }, CUresult::CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(emulator.live().contexts, 0);
}

#[test]
fn a_destroyed_context_that_is_still_current_is_reported() {
    let _emulator = emulator();
    cudarc::driver::result::init().unwrap();
    let context = own_context() as usize;
    std::thread::spawn(move || unsafe { sys::cuCtxDestroy_v2(context as sys::CUcontext) }).join().unwrap();
    assert_eq!(unsafe { sys::cuCtxSynchronize() }, CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

#[test]
fn each_thread_has_its_own_current_context() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let other = std::thread::spawn(|| current() as usize).join().unwrap();
    assert_eq!(other, 0);
    assert_eq!(current(), context.cu_ctx());
}

#[test]
fn limits_and_settings_are_stored() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    context.set_limit(sys::CUlimit::CU_LIMIT_STACK_SIZE, 4096).unwrap();
    assert_eq!(context.get_limit(sys::CUlimit::CU_LIMIT_STACK_SIZE).unwrap(), 4096);
    assert_eq!(context.get_limit(sys::CUlimit::CU_LIMIT_MALLOC_HEAP_SIZE).unwrap(), 8 << 20);
    context.set_cache_config(sys::CUfunc_cache::CU_FUNC_CACHE_PREFER_L1).unwrap();
    assert_eq!(context.get_cache_config().unwrap(), sys::CUfunc_cache::CU_FUNC_CACHE_PREFER_L1);
    context.set_blocking_synchronize().unwrap();
    let mut flags = 0;
    assert_eq!(unsafe { sys::cuCtxGetFlags(&mut flags) }, CUresult::CUDA_SUCCESS);
    assert_eq!(flags, sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32);
}

#[test]
fn errors_have_names_and_descriptions() {
    let _emulator = emulator();
    let error = CudaContext::new(7).unwrap_err();
    assert_eq!(error.error_name().unwrap().to_str().unwrap(), "CUDA_ERROR_INVALID_DEVICE");
    assert!(error.to_string().contains("no device has this ordinal"), "{error}");
    let mut name = std::ptr::null();
    assert_eq!(unsafe { sys::cuGetErrorName(CUresult::CUDA_SUCCESS, &mut name) }, CUresult::CUDA_SUCCESS);
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(name) }, c"CUDA_SUCCESS");
}
