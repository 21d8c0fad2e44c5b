//! What a launch did.

use serde::{Deserialize, Serialize};

/// Classes of instructions, by the unit that runs them.
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
    /// Approximations of the special function unit: `ex2`, `lg2`, `rcp`, `rsqrt`, `sin`, `cos`, `tanh`, `sqrt`.
    Special,
    /// `cvt`.
    Convert,
    /// `mov`, `selp`, `cvta` and the like.
    Move,
    /// Loads from and stores to device memory.
    Global,
    /// Loads from and stores to shared memory, `ldmatrix` too.
    Shared,
    /// Local memory.
    Local,
    /// Constant memory and kernel parameters.
    Constant,
    /// Atomics and reductions on memory.
    Atomic,
    /// `cp.async` and its groups.
    AsyncCopy,
    /// Shuffles, votes, match, redux.
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

/// Sums over all warps of a launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Warp instructions of each class; index with [`Counts::of`].
    pub instructions: [u64; 17],
    /// Lanes that took part, summed over the warp instructions.
    pub lanes: u64,
    /// Sectors of 32 bytes that loads, stores, atomics and copies asked of device memory.
    pub global_sectors: u64,
    /// The fewest sectors that could hold the distinct bytes each instruction asked for.
    pub global_sectors_minimum: u64,
    /// Bytes that lanes read from device memory.
    pub global_bytes_read: u64,
    /// Bytes that lanes wrote to device memory.
    pub global_bytes_written: u64,
    /// Passes over shared memory.
    pub shared_passes: u64,
    /// Passes beyond the first that bank conflicts forced.
    pub shared_conflicts: u64,
    /// Bytes that lanes moved to and from shared memory.
    pub shared_bytes: u64,
    /// Block barriers that warps arrived at.
    pub barriers: u64,
    /// Lanes that ran atomics on device memory.
    pub global_atomics: u64,
    /// Lanes that ran atomics on shared memory.
    pub shared_atomics: u64,
    /// Multiply-adds that `mma` stands for.
    pub matrix_multiply_adds: u64,
    /// Blocks run.
    pub blocks: u64,
    /// Warps run.
    pub warps: u64,
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

    /// Adds another sum to this one.
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
    }
}
