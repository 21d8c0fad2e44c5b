//! The CUDA device that the tests of a binary share: the emulator, or a real one.

use std::sync::OnceLock;

use cuda_emulator::control::{PageableCopies, StreamOrder};
use cuda_emulator::exec::{Approximation, MmaOrder};
use cuda_emulator::{Device, Emulator};
use longseq::Cuda;
use longseq::prelude::*;

use crate::case::Rules;
use crate::sample;

/// Which driver the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The emulator of this repository.
    Emulator,
    /// The machine's own.
    Real,
}

/// The driver, or `None` where the tests are to run without one.
///
/// `LONGSEQ_TEST_CUDA` says which: `emulator`, `device`, `off`; by default a real device where there is one, and the
/// emulator elsewhere.
pub fn driver() -> Option<Driver> {
    // Determined once: after the emulator is loaded there always is a driver.
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    *DRIVER.get_or_init(|| match std::env::var("LONGSEQ_TEST_CUDA").unwrap_or_default().as_str() {
        "emulator" => Some(Driver::Emulator),
        "device" => Some(Driver::Real),
        "off" => {
            eprintln!("skipped on CUDA: LONGSEQ_TEST_CUDA=off");
            None
        }
        _ if Cuda::is_available() => Some(Driver::Real),
        _ => Some(Driver::Emulator),
    })
}

/// The device that all tests of a binary share, each through a handle of its own.
pub fn device() -> Option<Cuda> {
    static DEVICE: OnceLock<Option<(Cuda, Option<Emulator>)>> = OnceLock::new();
    let make = || match driver()? {
        Driver::Real => Some((Cuda::new(0).expect("a CUDA device"), None)),
        Driver::Emulator => {
            let emulator = emulator();
            set_mode(&emulator, &std::env::var("LONGSEQ_TEST_CUDA_MODE").unwrap_or_default());
            Some((Cuda::new(0).expect("the emulator's device"), Some(emulator)))
        }
    };
    let (device, _) = DEVICE.get_or_init(make).as_ref()?;
    Some(device.fork().expect("another handle"))
}

/// What the driver guarantees: the emulator is slow.
pub fn rules() -> Rules {
    match driver() {
        Some(Driver::Emulator) => Rules { slow: true, sampled: true, ..Rules::CUDA },
        _ => Rules::CUDA,
    }
}

/// A session of this thread alone on the emulator, until it is dropped; `None` where the tests run on a real driver or
/// without one.
pub fn session() -> Option<Emulator> {
    (driver()? == Driver::Emulator).then(emulator)
}

fn emulator() -> Emulator {
    let emulator = Emulator::install(Device::sm_80()).expect("the emulator was built with the tests");
    // Stricter than compilers for devices: kernels say themselves where the lanes of a warp meet.
    emulator.set_explicit_convergence(true);
    emulator
}

/// The modes of the emulator in which results must hold, by name. The driver's own mode, [`APART`], is none of them: it
/// changes when work is done, not what kernels compute.
pub const MODES: [&str; 4] = ["", "shuffled", "lowest", "highest"];

/// The modes in which to run the case with this index: all of them if [`thorough`](super::thorough), otherwise one for the first
/// cases and a sample of the others. Neighbours get different ones, and none the first: every other test runs in that.
pub fn modes_of(index: usize) -> &'static [&'static str] {
    match super::thorough() {
        true => &MODES,
        false if index < 3 || sample::has(&index) => &MODES[1 + index % (MODES.len() - 1)..][..1],
        false => &[],
    }
}

/// Every stream does its work as late as possible, copies from and to pageable memory included: a missing wait and a buffer
/// dropped too early show.
pub const APART: &str = "apart";

/// Puts a session into a mode: blocks and warps in another order, approximate instructions at the edges of their
/// documented error, other orders of summation in `mma`; or streams that run apart.
pub fn set_mode(emulator: &Emulator, mode: &str) {
    if mode == APART {
        emulator.set_stream_order(StreamOrder::Late);
        emulator.set_pageable_copies(PageableCopies::Late);
        return;
    }
    let (seed, approximation, order) = match mode {
        "" => (None, Approximation::Nearest, MmaOrder::Ascending),
        "shuffled" => (Some(1), Approximation::Seeded(1), MmaOrder::Truncated),
        "lowest" => (Some(2), Approximation::Lowest, MmaOrder::Descending),
        "highest" => (Some(3), Approximation::Highest, MmaOrder::Pairwise),
        other => panic!("LONGSEQ_TEST_CUDA_MODE={other}: there are {MODES:?} and {APART:?}"),
    };
    emulator.set_schedule_seed(seed);
    emulator.set_approximation(approximation);
    emulator.set_mma_order(order);
}
