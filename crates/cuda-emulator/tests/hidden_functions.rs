//! A driver of CUDA 11.4, in which newer functions are really missing. A test binary of its own, because a process has one
//! driver.

use std::panic::catch_unwind;

use cuda_emulator::control::InstallError;
use cuda_emulator::functions::{functions, introduced};
use cuda_emulator::{CudaVersion, Device, Emulator};
use cudarc::driver::CudaContext;

const OLD: CudaVersion = CudaVersion::new(11, 4);

fn old_driver() -> Emulator {
    let device = Device::sm_80().with_driver_version(OLD);
    Emulator::installer(device).hide_functions_newer_than(OLD).install().unwrap()
}

#[test]
fn a_function_newer_than_the_driver_is_a_missing_symbol() {
    let emulator = old_driver();
    let context = CudaContext::new(0).unwrap();
    let events = [(); 2].map(|()| context.new_event(None).unwrap());

    // cudarc's newest bindings ask for `cuEventElapsedTime_v2` (CUDA 12.8) and panic without it.
    let panic = catch_unwind(|| events[0].elapsed_ms(&events[1])).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("cuEventElapsedTime"), "{message}");
    assert!(emulator.calls().iter().all(|call| !call.starts_with("cuEventElapsedTime")));
}

#[test]
fn the_library_has_exactly_the_functions_up_to_the_driver_version() {
    let _emulator = old_driver();
    // SAFETY: the emulator is already loaded; no initialiser runs.
    let library = unsafe { libloading::Library::new("libcuda.so") }.unwrap();
    for (name, since) in functions() {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { library.get::<*const ()>(name.as_bytes()) }.is_ok();
        assert_eq!(found, since <= OLD, "{name}");
    }
}

#[test]
fn the_set_of_functions_of_a_process_cannot_change() {
    let _emulator = old_driver();
    let all = Emulator::install(Device::sm_90());
    assert!(
        matches!(all, Err(InstallError::OtherFunctions { loaded: Some(OLD), requested: None })),
        "{all:?}"
    );
}

#[test]
fn versions_are_those_of_the_driver_api() {
    assert_eq!(introduced("cuLaunchKernel"), Some(CudaVersion::new(11, 0)));
    assert_eq!(introduced("cuMemAllocAsync"), Some(CudaVersion::new(11, 2)));
    assert_eq!(introduced("cuEventElapsedTime_v2"), Some(CudaVersion::new(12, 8)));
    assert_eq!(introduced("cuNoSuchFunction"), None);
}
