//! Published rates of two GPUs.

use super::Limits;
use crate::device::Device;
use crate::exec::Class;

/// The rates of one GPU.
///
/// Sources: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions" (results a clock and
/// multiprocessor, columns 8.0 and 9.0); the architecture whitepapers of the A100 and the H100 (tensor cores,
/// schedulers, load and store units); the boards' data sheets (clock, multiprocessors, memory).
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What bounds the occupancy of a multiprocessor.
    pub limits: Limits,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock in Hz.
    pub clock: f64,
    /// Bytes a second of device memory.
    pub bandwidth: f64,
    /// f32 results a clock and multiprocessor.
    pub float: f64,
    /// f64 results a clock and multiprocessor.
    pub double: f64,
    /// Conversions a clock and multiprocessor.
    pub convert: f64,
    /// Multiply-adds of dense f16 tensor instructions a clock and multiprocessor.
    pub matrix: f64,
}

impl Target {
    /// A100 SXM with 80 GB.
    pub fn a100() -> Self {
        Self {
            name: "A100",
            limits: Limits::from(&Device::sm_80()),
            multiprocessors: 108,
            clock: 1.41e9,
            bandwidth: 2.039e12,
            float: 64.0,
            double: 32.0,
            convert: 16.0,
            matrix: 1024.0,
        }
    }

    /// H100 SXM with 80 GB. Its tensor rate is that of its own instructions; `mma.sync` reaches less of it.
    pub fn h100() -> Self {
        Self {
            name: "H100",
            limits: Limits::from(&Device::sm_90()),
            multiprocessors: 132,
            clock: 1.98e9,
            bandwidth: 3.35e12,
            float: 128.0,
            double: 64.0,
            convert: 64.0,
            matrix: 2048.0,
        }
    }

    /// Clocks for which one warp instruction of a class keeps its unit, with 32 results each: two halves a
    /// result for packed f16, 64 integer results, 16 special functions, 32 lanes of loads, stores and shuffles.
    /// `None` where the count of something else tells, or where only the issue slot counts.
    pub(super) fn clocks(&self, class: Class) -> Option<f64> {
        let results = match class {
            Class::Integer | Class::Move => 64.0,
            Class::Float => self.float,
            Class::Double => self.double,
            Class::Half => 128.0,
            Class::Special => 16.0,
            Class::Convert => self.convert,
            Class::Global | Class::Shared | Class::Local | Class::Atomic | Class::AsyncCopy | Class::Warp => {
                32.0
            }
            Class::Matrix | Class::Constant | Class::Barrier | Class::Control => return None,
        };
        Some(32.0 / results)
    }
}
