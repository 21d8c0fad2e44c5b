//! Published rates of two GPUs.

use super::Limits;
use crate::device::Device;
use crate::exec::Class;

/// The rates of one GPU.
///
/// Sources: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions" (results per clock and
/// multiprocessor, columns 8.0 and 9.0); the architecture whitepapers of the A100 and the H100 (tensor cores,
/// schedulers, load and store units); the boards' data sheets (clock, multiprocessors, memory).
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// The limits of a multiprocessor's occupancy.
    pub limits: Limits,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock in Hz.
    pub clock: f64,
    /// Bandwidth of device memory in bytes per second.
    pub bandwidth: f64,
    /// f32 results per clock and multiprocessor.
    pub float: f64,
    /// f64 results per clock and multiprocessor.
    pub double: f64,
    /// Conversions per clock and multiprocessor.
    pub convert: f64,
    /// Multiply-adds of dense f16 tensor instructions per clock and multiprocessor.
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

    /// H100 SXM with 80 GB. The tensor rate is that of `wgmma`; `mma.sync` reaches only part of it.
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

    /// Clocks for which a warp instruction of a class, with its 32 results, occupies its unit. Per clock: 64 integer
    /// results, 128 results of packed f16 (of two values each), 16 special functions, 32 lanes of loads, stores and shuffles.
    /// `None` if other counts determine the time, or if only the issue slot matters.
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
