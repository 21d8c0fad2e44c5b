//! Waits without blocking on the emulated CUDA device: another thread waits, and page-locked memory takes the copy.

use std::thread;
use std::time::Instant;

use cuda_emulator::CudaError;
use cuda_emulator::control::{CallKind, PageableCopies, StreamOrder};
use longseq::*;
use longseq_check::device::cuda::session;
use longseq_check::waits::block_on;

use super::device::assert_clean;

/// Each driver call fails in turn: the wait fails, or a later one does; what is copied to lives until the copy is made, and is freed once.
#[test]
fn every_failing_call_of_a_wait_without_blocking_is_an_error() {
    let Some(emulator) = session() else { return };
    emulator.set_checks(false);
    emulator.set_stream_order(StreamOrder::Late);
    emulator.set_pageable_copies(PageableCopies::Late);
    let request = || -> Result<()> {
        let gpu = Cuda::new(0)?;
        let rows = gpu.upload(&[1.0f32; 12])?;
        drop(gpu.download_async(gpu.view(&rows)));
        assert_eq!(block_on(gpu.download_async(gpu.view(&rows)))?, [1.0; 12]);
        block_on(gpu.synchronize_async())
    };
    request().expect("a working driver");
    let kinds =
        [CallKind::Allocate, CallKind::Copy, CallKind::Fill, CallKind::Synchronize, CallKind::Context];
    let mut failed = 0;
    for kind in kinds {
        for nth in 1.. {
            emulator.take_calls();
            emulator.fail_call(kind, nth, CudaError::LaunchFailed);
            let result = request();
            let made = emulator.take_calls().iter().filter(|name| CallKind::of(name) == kind).count();
            emulator.clear_faults();
            assert_eq!(emulator.take_findings(), [], "call {nth} of {kind:?}: {result:?}");
            // Where a call failed, the first wait, which was given up, may still be under way.
            let begun = Instant::now();
            while !emulator.live().is_empty_but_for_contexts() && begun.elapsed().as_secs() < 10 {
                thread::yield_now();
            }
            let live = emulator.live();
            assert!(live.is_empty_but_for_contexts(), "call {nth} of {kind:?}: {live}");
            if made < nth as usize {
                result.expect("nothing failed");
                break;
            }
            failed += usize::from(result.is_err());
        }
    }
    assert!(failed > 10, "only {failed} calls failed");
    assert_clean(&emulator);
}

/// As on a wait that blocks.
#[test]
fn a_lost_device_ends_waits_without_blocking() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let rows = gpu.upload(&[1.0f32; 12]).expect("memory");
    emulator.lose_device(1, CudaError::EccUncorrectable);
    for result in [block_on(gpu.download_async(gpu.view(&rows))).map(drop), block_on(gpu.synchronize_async())]
    {
        assert!(matches!(result, Err(Error::Driver { .. })), "{result:?}");
    }
}
