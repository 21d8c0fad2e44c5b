use cuda_emulator::{Device, Emulator};
use cudarc::driver::CudaContext;

use super::support::emulator;

#[test]
fn tests_on_two_threads_have_separate_devices() {
    let _emulator = emulator();
    let here = CudaContext::new(0).unwrap();
    let there = std::thread::spawn(|| {
        let _emulator = Emulator::install(Device::sm_75()).unwrap();
        CudaContext::new(0).unwrap().compute_capability().unwrap()
    });
    assert_eq!(there.join().unwrap(), (7, 5));
    assert_eq!(here.compute_capability().unwrap(), (8, 0));
}

#[test]
fn work_on_other_threads_belongs_to_the_session_of_its_context() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    emulator.take_calls();
    std::thread::scope(|scope| scope.spawn(|| context.synchronize().unwrap()).join()).unwrap();
    assert!(emulator.calls().contains(&"cuCtxSynchronize".to_owned()), "{:?}", emulator.calls());
}

#[test]
fn a_thread_without_a_context_can_enter_a_session() {
    let emulator = emulator();
    emulator.set_device(Device::sm_90());
    let handle = emulator.clone();
    let there = std::thread::spawn(move || {
        handle.enter();
        CudaContext::new(0).unwrap().compute_capability().unwrap()
    });
    assert_eq!(there.join().unwrap(), (9, 0));
}

#[test]
fn threads_without_a_session_share_one() {
    let emulator = emulator();
    let shared = emulator.shared();
    shared.take_calls();
    std::thread::spawn(|| CudaContext::new(0).map(drop)).join().unwrap().unwrap();
    assert!(shared.calls().contains(&"cuDevicePrimaryCtxRetain".to_owned()));
    assert!(emulator.calls().is_empty());
}

#[test]
fn a_new_session_on_the_same_thread_starts_from_scratch() {
    let first = emulator();
    let context = CudaContext::new(0).unwrap();
    let second = emulator();
    let fresh = CudaContext::new(0).unwrap();
    assert_ne!(context.cu_ctx(), fresh.cu_ctx());
    assert_eq!((first.live().contexts, second.live().contexts), (1, 1));
    drop(context);
    assert_eq!((first.live().contexts, second.live().contexts), (0, 1));
}
