//! The `wgpu` device that the tests of a binary share, each through a handle of its own.

use std::sync::OnceLock;

use longseq::prelude::*;

use longseq::Wgpu;
use longseq::webgpu::WgpuOptions;

use crate::case::Rules;

/// The device, or `None` where the tests are to run without one.
///
/// `LONGSEQ_TEST_WGPU` says what happens where there is no adapter: `require` fails, `auto` (the default) prints
/// that and passes, `off` does not look for one. `LONGSEQ_TEST_WGPU_ADAPTER` is a part of the adapter's name.
pub fn device() -> Option<Wgpu> {
    static DEVICE: OnceLock<Option<Wgpu>> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            let wanted = std::env::var("LONGSEQ_TEST_WGPU").unwrap_or_default();
            if wanted == "off" {
                eprintln!("skipped on wgpu: LONGSEQ_TEST_WGPU=off");
                return None;
            }
            match Wgpu::with_options(&options()) {
                Ok(device) => Some(device),
                Err(error) if wanted == "require" => panic!("{error}"),
                Err(error) => {
                    eprintln!("skipped on wgpu: {error}");
                    None
                }
            }
        })
        .as_ref()
        .map(|device| device.fork().expect("another handle"))
}

/// What the device guarantees: lavapipe computes with NaN and infinities as IEEE 754 says.
pub fn rules() -> Rules {
    let is = |name| device().is_some_and(|device| device.device().contains(name));
    let is_ieee = is("llvmpipe");
    let sampled = is_ieee || is("SwiftShader");
    Rules { nan: is_ieee, sampled, ..Rules::WGSL }
}

/// What the environment asks for: `LONGSEQ_TEST_WGPU_ADAPTER`, and no subgroups with `LONGSEQ_TEST_WGPU_SUBGROUPS=off`.
pub fn options() -> WgpuOptions {
    let off = std::env::var("LONGSEQ_TEST_WGPU_SUBGROUPS").is_ok_and(|wish| wish == "off");
    let options = WgpuOptions::default().with_subgroups(!off);
    match std::env::var("LONGSEQ_TEST_WGPU_ADAPTER") {
        Ok(name) => options.with_adapter(name),
        Err(_) => options,
    }
}
