//! Lanes of a warp that are at one instruction, and what stops them.

/// Lanes at one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
}

/// What a group waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// These other lanes of the warp to arrive at the same instruction.
    Lanes(u32),
    /// The block barrier with this number.
    Barrier(u32),
}

/// Why a warp stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Its turn is over.
    Turn,
    /// All lanes exited.
    Exited,
    /// All lanes wait.
    Blocked,
    /// It was the last to arrive at this barrier.
    Complete(u32),
}
