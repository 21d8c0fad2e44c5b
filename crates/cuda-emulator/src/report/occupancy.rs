//! The number of resident blocks per multiprocessor.
//!
//! Sources: CUDA C++ Programming Guide, "Hardware Multithreading" (what the number depends on) and "Compute Capabilities"
//! (the limits); CUDA Occupancy API and Nsight Compute, "Occupancy Calculator" (granularities: registers are allocated to
//! warps in units of 256, separately in each of the four partitions of a multiprocessor; shared memory to blocks in units
//! of 128 bytes from compute capability 8.0 on, of 256 bytes before).

use crate::device::Device;

const WARP: u32 = 32;
const PARTITIONS: u32 = 4;
const REGISTER_UNIT: u32 = 256;

/// The resources of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum resident warps.
    pub warps: u32,
    /// Maximum resident blocks.
    pub blocks: u32,
    /// 32-bit registers.
    pub registers: u32,
    /// Bytes of shared memory.
    pub shared: u32,
    /// Bytes of shared memory that the system reserves per block.
    pub shared_reserved: u32,
    /// Allocation granularity of shared memory in bytes.
    pub shared_unit: u32,
    /// Maximum bytes of shared memory per block.
    pub shared_per_block: u32,
}

impl From<&Device> for Limits {
    fn from(device: &Device) -> Self {
        Self {
            warps: device.threads_per_multiprocessor / WARP,
            blocks: device.blocks_per_multiprocessor,
            registers: device.registers_per_multiprocessor,
            shared: device.shared_per_multiprocessor,
            shared_reserved: device.shared_reserved_per_block,
            shared_unit: if device.compute_capability.0 >= 8 { 128 } else { 256 },
            shared_per_block: device.shared_per_block_optin,
        }
    }
}

/// What limits the number of resident blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// The maximum number of warps.
    Warps,
    /// The maximum number of blocks.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

/// Resident blocks and warps of one multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Resident blocks; 0 if not even one block fits.
    pub blocks: u32,
    /// Resident warps.
    pub warps: u32,
    /// Maximum resident warps of the multiprocessor.
    pub warps_possible: u32,
    /// The limiting resource.
    pub restriction: Restriction,
}

impl Occupancy {
    /// The occupancy of blocks of `threads` threads, with `registers` per thread and `shared` bytes per block.
    pub fn new(limits: &Limits, threads: u32, registers: u32, shared: u32) -> Self {
        let warps = threads.div_ceil(WARP).max(1);
        let by_registers = match (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT) {
            // A thread cannot have more registers.
            _ if registers > 255 => 0,
            a_warp => limits.registers / PARTITIONS / a_warp * PARTITIONS / warps,
        };
        let a_block = shared.saturating_add(limits.shared_reserved).next_multiple_of(limits.shared_unit);
        let by_shared = if shared > limits.shared_per_block { 0 } else { limits.shared / a_block.max(1) };
        let candidates = [
            (limits.warps / warps, Restriction::Warps),
            (limits.blocks, Restriction::Blocks),
            (by_registers, Restriction::Registers),
            (by_shared, Restriction::Shared),
        ];
        let (blocks, restriction) =
            candidates.into_iter().min_by_key(|(blocks, _)| *blocks).unwrap_or((0, Restriction::Blocks));
        Self { blocks, warps: blocks * warps, warps_possible: limits.warps, restriction }
    }

    /// Resident warps as a fraction of the maximum.
    pub fn fraction(&self) -> f64 {
        f64::from(self.warps) / f64::from(self.warps_possible)
    }
}
