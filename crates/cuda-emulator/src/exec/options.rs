//! How a launch is run and checked.

use serde::{Deserialize, Serialize};

/// Settings of a launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Whether initialisation, races and absent lanes are checked. Bounds and alignment always are.
    pub checks: bool,
    /// `Some(seed)` shuffles the order of blocks, of warps, and how long each runs before the next.
    pub schedule_seed: Option<u64>,
    /// What approximate instructions return.
    pub approximation: Approximation,
    /// In which order `mma` sums.
    pub mma_order: MmaOrder,
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// The device's compute capability: 80 for `sm_80`.
    pub architecture: u32,
    /// Streaming multiprocessors, for `%nsmid` and `%smid`.
    pub multiprocessors: u32,
    /// Shared memory a block may have in all, in bytes (static plus dynamic).
    pub shared_limit: u32,
    /// Warp instructions that one block may run before it counts as hung; `None` for no limit.
    pub instruction_limit: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checks: true,
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

/// What the approximate instructions (`ex2.approx`, `rcp.approx`, `sin.approx`, …) return inside the error that
/// the PTX document allows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approximation {
    /// The exact result, rounded.
    Nearest,
    /// The lowest value the documented error allows.
    Lowest,
    /// The highest value the documented error allows.
    Highest,
    /// A value between the two, drawn for each argument from the seed.
    Seeded(u64),
}

/// The order in which `mma` adds the products of one output element. The document leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmaOrder {
    /// The accumulator first, then k = 0, 1, 2, … each rounded.
    Ascending,
    /// From the last k down, the accumulator last.
    Descending,
    /// Pairs, pairs of pairs, then the accumulator.
    Pairwise,
    /// Groups of four products summed with truncation, as tensor cores are seen to do.
    Truncated,
}
