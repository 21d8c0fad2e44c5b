//! For tests: where the memory lies that callers ask for. With it the tests of every operation run on inputs and outputs in one buffer, and
//! on one that is another device's.

use std::sync::Mutex;

use crate::webgpu::memory::Owner;

/// Where a handle puts what `upload` and `zeros` return.
#[derive(Debug)]
pub(crate) enum Placement {
    /// Those whose bytes are such ones, one after the other in this buffer, of which so many bytes are used.
    Within(wgpu::Buffer, Mutex<u64>, fn(&[u8]) -> bool),
    /// The one that is counted down to, of those with any elements, on this device.
    Elsewhere(wgpu::Device, Owner, Mutex<i64>),
}
