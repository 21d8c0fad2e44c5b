//! Every operation on inputs and outputs that are parts of one buffer, and on memory of another device.
//!
//! `Wgpu` asserts that no pass binds bytes for writing twice, or a buffer for reading and writing, which browsers refuse and `wgpu-core`
//! accepts.

use longseq::*;
use longseq_check::device::TestDevice;
use longseq_check::device::webgpu::{device, options};
use longseq_check::guard::with_bands;
use longseq_check::support::small_cases;
use longseq_check::{AnyCase, faults, sample, soak};

/// Every call at least once, rows of other storage than `f32` in a sample, which is another one for each test.
fn small(test: &str) -> impl Iterator<Item = AnyCase> {
    let is_run = move |case: &AnyCase| {
        ["f32", "u32"].contains(&case.storage()) || sample::has(&(test, format!("{case:?}")))
    };
    small_cases().into_iter().filter(is_run)
}

/// Every call at least once, and cases that take scratch memory between their outputs, in a sample.
fn cases(test: &str) -> impl Iterator<Item = AnyCase> {
    let others = faults::cases().into_iter().chain(soak::selections());
    small(test).chain(others.filter(move |case| sample::has(&(test, format!("{case:?}")))))
}

/// A buffer of the caller's.
fn buffer(gpu: &Wgpu) -> wgpu::Buffer {
    gpu.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("everything"),
        size: 1 << 20,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Runs all cases where such buffers lie one after the other, from an odd element on, so that they share words and bindings.
fn runs_within(test: &str, is_within: fn(&[u8]) -> bool) {
    let Some(gpu) = device() else { return };
    let all = buffer(&gpu);
    for case in cases(test) {
        let expected = gpu.run_case(&case).expect("a valid case");
        let got = with_bands(1, || gpu.within(all.clone(), 4, is_within).run_case(&case));
        let got = got.unwrap_or_else(|failure| panic!("{case:?}: {failure}"));
        assert!(got == expected, "{case:?}");
    }
}

#[test]
fn every_operation_runs_in_one_buffer() {
    runs_within("all", |_| true);
}

/// Outputs alone, which begin with the poison around them: they are written in place where no two share a binding.
#[test]
fn every_operation_writes_to_one_buffer() {
    runs_within("outputs", |bytes| bytes.first() == Some(&0xFF));
}

/// One after the other of the buffers of a case is another device's: the call that it is for names it, and nothing panics.
#[test]
fn memory_of_another_device_is_an_error_of_every_operation() {
    if device().is_none() {
        return;
    }
    let [gpu, other] = [device(), Wgpu::with_options(&options()).ok()].map(|gpu| gpu.expect("a device"));
    let (mut refused, mut taken) = (0, Vec::new());
    for case in small("another device") {
        let expected = gpu.run_case(&case).expect("a valid case");
        for nth in 1.. {
            let gpu = gpu.elsewhere(&other, nth);
            // What a case does not ask for has no elements without bands.
            let ran = with_bands(0, || gpu.run_case(&case));
            if !gpu.is_elsewhere() {
                ran.expect("a valid case");
                break;
            }
            // What a call does not read may be anywhere: it holds zeros, which would show.
            let is_right = ran.as_ref().is_ok_and(|output| *output == expected);
            let error = ran.as_ref().err().and_then(|failure| failure.error());
            match error {
                Some(Error::Parameter { operation, .. }) if *operation != "download" => refused += 1,
                _ if is_right => {}
                _ => taken.push(format!("buffer {nth} of {case:?}: {error:?}")),
            }
        }
    }
    assert!(taken.is_empty(), "taken:\n{}", taken.join("\n"));
    assert!(refused > 100, "{refused} buffers");
    gpu.synchronize().expect("nothing was recorded that the device refuses");
}
