//! Copies of parts of a buffer that share words with other parts.

use longseq::webgpu::WgpuBuffer;
use longseq::*;
use longseq_check::Failure;
use longseq_check::device::webgpu::device;

use super::wrong_shaders::{Twin, twin_that};

/// A part of a buffer.
fn part<T: Scalar>(of: &WgpuBuffer<u8>, byte: usize, length: usize) -> WgpuBuffer<T> {
    WgpuBuffer::from_buffer(of.buffer().clone(), byte as u64, length).expect("a part")
}

/// Bytes that tell where they are.
fn numbered(count: u8) -> Vec<u8> {
    (0..count).collect()
}

/// A device copies from one buffer to another; the caller's buffers may be parts of one.
fn copies_within_one_buffer(gpu: &Wgpu) -> Result<(), Failure> {
    for (from, to, length) in [(0, 64, 12), (3, 65, 9), (2, 64, 5), (64, 1, 1), (5, 77, 0)] {
        let (all, mut expected) = (gpu.upload(&numbered(100))?, numbered(100));
        let (source, mut target) = (part::<u8>(&all, from, length), part::<u8>(&all, to, length));
        gpu.copy(gpu.view(&source), gpu.view_mut(&mut target))?;
        expected.copy_within(from..from + length, to);
        if gpu.download(gpu.view(&all))? != expected {
            return Err(Failure::new(format!("{length} bytes from {from} to {to}")));
        }
    }
    Ok(())
}

/// Copies whose ends lie at every byte of a word.
fn copies_from_any_byte(gpu: &Wgpu) -> Result<(), Failure> {
    for (from, to, length) in (0..64).map(|i| (i % 4, 4 + i / 4 % 4, 1 + i / 16 * 5)) {
        let (source, mut target) = (gpu.upload(&numbered(40))?, gpu.upload(&[0xa5u8; 40])?);
        let mut expected = vec![0xa5u8; 40];
        gpu.copy(gpu.view(&source).slice(from, length)?, gpu.view_mut(&mut target).slice(to, length)?)?;
        expected[to..to + length].copy_from_slice(&numbered(40)[from..from + length]);
        if gpu.download(gpu.view(&target))? != expected {
            return Err(Failure::new(format!("{length} bytes from {from} to {to}")));
        }
    }
    Ok(())
}

#[test]
fn parts_of_one_buffer_are_copied() {
    let Some(gpu) = device() else { return };
    copies_within_one_buffer(&gpu).expect("the bytes");
    copies_from_any_byte(&gpu).expect("the bytes");
}

/// Faults of the kernel.
pub(super) fn twins() -> Vec<Twin> {
    let kernel = "shared/copy_bytes";
    vec![
        twin_that(
            copies_from_any_byte,
            kernel,
            "byte - params.copied_start < params.bytes",
            "byte - params.copied_start <= params.bytes",
        ),
        twin_that(
            copies_from_any_byte,
            kernel,
            "byte >= params.copied_start &&",
            "byte + 1u > params.copied_start && byte != params.copied_start &&",
        ),
        twin_that(
            copies_from_any_byte,
            kernel,
            "- params.copied_start + params.source_start",
            "- params.copied_start",
        ),
        twin_that(copies_within_one_buffer, kernel, "var value = copied[word]", "var value = 0u"),
    ]
}

#[test]
fn wrong_copies_are_caught() {
    Twin::assert_caught(&twins());
}

#[test]
fn another_device_s_memory_is_refused() {
    let Some(gpu) = device() else { return };
    let other = Wgpu::with_options(&longseq_check::device::webgpu::options()).expect("a second device");
    let (mut mine, theirs) =
        (gpu.upload(&[1.0f32; 2]).expect("an upload"), other.upload(&[2.0f32; 2]).expect("an upload"));
    let error = gpu.copy(gpu.view(&theirs), gpu.view_mut(&mut mine)).expect_err("another device's");
    assert!(matches!(error, Error::Parameter { operation: "copy", argument: "from", .. }), "{error}");
    let error = other.upload_into(other.view_mut(&mut mine), &[3.0; 2]).expect_err("another device's");
    assert!(matches!(error, Error::Parameter { operation: "upload_into", argument: "out", .. }), "{error}");
    assert_eq!(gpu.download(gpu.view(&mine)), Ok(vec![1.0; 2]));
}
