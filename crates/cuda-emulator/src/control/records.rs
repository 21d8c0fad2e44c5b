//! What the emulator records about a session: launches, misuse of the API, allocations, leaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::CudaError;
use crate::exec::Counts;

/// One launch that completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchCounts {
    /// The kernel's name.
    pub kernel: String,
    /// Grid dimensions in blocks.
    pub grid: [u32; 3],
    /// Block dimensions in threads.
    pub block: [u32; 3],
    /// Dynamic shared memory of the launch in bytes.
    pub dynamic_shared_bytes: u32,
    /// Statically declared shared memory in bytes.
    pub static_shared_bytes: u32,
    /// What the launch did.
    pub counts: Counts,
}

/// A driver call that the emulator rejected because of a mistake of the caller (not because of an injected fault).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misuse {
    /// The driver function.
    pub call: String,
    /// What it returned.
    pub error: CudaError,
    /// What was wrong; for PTX this names the line and the opcode.
    pub message: String,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.call, self.error, self.message)
    }
}

/// How memory was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocationKind {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync` and `cuMemAllocFromPoolAsync`.
    Pool,
    /// An allocation of a graph.
    Graph,
    /// Page-locked host memory.
    Host,
}

/// Memory that is allocated and not freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveAllocation {
    /// How it was allocated.
    pub kind: AllocationKind,
    /// Address of its first byte, on the device or the host.
    pub address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Number of the allocation within the session, from 1.
    pub serial: u64,
}

/// Everything a session holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveObjects {
    /// Memory, in order of allocation.
    pub allocations: Vec<LiveAllocation>,
    /// Contexts, including the primary one.
    pub contexts: usize,
    /// Created streams, without the default streams.
    pub streams: usize,
    /// Events.
    pub events: usize,
    /// Modules.
    pub modules: usize,
    /// Graphs and executable graphs.
    pub graphs: usize,
    /// Created memory pools, without the default pool.
    pub pools: usize,
}

impl LiveObjects {
    /// Whether nothing is left except contexts.
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
