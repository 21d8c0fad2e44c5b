//! Copies from and to pageable memory that take place after the call that submits them.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_emulator::Emulator;
use cuda_emulator::control::{PageableCopies, StreamOrder};
use cuda_emulator::exec::FindingKind;
use cudarc::driver::{CudaStream, DriverError, result};

use super::graphs::untracked;
use super::support::{CUresult, emulator};

fn late() -> (Emulator, Arc<CudaStream>) {
    let emulator = emulator();
    emulator.set_pageable_copies(PageableCopies::Late);
    let (_context, stream) = untracked();
    (emulator, stream)
}

#[track_caller]
fn reported(emulator: &Emulator, stream: &CudaStream, call: &str) {
    assert_eq!(stream.synchronize(), Err(DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)));
    let findings = emulator.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, FindingKind::HostMemory, "{}", findings[0]);
    assert!(findings[0].to_string().contains(call), "{}", findings[0]);
    stream.synchronize().unwrap();
}

/// Small buffers: the allocator writes into them when they are freed.
#[test]
fn a_buffer_changed_or_dropped_before_the_copy_is_reported() {
    let (emulator, stream) = late();
    let mut device = stream.alloc_zeros::<u32>(16).unwrap();
    let mut host = vec![7_u32; 16];
    stream.memcpy_htod(&host, &mut device).unwrap();
    host[15] = 8;
    reported(&emulator, &stream, "cuMemcpyHtoDAsync");
    stream.memcpy_htod(&host, &mut device).unwrap();
    drop(host);
    reported(&emulator, &stream, "cuMemcpyHtoDAsync");

    let mut host = vec![0_u32; 16];
    stream.memcpy_dtoh(&device, &mut host).unwrap();
    host[0] = 1;
    reported(&emulator, &stream, "cuMemcpyDtoHAsync");
    assert_eq!(host[1], 0, "nothing is written then");
    stream.memcpy_dtoh(&device, &mut host).unwrap();
    drop(host);
    reported(&emulator, &stream, "cuMemcpyDtoHAsync");
}

#[test]
fn a_result_read_before_the_synchronisation_is_not_there_yet() {
    let (emulator, stream) = late();
    let device = stream.clone_htod(&[7_u32; 4]);
    // A literal's memory does not change; the slice is written when the stream is waited for.
    let device = device.unwrap();
    let mut host = [0_u32; 4];
    stream.memcpy_dtoh(&device, &mut host).unwrap();
    assert_eq!(host, [0; 4]);
    stream.synchronize().unwrap();
    assert_eq!(host, [7; 4]);
    assert_eq!(emulator.take_findings(), []);
}

unsafe extern "C" fn add_one(words: *mut c_void) {
    unsafe { *words.cast::<u32>() += 1 };
}

/// What the stream itself does to a buffer between two copies is in order.
#[test]
fn copies_and_host_functions_of_one_stream_may_share_a_buffer() {
    for order in [StreamOrder::Submission, StreamOrder::Late, StreamOrder::Shuffled(5)] {
        let (emulator, stream) = late();
        emulator.set_stream_order(order);
        let sevens = vec![7_u32; 4];
        let mut device = stream.clone_htod(&sevens).unwrap();
        stream.synchronize().unwrap();
        let mut host = [0_u32; 4];
        for _ in 0..3 {
            stream.memcpy_dtoh(&device, &mut host).unwrap();
            let argument = host.as_mut_ptr().cast();
            unsafe { result::stream::launch_host_function(stream.cu_stream(), add_one, argument) }.unwrap();
            stream.memcpy_htod(&host, &mut device).unwrap();
        }
        stream.synchronize().unwrap();
        assert_eq!((host, emulator.take_findings()), ([10, 7, 7, 7], vec![]), "{order:?}");
    }
}

/// Copies without a stream are done with the host's memory when they return, in every mode.
#[test]
fn synchronous_copies_are_synchronous() {
    for order in [StreamOrder::Submission, StreamOrder::Late] {
        let (emulator, _stream) = late();
        emulator.set_stream_order(order);
        let address = unsafe { result::malloc_sync(16) }.unwrap();
        let mut host = vec![1_u32; 4];
        unsafe { result::memcpy_htod_sync(address, &host) }.unwrap();
        host.fill(2);
        let mut back = vec![0_u32; 4];
        unsafe { result::memcpy_dtoh_sync(&mut back, address) }.unwrap();
        assert_eq!(back, [1; 4], "{order:?}");
        unsafe { result::free_sync(address) }.unwrap();
        assert_eq!(emulator.take_findings(), []);
    }
}

/// Page-locked memory is never copied before the stream reaches the copy, where streams run apart; pageable memory is, by
/// default.
#[test]
fn page_locked_and_pageable_memory_where_streams_run_apart() {
    let emulator = emulator();
    let (context, stream) = untracked();
    emulator.set_stream_order(StreamOrder::Late);
    let mut device = stream.alloc_zeros::<u32>(4).unwrap();
    let mut pageable = vec![1_u32; 4];
    stream.memcpy_htod(&pageable, &mut device).unwrap();
    pageable.fill(2);
    assert_eq!(stream.clone_dtoh(&device).unwrap(), [1; 4]);

    let mut pinned = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
    pinned.as_mut_slice().unwrap().fill(3);
    stream.memcpy_htod(&pinned, &mut device).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(stream.clone_dtoh(&device).unwrap(), [3; 4]);
    stream.memcpy_htod(&pinned, &mut device).unwrap();
    pinned.as_mut_slice().unwrap().fill(4);
    reported(&emulator, &stream, "cuMemcpyHtoDAsync");
}
