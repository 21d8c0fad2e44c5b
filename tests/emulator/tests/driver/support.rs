//! What the tests share.

use cuda_emulator::{Device, Emulator};

/// A session of its own for the calling test.
pub(crate) fn emulator() -> Emulator {
    Emulator::install(Device::sm_80()).unwrap()
}
