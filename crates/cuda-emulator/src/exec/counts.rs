//! Counts of what a launch executed.

use serde::{Deserialize, Serialize};

/// Classes of instructions, by execution unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Class {
    /// Integer arithmetic, logic, shifts, comparisons of integers.
    Integer,
    /// f32 arithmetic and comparisons.
    Float,
    /// f64 arithmetic and comparisons.
    Double,
    /// f16, bf16 and packed arithmetic.
    Half,
    /// Approximations by the special function unit: `ex2`, `lg2`, `rcp`, `rsqrt`, `sin`, `cos`, `tanh`, `sqrt`.
    Special,
    /// `cvt`.
    Convert,
    /// `mov`, `selp`, `cvta` and similar.
    Move,
    /// Loads from and stores to device memory.
    Global,
    /// Loads from and stores to shared memory, including `ldmatrix`.
    Shared,
    /// Local memory.
    Local,
    /// Constant memory and kernel parameters.
    Constant,
    /// Atomics and reductions in memory.
    Atomic,
    /// `cp.async` with its commits and waits.
    AsyncCopy,
    /// Shuffle, vote, match, redux.
    Warp,
    /// `mma`.
    Matrix,
    /// Barriers and fences.
    Barrier,
    /// Branches, calls, exits.
    Control,
}

impl Class {
    /// All classes, in the order of [`Counts::instructions`].
    pub const ALL: [Self; 17] = [
        Self::Integer,
        Self::Float,
        Self::Double,
        Self::Half,
        Self::Special,
        Self::Convert,
        Self::Move,
        Self::Global,
        Self::Shared,
        Self::Local,
        Self::Constant,
        Self::Atomic,
        Self::AsyncCopy,
        Self::Warp,
        Self::Matrix,
        Self::Barrier,
        Self::Control,
    ];
}

/// Counts, summed over all warps of a launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Warp instructions per class; see [`Counts::of`].
    pub instructions: [u64; 17],
    /// Active lanes, summed over the warp instructions.
    pub lanes: u64,
    /// 32-byte sectors of device memory that loads, stores, atomics and copies requested.
    pub global_sectors: u64,
    /// The minimum number of sectors that could hold the distinct bytes requested by each instruction.
    pub global_sectors_minimum: u64,
    /// Bytes that lanes read from device memory.
    pub global_bytes_read: u64,
    /// Bytes that lanes wrote to device memory.
    pub global_bytes_written: u64,
    /// Shared memory wavefronts: passes over the banks.
    pub shared_passes: u64,
    /// Additional passes caused by bank conflicts.
    pub shared_conflicts: u64,
    /// Bytes that lanes read from and wrote to shared memory.
    pub shared_bytes: u64,
    /// Arrivals of warps at block barriers.
    pub barriers: u64,
    /// Atomics on device memory, per lane.
    pub global_atomics: u64,
    /// Atomics on shared memory, per lane.
    pub shared_atomics: u64,
    /// Multiply-adds performed by `mma`.
    pub matrix_multiply_adds: u64,
    /// Blocks executed.
    pub blocks: u64,
    /// Warps executed.
    pub warps: u64,
    /// Modelled: clocks that blocks take, each with a multiprocessor to itself, in total; 0 unless asked for.
    pub block_clocks: u64,
    /// The clocks of the block that takes longest.
    pub longest_block: u64,
}

impl Counts {
    /// Warp instructions of a class.
    pub fn of(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }

    /// All warp instructions.
    pub fn total(&self) -> u64 {
        self.instructions.iter().sum()
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.instructions.iter_mut().zip(other.instructions) {
            *a += b;
        }
        self.lanes += other.lanes;
        self.global_sectors += other.global_sectors;
        self.global_sectors_minimum += other.global_sectors_minimum;
        self.global_bytes_read += other.global_bytes_read;
        self.global_bytes_written += other.global_bytes_written;
        self.shared_passes += other.shared_passes;
        self.shared_conflicts += other.shared_conflicts;
        self.shared_bytes += other.shared_bytes;
        self.barriers += other.barriers;
        self.global_atomics += other.global_atomics;
        self.shared_atomics += other.shared_atomics;
        self.matrix_multiply_adds += other.matrix_multiply_adds;
        self.blocks += other.blocks;
        self.warps += other.warps;
        self.block_clocks += other.block_clocks;
        self.longest_block = self.longest_block.max(other.longest_block);
    }
}
