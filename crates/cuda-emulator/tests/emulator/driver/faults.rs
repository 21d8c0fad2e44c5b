use std::sync::Arc;

use cuda_emulator::CudaError;
use cuda_emulator::control::{CallKind, CallSelector, Duration, Fault};
use cudarc::driver::{CudaContext, CudaStream, DriverError, PushKernelArg};
use cudarc::nvrtc::Ptx;

use super::support::{CUresult, PTX, blocks_of_64, emulator, stream};

/// A small program that makes calls of most kinds.
fn program(tracked: bool) -> Result<Vec<f32>, DriverError> {
    let context = CudaContext::new(0)?;
    if !tracked {
        unsafe { context.disable_event_tracking() };
    }
    let stream = context.new_stream()?;
    let other = stream.fork()?;
    let outcome = compute(&context, &stream);
    stream.join(&other)?;
    stream.synchronize()?;
    // cudarc stores errors of destructors for the next call.
    context.check_err()?;
    outcome
}

fn compute(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<Vec<f32>, DriverError> {
    let function = context.load_module(Ptx::from_src(PTX))?.load_function("saxpy")?;
    function.num_regs()?;
    let x = stream.clone_htod(&[3.0_f32; 64])?;
    let mut y = stream.alloc_zeros::<f32>(64)?;
    let start = stream.record_event(None)?;
    let mut launch = stream.launch_builder(&function);
    launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&64_u32);
    unsafe { launch.launch(blocks_of_64(64)) }?;
    start.synchronize()?;
    stream.clone_dtoh(&y)
}

#[test]
fn the_nth_call_of_a_function_fails_once() {
    let (emulator, _context, stream) = stream();
    emulator.fail_call("cuMemAllocAsync", 2, CudaError::OutOfMemory);
    let first = stream.alloc_zeros::<u8>(16).unwrap();
    assert_eq!(stream.alloc_zeros::<u8>(16).unwrap_err().0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    let third = stream.alloc_zeros::<u8>(16).unwrap();
    assert_eq!(emulator.live_allocations().len(), 2);
    assert_eq!(emulator.misuses(), [], "an injected fault is nobody's mistake");
    drop((first, third));
}

#[test]
fn every_kind_of_call_can_fail() {
    for kind in [
        CallKind::Device,
        CallKind::Context,
        CallKind::Allocate,
        CallKind::Free,
        CallKind::Copy,
        CallKind::Fill,
        CallKind::Module,
        CallKind::Function,
        CallKind::Launch,
        CallKind::Synchronize,
        CallKind::Stream,
        CallKind::Event,
    ] {
        let emulator = emulator();
        assert_eq!(program(true), Ok(vec![6.0; 64]));
        emulator.fail_call(kind, 1, CudaError::EccUncorrectable);
        let expected = DriverError(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
        assert_eq!(program(true), Err(expected), "{kind:?}");
        assert_eq!(program(true), Ok(vec![6.0; 64]), "the fault is spent, {kind:?}");
    }
}

#[test]
fn a_failed_release_still_releases() {
    let (emulator, context, stream) = stream();
    let slice = stream.alloc_zeros::<u8>(16).unwrap();
    emulator.fail_call(CallKind::Free, 1, CudaError::LaunchFailed);
    drop(slice);
    assert_eq!(emulator.live_allocations(), []);
    assert_eq!(context.check_err(), Err(DriverError(CUresult::CUDA_ERROR_LAUNCH_FAILED)));
}

#[test]
fn a_lost_device_stays_lost_until_faults_are_cleared() {
    let (emulator, context, stream) = stream();
    let slice = stream.alloc_zeros::<u8>(16).unwrap();
    emulator.lose_device(1, CudaError::LaunchFailed);
    for _ in 0..3 {
        assert_eq!(context.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
    }
    drop(slice);
    assert_eq!(emulator.live_allocations(), []);
    emulator.clear_faults();
    let _ = context.check_err();
    stream.alloc_zeros::<u8>(16).unwrap();
}

#[test]
fn each_of_several_faults_has_its_own_counter() {
    let (emulator, context, _stream) = stream();
    let later = |nth, error| Fault { calls: CallSelector::Any, nth, error, lasts: Duration::Once };
    emulator.inject(later(2, CudaError::NotReady));
    emulator.inject(later(4, CudaError::Unknown));
    // Each synchronisation makes two calls: one for the current context, and the wait.
    assert_eq!(context.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_NOT_READY);
    assert_eq!(context.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_UNKNOWN);
    context.synchronize().unwrap();
}

/// Runs the program once for every call that it makes, with that call failing.
fn sweep(tracked: bool) {
    let calls = {
        let emulator = emulator();
        assert_eq!(program(tracked), Ok(vec![6.0; 64]));
        emulator.take_calls()
    };
    assert!(calls.len() > 40, "{calls:?}");
    for (index, name) in calls.iter().enumerate() {
        // A new session per run: cudarc never releases the primary context if its first query of it fails.
        let emulator = emulator();
        emulator.fail_call(CallSelector::Any, index as u64 + 1, CudaError::OutOfMemory);
        let outcome = program(tracked);
        assert_eq!(emulator.calls()[index], *name);
        if outcome.is_ok() {
            // Errors of destructors at the end of the program go unnoticed.
            let last_look = calls.iter().rposition(|name| name == "cuStreamSynchronize").unwrap();
            assert!(index > last_look, "call {index}, {name}, failed unnoticed");
        }
        let held = emulator.live();
        let leaks = emulator.take_leaks();
        let leaked: usize = leaks.iter().chain([&held]).map(|objects| objects.allocations.len()).sum();
        // cudarc leaks the memory if the event that is to track it cannot be created.
        let forgotten = tracked && calls[index..].iter().take(2).any(|call| call == "cuEventCreate");
        assert!(leaked == 0 || forgotten, "call {index}, {name}: {held} {leaks:?}");
        emulator.take_calls();
        assert_eq!(program(tracked), Ok(vec![6.0; 64]), "after call {index}, {name}, failed");
    }
}

#[test]
fn each_call_of_a_program_can_fail_and_the_next_run_works() {
    sweep(false);
    sweep(true);
}
