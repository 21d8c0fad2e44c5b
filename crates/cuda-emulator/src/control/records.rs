//! What the emulator tells a test about a session: launches, failed checks, calls, leaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::CudaError;
use crate::exec::Counts;

/// One launch that ran to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchCounts {
    /// The kernel's name.
    pub kernel: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of the launch in bytes.
    pub dynamic_shared_bytes: u32,
    /// Shared memory that the kernel declares, in bytes.
    pub static_shared_bytes: u32,
    /// What the launch did.
    pub counts: Counts,
}

/// A driver call that the emulator refused for the caller's mistake (not for an injected fault).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misuse {
    /// The driver function.
    pub call: String,
    /// What it returned.
    pub error: CudaError,
    /// What was wrong, in words; for PTX the line and the opcode.
    pub message: String,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.call, self.error, self.message)
    }
}

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocationKind {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync` and `cuMemAllocFromPoolAsync`.
    Pool,
    /// Page-locked host memory.
    Host,
}

/// Memory that is allocated and not freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveAllocation {
    /// Where it comes from.
    pub kind: AllocationKind,
    /// Its first byte, on the device or the host.
    pub address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Which allocation of the session it was, from 1.
    pub serial: u64,
}

/// Everything a session holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveObjects {
    /// Memory, by the order of allocation.
    pub allocations: Vec<LiveAllocation>,
    /// Contexts, the primary one included.
    pub contexts: usize,
    /// Streams that were created (the default streams do not count).
    pub streams: usize,
    /// Events.
    pub events: usize,
    /// Modules.
    pub modules: usize,
    /// Graphs and executable graphs.
    pub graphs: usize,
    /// Memory pools that were created (the default pool does not count).
    pub pools: usize,
}

impl LiveObjects {
    /// Whether nothing is left but, at most, contexts.
    pub fn is_empty_but_for_contexts(&self) -> bool {
        Self { contexts: 0, ..self.clone() } == Self::default()
    }
}

impl fmt::Display for LiveObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocations, contexts, streams, events, modules, graphs, pools } = self;
        write!(
            f,
            "{} allocations, {contexts} contexts, {streams} streams, {events} events, {modules} modules, {graphs} graphs, {pools} pools",
            allocations.len()
        )?;
        for LiveAllocation { kind, address, bytes, serial } in allocations {
            write!(f, "\n  allocation #{serial} ({kind:?}) of {bytes} bytes at {address:#x}")?;
        }
        Ok(())
    }
}
