//! Streams that run apart: what only the order of submission orders goes wrong, what events order does not.

use std::sync::Arc;

use cuda_emulator::Emulator;
use cuda_emulator::control::StreamOrder;
use cuda_emulator::exec::FindingKind;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError, PushKernelArg, result, sys,
};

use super::graphs::untracked;
use super::support::{CUresult, blocks_of_64, emulator, kernel};

const ORDERS: [StreamOrder; 6] = [
    StreamOrder::Submission,
    StreamOrder::Late,
    StreamOrder::Shuffled(1),
    StreamOrder::Shuffled(2),
    StreamOrder::Shuffled(3),
    StreamOrder::Shuffled(4),
];

fn address(slice: &CudaSlice<u32>, stream: &CudaStream) -> u64 {
    slice.device_ptr(stream).0
}

/// Two streams of a context without cudarc's own events, and two slices of zeros that both may use.
fn pair(order: StreamOrder) -> (Emulator, [Arc<CudaStream>; 2], [u64; 2]) {
    let emulator = emulator();
    emulator.set_stream_order(order);
    let (context, first) = untracked();
    let second = context.new_stream().unwrap();
    let slices = [(); 2].map(|()| {
        let slice = first.alloc_zeros::<u32>(4).unwrap();
        first.synchronize().unwrap();
        slice.leak()
    });
    (emulator, [first, second], slices)
}

fn read(stream: &CudaStream, address: u64) -> u32 {
    let mut words = [0; 4];
    unsafe { result::memcpy_dtoh_async(&mut words, address, stream.cu_stream()) }.unwrap();
    stream.synchronize().unwrap();
    assert_eq!(words, [words[0]; 4]);
    words[0]
}

fn set(stream: &CudaStream, address: u64, value: u32) {
    unsafe { sys::cuMemsetD32Async(address, value, 4, stream.cu_stream()) }.result().unwrap();
}

fn copy(stream: &CudaStream, to: u64, from: u64) {
    unsafe { result::memcpy_dtod_async(to, from, 16, stream.cu_stream()) }.unwrap();
}

/// What the second stream reads of what the first writes, with and without a wait.
fn read_after_write(order: StreamOrder, waits: bool) -> u32 {
    let (_emulator, [first, second], [x, y]) = pair(order);
    set(&first, x, 1);
    if waits {
        second.wait(&first.record_event(None).unwrap()).unwrap();
    }
    copy(&second, y, x);
    let seen = read(&second, y);
    assert_eq!(read(&first, x), 1);
    seen
}

/// What the first stream reads where the second writes later.
fn write_after_read(order: StreamOrder, waits: bool) -> u32 {
    let (_emulator, [first, second], [x, y]) = pair(order);
    copy(&first, y, x);
    if waits {
        second.wait(&first.record_event(None).unwrap()).unwrap();
    }
    set(&second, x, 1);
    assert_eq!(read(&second, x), 1);
    read(&first, y)
}

#[test]
fn a_missing_wait_between_two_streams_is_noticed() {
    for (try_order, right) in [
        (read_after_write as fn(StreamOrder, bool) -> u32, 1),
        (write_after_read as fn(StreamOrder, bool) -> u32, 0),
    ] {
        for order in ORDERS {
            assert_eq!(try_order(order, true), right, "{order:?}, with a wait");
        }
        assert_eq!(try_order(StreamOrder::Submission, false), right, "the order of submission hides it");
        assert_ne!(try_order(StreamOrder::Late, false), right, "without a wait");
        let shuffled: Vec<u32> = (0..40).map(|seed| try_order(StreamOrder::Shuffled(seed), false)).collect();
        assert!(shuffled.contains(&right) && shuffled.iter().any(|seen| *seen != right), "{shuffled:?}");
    }
}

/// Waits are kept through a third stream, and an event that is recorded again counts from where it was when waited for.
#[test]
fn events_order_streams_transitively() {
    for order in ORDERS {
        let (_emulator, [first, second], [x, y]) = pair(order);
        let third = first.context().new_stream().unwrap();
        let event = first.context().new_event(None).unwrap();
        set(&first, x, 1);
        event.record(&first).unwrap();
        second.wait(&event).unwrap();
        set(&first, y, 9);
        event.record(&second).unwrap();
        third.wait(&event).unwrap();
        copy(&third, x, x);
        assert_eq!(read(&third, x), 1, "{order:?}");
        assert_eq!(read(&first, y), 9, "{order:?}");
    }
}

