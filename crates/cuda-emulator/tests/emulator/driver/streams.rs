use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::{CudaContext, result, sys};

use super::support::{CUresult, emulator};

#[test]
fn streams_are_created_and_destroyed() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let streams = [context.new_stream().unwrap(), context.new_stream_with_priority(-100).unwrap()];
    assert_eq!(emulator.live().streams, 2);
    let mut priority = 1;
    let status = unsafe { sys::cuStreamGetPriority(streams[1].cu_stream(), &mut priority) };
    // Clamped to the highest priority.
    assert_eq!((status, priority), (CUresult::CUDA_SUCCESS, result::stream::get_priority_range().unwrap().1));
    for stream in &streams {
        stream.synchronize().unwrap();
    }
    drop(streams);
    assert_eq!(emulator.live().streams, 0);
}

#[test]
fn a_stream_destroyed_twice_is_an_invalid_handle() {
    let emulator = emulator();
    let _context = CudaContext::new(0).unwrap();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    unsafe { result::stream::destroy(stream) }.unwrap();
    let again = unsafe { result::stream::destroy(stream) }.unwrap_err();
    assert_eq!(again.0, CUresult::CUDA_ERROR_INVALID_HANDLE);
    let used = unsafe { result::stream::synchronize(stream) }.unwrap_err();
    assert_eq!(used.0, CUresult::CUDA_ERROR_INVALID_HANDLE);
    assert!(emulator.misuses()[0].message.contains("is not a stream, or the stream has been destroyed"));
}

#[test]
fn default_streams_always_exist() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    for stream in [context.default_stream(), context.per_thread_stream()] {
        stream.synchronize().unwrap();
        stream.record_event(None).unwrap();
    }
    let destroyed = unsafe { sys::cuStreamDestroy_v2(null_mut()) };
    assert_eq!(destroyed, CUresult::CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(emulator.live().streams, 0);
}

#[test]
fn unknown_flags_are_rejected() {
    let _emulator = emulator();
    let _context = CudaContext::new(0).unwrap();
    let mut stream = null_mut();
    assert_eq!(unsafe { sys::cuStreamCreate(&mut stream, 2) }, CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(unsafe { sys::cuStreamCreate(null_mut(), 0) }, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn forked_streams_join_again() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let first = context.new_stream().unwrap();
    let second = first.fork().unwrap();
    first.join(&second).unwrap();
    first.synchronize().unwrap();
}

unsafe extern "C" fn count(counter: *mut c_void) {
    unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn call_the_driver(code: *mut c_void) {
    let answer = unsafe { sys::cuCtxSynchronize() };
    unsafe { &*code.cast::<AtomicU32>() }.store(answer as u32, Ordering::Relaxed);
}

#[test]
fn host_functions_run_in_the_order_of_their_stream_and_may_not_call_the_driver() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let (calls, answer) = (AtomicU32::new(0), AtomicU32::new(0));
    for _ in 0..3 {
        let argument = (&raw const calls).cast_mut().cast();
        unsafe { result::stream::launch_host_function(stream.cu_stream(), count, argument) }.unwrap();
    }
    let argument = (&raw const answer).cast_mut().cast();
    unsafe { result::stream::launch_host_function(stream.cu_stream(), call_the_driver, argument) }.unwrap();
    stream.synchronize().unwrap();
    assert_eq!(calls.into_inner(), 3);
    assert_eq!(answer.into_inner(), CUresult::CUDA_ERROR_NOT_PERMITTED as u32);
}

#[test]
fn streams_of_several_threads_are_independent() {
    let emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let context = &context;
            scope.spawn(move || {
                for _ in 0..20 {
                    let stream = context.new_stream().unwrap();
                    let event = stream.record_event(None).unwrap();
                    stream.wait(&event).unwrap();
                    stream.synchronize().unwrap();
                }
            });
        }
    });
    let live = emulator.live();
    assert_eq!((live.streams, live.events), (0, 0));
}
