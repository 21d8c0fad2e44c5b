use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode, CUstreamCaptureStatus};
use cudarc::driver::{CudaContext, CudaStream, DriverError, PushKernelArg};

use super::support::{CUresult, blocks_of_64, emulator, kernel};

pub(super) const MODE: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

/// A stream whose slices are not tracked by events, as captures require.
pub(super) fn untracked() -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = CudaContext::new(0).unwrap();
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    (context, stream)
}

#[test]
fn captured_work_runs_at_each_launch_of_the_graph() {
    let emulator = emulator();
    let (context, stream) = untracked();
    let saxpy = kernel(&context, "saxpy");
    let x = stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();

    stream.begin_capture(MODE).unwrap();
    assert_eq!(stream.capture_status().unwrap(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    let mut launch = stream.launch_builder(&saxpy);
    launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&64_u32);
    unsafe { launch.launch(blocks_of_64(64)) }.unwrap();
    let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
    assert_eq!(stream.capture_status().unwrap(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
    assert_eq!(emulator.counts(), [], "nothing runs while it is captured");

    graph.upload().unwrap();
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    assert_eq!(emulator.counts().len(), 3);
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [6.0; 64]);
    drop(graph);
    assert_eq!(emulator.live().graphs, 0);
}

#[test]
fn copies_in_a_graph_read_the_host_when_they_run() {
    let _emulator = emulator();
    let (_context, stream) = untracked();
    let mut host = vec![1_u32; 4];
    let mut device = stream.alloc_zeros::<u32>(4).unwrap();
    stream.begin_capture(MODE).unwrap();
    stream.memcpy_htod(&host, &mut device).unwrap();
    let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
    host.fill(5);
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&device).unwrap(), [5; 4]);
}

#[test]
fn a_second_stream_joins_the_capture_by_events_and_must_be_joined_back() {
    let _emulator = emulator();
    let (_context, first) = untracked();
    let mut data = first.alloc_zeros::<u8>(8).unwrap();

    first.begin_capture(MODE).unwrap();
    let second = first.fork().unwrap();
    second.memset_zeros(&mut data).unwrap();
    first.join(&second).unwrap();
    let graph = first.end_capture(Flags(0)).unwrap().unwrap();
    first.memcpy_htod(&[1_u8; 8], &mut data).unwrap();
    graph.launch().unwrap();
    assert_eq!(first.clone_dtoh(&data).unwrap(), [0; 8]);

    first.begin_capture(MODE).unwrap();
    let second = first.fork().unwrap();
    second.memset_zeros(&mut data).unwrap();
    let error = first.end_capture(Flags(0)).err();
    assert_eq!(error, Some(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED)));
}

#[test]
fn waiting_for_a_captured_stream_invalidates_the_capture() {
    let _emulator = emulator();
    let (context, stream) = untracked();
    for (wait, expected) in [
        (0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (1, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (2, CUresult::CUDA_ERROR_CAPTURED_EVENT),
    ] {
        let event = context.new_event(None).unwrap();
        stream.begin_capture(MODE).unwrap();
        event.record(&stream).unwrap();
        let error = match wait {
            0 => stream.synchronize(),
            1 => context.synchronize(),
            _ => event.try_is_complete().map(drop),
        };
        assert_eq!(error, Err(DriverError(expected)));
        let error = stream.end_capture(Flags(0)).err();
        assert_eq!(error, Some(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)));
    }
    stream.synchronize().unwrap();
}

#[test]
fn invalid_captures_are_rejected() {
    let _emulator = emulator();
    let (context, stream) = untracked();
    // The null stream cannot be captured, a stream cannot be captured twice, and a capture that never began cannot end.
    assert!(context.default_stream().begin_capture(MODE).is_err());
    assert_eq!(stream.end_capture(Flags(0)).err(), Some(DriverError(CUresult::CUDA_ERROR_ILLEGAL_STATE)));
    stream.begin_capture(MODE).unwrap();
    assert_eq!(stream.begin_capture(MODE), Err(DriverError(CUresult::CUDA_ERROR_ILLEGAL_STATE)));
    std::thread::scope(|scope| {
        let end = || stream.end_capture(Flags(0)).err();
        let error = scope.spawn(end).join().unwrap();
        assert_eq!(error, Some(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)));
    });
    let contradiction = Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
        | Flags::CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
    let error = stream.end_capture(contradiction).err();
    assert_eq!(error, Some(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE)));
}

#[test]
fn a_wait_for_work_outside_the_capture_is_rejected() {
    let _emulator = emulator();
    let (_context, stream) = untracked();
    let before = stream.record_event(None).unwrap();
    stream.begin_capture(MODE).unwrap();
    assert_eq!(stream.wait(&before), Err(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION)));
    assert!(stream.end_capture(Flags(0)).is_err());
}
