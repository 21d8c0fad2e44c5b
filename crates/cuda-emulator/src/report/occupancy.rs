//! How many blocks a multiprocessor holds at once.
//!
//! CUDA C++ Programming Guide, "Hardware Multithreading" (what the number depends on) and "Compute Capabilities"
//! (the limits); CUDA Occupancy API and Nsight Compute, "Occupancy Calculator" (granularities: registers are given to
//! warps in units of 256, in each of the four partitions of a multiprocessor apart; shared memory to blocks in
//! units of 128 bytes from compute capability 8.0, of 256 before).

use crate::device::Device;

const WARP: u32 = 32;
const PARTITIONS: u32 = 4;
const REGISTER_UNIT: u32 = 256;

/// What a multiprocessor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Warps it holds at once.
    pub warps: u32,
    /// Blocks it holds at once.
    pub blocks: u32,
    /// 32-bit registers.
    pub registers: u32,
    /// Bytes of shared memory.
    pub shared: u32,
    /// Bytes of shared memory that the system takes from each block.
    pub shared_reserved: u32,
    /// Shared memory is given out in multiples of this many bytes.
    pub shared_unit: u32,
    /// Bytes of shared memory that one block may have.
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

/// What keeps more blocks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// The warps a multiprocessor holds.
    Warps,
    /// The blocks it holds.
    Blocks,
    /// Its registers.
    Registers,
    /// Its shared memory.
    Shared,
}

/// Blocks and warps on one multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks at once; 0 when one block alone does not fit.
    pub blocks: u32,
    /// Warps at once.
    pub warps: u32,
    /// Warps that the multiprocessor could hold.
    pub warps_possible: u32,
    /// What runs out first.
    pub restriction: Restriction,
}

impl Occupancy {
    /// The occupancy of blocks of `threads`, with that many registers a thread and shared bytes a block.
    pub fn new(limits: &Limits, threads: u32, registers: u32, shared: u32) -> Self {
        let warps = threads.div_ceil(WARP).max(1);
        let by_registers = match (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT) {
            // No thread can name more.
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

    /// Warps held, of those possible: 0 to 1.
    pub fn fraction(&self) -> f64 {
        f64::from(self.warps) / f64::from(self.warps_possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(device: &Device, threads: u32, registers: u32, shared: u32) -> Occupancy {
        Occupancy::new(&Limits::from(device), threads, registers, shared)
    }

    #[test]
    fn each_resource_can_be_the_one_that_runs_out() {
        let a100 = Device::sm_80();
        let full = on(&a100, 256, 32, 0);
        assert_eq!((full.blocks, full.warps, full.restriction), (8, 64, Restriction::Warps));
        let small = on(&a100, 32, 16, 0);
        assert_eq!((small.blocks, small.restriction), (32, Restriction::Blocks));
        // 127 registers are 4096 a warp: 16 warps, 4 in each partition.
        let registers = on(&a100, 128, 127, 0);
        assert_eq!(
            (registers.blocks, registers.warps, registers.restriction),
            (4, 16, Restriction::Registers)
        );
        // 46 KiB and the reserved one: three blocks in 164 KiB.
        let shared = on(&a100, 128, 64, 46 * 1024);
        assert_eq!((shared.blocks, shared.warps, shared.restriction), (3, 12, Restriction::Shared));
    }

    #[test]
    fn a_block_that_does_not_fit_has_no_occupancy() {
        assert_eq!(on(&Device::sm_80(), 1024, 128, 0).blocks, 0);
        assert_eq!(on(&Device::sm_80(), 128, 32, 164 * 1024).blocks, 0);
        assert_eq!(on(&Device::sm_90(), 128, 32, 164 * 1024).blocks, 1);
    }
}
