//! The emulated device: name, size, compute capability, driver version.
//!
//! The figures are those that NVIDIA publishes for an A100 (SXM, 80 GB), an H100 (SXM, 80 GB) and a T4: CUDA C++
//! Programming Guide, "Compute Capabilities" (limits per multiprocessor and per block), and the boards' data sheets
//! (multiprocessors, clocks, bus width, memory).

mod attributes;
mod environment;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of CUDA, such as 12.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CudaVersion {
    /// 12 of 12.4.
    pub major: u32,
    /// 4 of 12.4.
    pub minor: u32,
}

impl CudaVersion {
    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The version as `cuDriverGetVersion` returns it: 12040 for 12.4.
    pub const fn code(self) -> i32 {
        (self.major * 1000 + self.minor * 10) as i32
    }

    /// The newest PTX ISA that a driver of this version compiles (PTX ISA, "Release Notes").
    pub fn newest_ptx(self) -> (u32, u32) {
        match (self.major, self.minor) {
            (..=10, _) => (6, 5),
            (11, minor) => (7, minor.min(8)),
            (12, minor @ ..=5) => (8, minor),
            (12, 6) => (8, 5),
            (12, minor) => (8, minor.min(9) - 1),
            (major, minor) => (major - 4, minor),
        }
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The description of one device and its driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The name that `cuDeviceGetName` returns.
    pub name: String,
    /// (8, 0) for sm_80.
    pub compute_capability: (u32, u32),
    /// The version that `cuDriverGetVersion` returns; also limits which PTX versions load.
    pub driver_version: CudaVersion,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Maximum resident threads per multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Maximum resident blocks per multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// 32-bit registers per multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Shared memory per multiprocessor in bytes.
    pub shared_per_multiprocessor: u32,
    /// Shared memory per block after opting in, in bytes.
    pub shared_per_block_optin: u32,
    /// Shared memory reserved by the system per block, in bytes.
    pub shared_reserved_per_block: u32,
    /// L2 cache in bytes.
    pub l2_bytes: u32,
    /// Clock rate of the multiprocessors in kHz.
    pub clock_khz: u32,
    /// Clock rate of the device memory in kHz.
    pub memory_clock_khz: u32,
    /// Width of the memory bus in bits.
    pub memory_bus_bits: u32,
    /// Device memory in bytes. Small values let a test run out of memory quickly.
    pub total_memory: u64,
    /// Whether `cuMemAllocAsync` and memory pools are supported.
    pub memory_pools: bool,
    /// Overrides for `cuDeviceGetAttribute`, by attribute number.
    pub attributes: BTreeMap<u32, i32>,
}

impl Device {
    /// An A100 with 80 GB and the driver of CUDA 12.4.
    pub fn sm_80() -> Self {
        Self {
            name: "CUDA emulator, sm_80 (as A100-SXM4-80GB)".to_owned(),
            compute_capability: (8, 0),
            driver_version: CudaVersion::new(12, 4),
            multiprocessors: 108,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            registers_per_multiprocessor: 65_536,
            shared_per_multiprocessor: 164 * 1024,
            shared_per_block_optin: 163 * 1024,
            shared_reserved_per_block: 1024,
            l2_bytes: 40 << 20,
            clock_khz: 1_410_000,
            memory_clock_khz: 1_593_000,
            memory_bus_bits: 5120,
            total_memory: 80 << 30,
            memory_pools: true,
            attributes: BTreeMap::new(),
        }
    }

    /// An H100 with 80 GB and the driver of CUDA 12.8.
    pub fn sm_90() -> Self {
        Self {
            name: "CUDA emulator, sm_90 (as H100-SXM5-80GB)".to_owned(),
            compute_capability: (9, 0),
            driver_version: CudaVersion::new(12, 8),
            multiprocessors: 132,
            shared_per_multiprocessor: 228 * 1024,
            shared_per_block_optin: 227 * 1024,
            l2_bytes: 50 << 20,
            clock_khz: 1_980_000,
            memory_clock_khz: 2_619_000,
            ..Self::sm_80()
        }
    }

    /// A T4 with the driver of CUDA 12.4, for testing code that requires sm_80.
    pub fn sm_75() -> Self {
        Self {
            name: "CUDA emulator, sm_75 (as T4)".to_owned(),
            compute_capability: (7, 5),
            multiprocessors: 40,
            threads_per_multiprocessor: 1024,
            blocks_per_multiprocessor: 16,
            shared_per_multiprocessor: 64 * 1024,
            shared_per_block_optin: 64 * 1024,
            shared_reserved_per_block: 0,
            l2_bytes: 4 << 20,
            clock_khz: 1_590_000,
            memory_clock_khz: 5_001_000,
            memory_bus_bits: 256,
            total_memory: 16 << 30,
            ..Self::sm_80()
        }
    }

    /// The same device with another driver version.
    pub fn with_driver_version(mut self, version: CudaVersion) -> Self {
        self.driver_version = version;
        self
    }

    /// The same device with `bytes` of memory.
    pub fn with_total_memory(mut self, bytes: u64) -> Self {
        self.total_memory = bytes;
        self
    }

    /// The same device without memory pools: `cuMemAllocAsync` fails, and cudarc uses `cuMemAlloc` instead.
    pub fn without_memory_pools(mut self) -> Self {
        self.memory_pools = false;
        self
    }

    /// The same device with one value of `cuDeviceGetAttribute` overridden.
    pub fn with_attribute(mut self, attribute: u32, value: i32) -> Self {
        self.attributes.insert(attribute, value);
        self
    }

    /// 80 for sm_80.
    pub fn architecture(&self) -> u32 {
        self.compute_capability.0 * 10 + self.compute_capability.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_compile_the_ptx_of_their_release() {
        let newest = |major, minor| CudaVersion::new(major, minor).newest_ptx();
        assert_eq!(newest(11, 0), (7, 0));
        assert_eq!(newest(11, 8), (7, 8));
        assert_eq!(newest(12, 4), (8, 4));
        assert_eq!(newest(12, 6), (8, 5));
        assert_eq!(newest(12, 8), (8, 7));
        assert_eq!(newest(12, 9), (8, 8));
        assert_eq!(newest(13, 0), (9, 0));
        assert_eq!(CudaVersion::new(12, 4).code(), 12040);
    }
}
