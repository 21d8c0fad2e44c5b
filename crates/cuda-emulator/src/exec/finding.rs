//! Reports of failed checks.

use serde::{Deserialize, Serialize};

use crate::memory::AllocationInfo;
use std::fmt;

/// The check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FindingKind {
    /// An access to device memory outside all allocations, or to a generic address outside all windows.
    OutOfBounds,
    /// An access to freed device memory.
    UseAfterFree,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// An access past the end of the block's shared memory.
    SharedOutOfRange,
    /// An access past the end of the thread's local memory or of the kernel's parameters.
    LocalOutOfRange,
    /// A read of bytes that were never written.
    Uninitialised,
    /// Two threads access the same bytes of shared memory, at least one of them writing, with no barrier in between.
    SharedRace,
    /// The same in device memory.
    GlobalRace,
    /// A store to constant memory or to a kernel's parameters.
    ReadOnly,
    /// A barrier that not all threads reach, or that lanes of a warp reach at different instructions.
    DivergentBarrier,
    /// A `.sync` instruction whose membermask names lanes that never arrive, or omits one that executes it.
    AbsentLane,
    /// An access to shared memory that is the destination of a pending `cp.async`.
    UnfinishedCopy,
    /// `trap` or a failed `assert`.
    Trap,
    /// The block has reached its instruction limit, or no warp can continue.
    Hang,
    /// The result of the instruction is undefined for these operands.
    Undefined,
    /// The program freed or changed host memory that a copy had yet to read or write.
    HostMemory,
}

impl FindingKind {
    /// Whether the address of such a finding is always in device memory.
    pub(crate) fn is_about_device_memory(self) -> bool {
        matches!(self, Self::OutOfBounds | Self::UseAfterFree | Self::GlobalRace)
    }
}

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub kind: FindingKind,
    /// The kernel's name; for work that is not a kernel, what it is.
    pub kernel: String,
    /// Line in the PTX text, counting from 1; 0 if the finding is about the work as a whole.
    pub line: u32,
    /// The text of that line; for work as a whole, the driver function that ran it.
    pub text: String,
    /// Block index in x, y, z.
    pub block: [u32; 3],
    /// Thread index in x, y, z.
    pub thread: [u32; 3],
    /// The address in the state space of the instruction, if there is one.
    pub address: Option<u64>,
    /// The allocation that contains the address or is nearest to it.
    pub allocation: Option<AllocationInfo>,
    /// A description of what happened.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{:?} in {}, {}", self.kind, self.kernel, self.text)?;
        } else {
            write!(
                f,
                "{:?} in {} at PTX line {} `{}`, block {:?}, thread {:?}",
                self.kind, self.kernel, self.line, self.text, self.block, self.thread
            )?;
        }
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        if let Some(a) = &self.allocation {
            write!(f, ", allocation #{} of {} bytes at {:#x}", a.serial, a.bytes, a.address)?;
        }
        write!(f, ": {}", self.message)
    }
}
