//! What a check reports.

use serde::{Deserialize, Serialize};

use crate::memory::AllocationInfo;
use std::fmt;

/// The check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FindingKind {
    /// Device memory outside every allocation, or a generic address in no window.
    OutOfBounds,
    /// Device memory that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// Shared memory beyond the block's.
    SharedOutOfRange,
    /// Local or parameter memory beyond the thread's.
    LocalOutOfRange,
    /// A read of bytes that nothing wrote.
    Uninitialised,
    /// Two threads on the same bytes of shared memory without a barrier between, one of them writing.
    SharedRace,
    /// The same in device memory.
    GlobalRace,
    /// A store to constant memory or to a kernel's parameters.
    ReadOnly,
    /// A barrier that not all threads reach, or that lanes of a warp reach at different places.
    DivergentBarrier,
    /// A `.sync` instruction whose mask names lanes that never arrive, or leaves out one that does.
    AbsentLane,
    /// A read of shared memory that a `cp.async` not yet waited for will write.
    UnfinishedCopy,
    /// `trap` or a failed `assert`.
    Trap,
    /// The block used up its instruction limit, or no warp can go on.
    Hang,
    /// The result of the instruction is undefined for these operands.
    Undefined,
}

impl FindingKind {
    /// Whether the address of the finding is one of device memory, always.
    pub(crate) fn is_about_device_memory(self) -> bool {
        matches!(self, Self::OutOfBounds | Self::UseAfterFree | Self::GlobalRace)
    }
}

/// A failed check: what, where, who.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub kind: FindingKind,
    /// The kernel's name.
    pub kernel: String,
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// The text of that line.
    pub text: String,
    /// Block index in x, y, z.
    pub block: [u32; 3],
    /// Thread index in x, y, z.
    pub thread: [u32; 3],
    /// The address, in the space of the instruction, where there is one.
    pub address: Option<u64>,
    /// The allocation that holds the address or is nearest to it.
    pub allocation: Option<AllocationInfo>,
    /// What happened, in words.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} in {} at PTX line {} `{}`, block {:?}, thread {:?}",
            self.kind, self.kernel, self.line, self.text, self.block, self.thread
        )?;
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        if let Some(a) = &self.allocation {
            write!(f, ", allocation #{} of {} bytes at {:#x}", a.serial, a.bytes, a.address)?;
        }
        write!(f, ": {}", self.message)
    }
}
