use std::time::Duration;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, result, sys};

use super::support::{CUresult, emulator};

const TIMED: Option<CUevent_flags> = Some(CUevent_flags::CU_EVENT_DEFAULT);

#[test]
fn elapsed_time_is_the_time_between_two_records() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let start = stream.record_event(TIMED).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let end = stream.record_event(TIMED).unwrap();
    let forward = start.elapsed_ms(&end).unwrap();
    assert!(forward >= 5.0, "{forward}");
    assert_eq!(end.elapsed_ms(&start).unwrap(), -forward);
    assert_eq!(start.elapsed_ms(&start).unwrap(), 0.0);
}

#[test]
fn events_that_are_unrecorded_or_without_timing_have_no_elapsed_time() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let (timed, untimed) = (stream.record_event(TIMED).unwrap(), stream.record_event(None).unwrap());
    let unrecorded = context.new_event(TIMED).unwrap();
    for other in [&untimed, &unrecorded] {
        assert_eq!(timed.elapsed_ms(other).unwrap_err().0, CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn an_event_is_complete_before_and_after_its_record() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let event = context.new_event(None).unwrap();
    assert!(event.is_complete());
    event.record(&context.default_stream()).unwrap();
    assert_eq!(event.try_is_complete(), Ok(true));
    event.synchronize().unwrap();
}

#[test]
fn an_event_destroyed_twice_is_an_invalid_handle() {
    let emulator = emulator();
    let _context = CudaContext::new(0).unwrap();
    let event = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).unwrap();
    assert_eq!(emulator.live().events, 1);
    unsafe { result::event::destroy(event) }.unwrap();
    let again = unsafe { result::event::destroy(event) }.unwrap_err();
    assert_eq!(again.0, CUresult::CUDA_ERROR_INVALID_HANDLE);
    let used = unsafe { result::event::record(event, std::ptr::null_mut()) }.unwrap_err();
    assert_eq!(used.0, CUresult::CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn an_event_is_recorded_on_streams_of_its_context_only() {
    let _emulator = emulator();
    let context = CudaContext::new(0).unwrap();
    let event = context.new_event(None).unwrap();
    let mut other = std::ptr::null_mut();
    unsafe { sys::cuCtxCreate_v4(&mut other, std::ptr::null_mut(), 0, 0) }.result().unwrap();
    let foreign = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    let recorded = unsafe { result::event::record(event.cu_event(), foreign) }.unwrap_err();
    assert_eq!(recorded.0, CUresult::CUDA_ERROR_INVALID_HANDLE);
    // Waiting across contexts is permitted.
    unsafe { sys::cuStreamWaitEvent(foreign, event.cu_event(), 0) }.result().unwrap();
    unsafe { sys::cuCtxDestroy_v2(other) }.result().unwrap();
}
