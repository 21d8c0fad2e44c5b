//! Options of a launch.

use serde::{Deserialize, Serialize};

/// Settings of a launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Whether initialisation, races and absent lanes are checked. Bounds and alignment are always checked.
    pub checks: bool,
    /// Whether lanes that have diverged must be made to converge, by an instruction that waits for all of them, before a
    /// matrix instruction. By default it is enough that the paths of a branch meet again, as compilers for devices see to it.
    pub explicit_convergence: bool,
    /// Whether the critical path of blocks is modelled: see [`Counts::block_clocks`](super::Counts::block_clocks).
    pub timing: bool,
    /// `Some(seed)` randomises the order of blocks and warps, and how long each warp runs before the next.
    pub schedule_seed: Option<u64>,
    /// The results of approximate instructions.
    pub approximation: Approximation,
    /// The order in which `mma` adds.
    pub mma_order: MmaOrder,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// The device's compute capability: 80 for `sm_80`.
    pub architecture: u32,
    /// Streaming multiprocessors, for `%nsmid` and `%smid`.
    pub multiprocessors: u32,
    /// Maximum shared memory per block, static plus dynamic, in bytes.
    pub shared_limit: u32,
    /// The number of warp instructions after which a block counts as hung; `None` for no limit.
    pub instruction_limit: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checks: true,
            explicit_convergence: false,
            timing: false,
            schedule_seed: None,
            approximation: Approximation::Nearest,
            mma_order: MmaOrder::Ascending,
            threads: 0,
            architecture: 80,
            multiprocessors: 108,
            shared_limit: 163 * 1024,
            instruction_limit: Some(2_000_000_000),
        }
    }
}

/// The results of approximate instructions (`ex2.approx`, `rcp.approx`, `sin.approx`, …), within the error bounds of the
/// PTX ISA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approximation {
    /// The exact result, rounded to nearest.
    Nearest,
    /// The lowest value within the error bound.
    Lowest,
    /// The highest value within the error bound.
    Highest,
    /// A value between these two, derived from the seed and the argument.
    Seeded(u64),
}

/// The order in which `mma` adds the products of an output element, which the PTX ISA does not specify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmaOrder {
    /// The accumulator first, then k = 0, 1, 2, …, rounding after each addition.
    Ascending,
    /// From the last k down to the first, the accumulator last.
    Descending,
    /// Pairwise summation, the accumulator last.
    Pairwise,
    /// Groups of four products added with truncation, as observed on tensor cores.
    Truncated,
}