/// An allocation exists from the moment its own stream has reached it, until another has reached the free.
#[test]
fn allocations_and_frees_are_in_the_order_of_their_stream() {
    let (emulator, [first, second], [_, y]) = pair(StreamOrder::Late);
    let fresh = first.alloc_zeros::<u32>(4).unwrap();
    assert_eq!(emulator.live_allocations().len(), 3, "recorded when it is asked for");
    copy(&second, y, address(&fresh, &first));
    let error = second.synchronize().unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(emulator.take_misuses()[0].message.contains("has no memory now"));

    second.wait(&first.record_event(None).unwrap()).unwrap();
    copy(&second, y, address(&fresh, &first));
    second.synchronize().unwrap();

    // Freed on the first stream while the second still reads it.
    copy(&second, y, address(&fresh, &first));
    drop(fresh);
    first.synchronize().unwrap();
    assert!(second.synchronize().is_err());
    assert!(emulator.take_misuses()[0].message.contains("which was freed"));
    assert_eq!(emulator.live_allocations().len(), 2);
}

/// A kernel without a wait reads what is not written yet; the finding is an error of the synchronisation.
#[test]
fn findings_of_kernels_are_errors_of_the_synchronisation() {
    let (emulator, [first, second], _) = pair(StreamOrder::Late);
    let saxpy = kernel(first.context(), "saxpy");
    let x = unsafe { first.alloc::<f32>(64) }.unwrap();
    let mut y = first.alloc_zeros::<f32>(64).unwrap();
    first.synchronize().unwrap();
    let mut launch = |wait: bool| {
        unsafe { sys::cuMemsetD32Async(x.device_ptr(&first).0, 0, 64, first.cu_stream()) }.result().unwrap();
        if wait {
            second.wait(&first.record_event(None).unwrap()).unwrap();
        }
        let mut launch = second.launch_builder(&saxpy);
        launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&64_u32);
        unsafe { launch.launch(blocks_of_64(64)) }.map(drop).unwrap();
        second.synchronize()
    };
    assert_eq!(launch(false), Err(DriverError(CUresult::CUDA_ERROR_LAUNCH_FAILED)));
    assert_eq!(emulator.take_findings()[0].kind, FindingKind::Uninitialised);
    first.synchronize().unwrap();
    launch(true).unwrap();
    assert_eq!(emulator.take_findings(), []);
}

/// The legacy default stream and blocking streams wait for each other without events; others do not.
#[test]
fn the_legacy_default_stream_orders_blocking_streams() {
    for (flags, waits) in
        [(sys::CUstream_flags::CU_STREAM_DEFAULT, true), (sys::CUstream_flags::CU_STREAM_NON_BLOCKING, false)]
    {
        let (_emulator, [first, _], [x, y]) = pair(StreamOrder::Late);
        let legacy = first.context().default_stream();
        let mut own = std::ptr::null_mut();
        unsafe { sys::cuStreamCreate(&mut own, flags as u32) }.result().unwrap();
        unsafe { sys::cuMemsetD32Async(x, 1, 4, own) }.result().unwrap();
        copy(&legacy, y, x);
        assert_eq!(read(&legacy, y), u32::from(waits), "{flags:?}");
        unsafe { result::stream::synchronize(own) }.unwrap();
        set(&legacy, x, 2);
        unsafe { result::memcpy_dtod_async(y, x, 16, own) }.unwrap();
        unsafe { result::stream::synchronize(own) }.unwrap();
        assert_eq!(read(&legacy, y), if waits { 2 } else { 1 }, "{flags:?}");
        // A copy without a stream is one of the legacy stream, and waits for it.
        unsafe { sys::cuMemsetD32Async(x, 3, 4, own) }.result().unwrap();
        let mut words = [0_u32; 4];
        unsafe { result::memcpy_dtoh_sync(&mut words, x) }.unwrap();
        assert_eq!(words, [if waits { 3 } else { 2 }; 4], "{flags:?}");
        unsafe { sys::cuStreamDestroy_v2(own) }.result().unwrap();
    }
}

/// Handle 2 is one stream per thread: another thread's work on it is not ordered after this one's.
#[test]
fn the_per_thread_default_stream_is_another_on_each_thread() {
    let (emulator, [first, _], [x, y]) = pair(StreamOrder::Late);
    let context = first.context();
    let mine = context.per_thread_stream();
    set(&mine, x, 1);
    let elsewhere = |event: Option<&cudarc::driver::CudaEvent>| {
        std::thread::scope(|scope| {
            let run = || {
                emulator.enter();
                context.bind_to_thread().unwrap();
                let theirs = context.per_thread_stream();
                assert_eq!(theirs.cu_stream(), mine.cu_stream(), "the handles are equal");
                if let Some(event) = event {
                    theirs.wait(event).unwrap();
                }
                copy(&theirs, y, x);
                read(&theirs, y)
            };
            scope.spawn(run).join().unwrap()
        })
    };
    assert_eq!(elsewhere(None), 0, "nothing orders the two");
    assert_eq!(elsewhere(Some(&mine.record_event(None).unwrap())), 1);
}

#[test]
fn what_is_not_done_is_not_ready_and_asking_moves_it_on() {
    for order in &ORDERS[1..] {
        let (_emulator, [first, _], [x, _]) = pair(*order);
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let mut waited = 0;
        let start = first.record_event(timed).unwrap();
        for _ in 0..5 {
            set(&first, x, 1);
        }
        let end = first.record_event(timed).unwrap();
        if *order == StreamOrder::Late {
            let elapsed = unsafe { result::event::elapsed(start.cu_event(), end.cu_event()) };
            assert_eq!(elapsed.unwrap_err().0, CUresult::CUDA_ERROR_NOT_READY);
        }
        while !end.try_is_complete().unwrap() {
            waited += 1;
        }
        assert!(waited < 10, "{order:?}: {waited}");
        assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
        set(&first, x, 1);
        set(&first, x, 1);
        while unsafe { sys::cuStreamQuery(first.cu_stream()) } == CUresult::CUDA_ERROR_NOT_READY {
            waited += 1;
        }
        assert!(*order != StreamOrder::Late || waited > 0, "the end is reached step by step");
    }
}

/// Graphs are submitted as a whole, and their memory is theirs in stream order.
#[test]
fn graphs_keep_the_order_of_their_stream() {
    for order in ORDERS {
        let (emulator, [first, second], [x, y]) = pair(order);
        first.begin_capture(super::graphs::MODE).unwrap();
        let inside = first.alloc_zeros::<u32>(4).unwrap();
        copy(&first, inside.device_ptr(&first).0, x);
        copy(&first, y, inside.device_ptr(&first).0);
        drop(inside);
        let graph = first.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
        for value in 1..4 {
            set(&first, x, value);
            graph.launch().unwrap();
            second.wait(&first.record_event(None).unwrap()).unwrap();
            assert_eq!(read(&second, y), value, "{order:?}");
        }
        drop(graph);
        assert_eq!((emulator.live_allocations().len(), emulator.take_misuses()), (2, vec![]));
    }
}

/// Work that nobody waits for is done before what it uses goes.
#[test]
fn unfinished_work_is_done_before_the_context_ends() {
    for order in ORDERS {
        let emulator = emulator();
        emulator.set_stream_order(order);
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let saxpy = kernel(&context, "saxpy");
        let (mut y, x) = (stream.alloc_zeros::<f32>(64).unwrap(), stream.alloc_zeros::<f32>(64).unwrap());
        let mut launch = stream.launch_builder(&saxpy);
        launch.arg(&mut y).arg(&x).arg(&2.0_f32).arg(&64_u32);
        unsafe { launch.launch(blocks_of_64(64)) }.map(drop).unwrap();
        drop((saxpy, x, y, stream, context));
        assert_eq!(emulator.counts().len(), 1, "{order:?}");
        assert_eq!(
            (emulator.take_misuses(), emulator.take_findings(), emulator.take_leaks()),
            (vec![], vec![], vec![])
        );
        assert!(emulator.live().is_empty_but_for_contexts(), "{order:?}: {}", emulator.live());
    }
}

/// Switching the mode off finishes what is queued.
#[test]
fn the_mode_can_be_switched_off() {
    let (emulator, [first, second], [x, y]) = pair(StreamOrder::Late);
    set(&first, x, 1);
    emulator.set_stream_order(StreamOrder::Submission);
    copy(&second, y, x);
    assert_eq!(read(&second, y), 1);
}
