//! Graphs: what a capture recorded, the memory that it allocates, and what it needs alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::abi::Handle;
use super::context::Context;
use super::entry::Call;
use super::host_memory;
use super::launch::{self, Work};
use super::module::Module;
use super::session::Session;
use super::stream::Stream;
use crate::error::CudaError;
use crate::exec::FindingKind;

/// Something that a node names by its address. It must exist whenever the graph is launched.
#[derive(Debug, Clone)]
enum Named {
    /// The device memory that starts here.
    Memory(u64),
    /// A block of page-locked host memory.
    Pinned(host_memory::Block),
    /// The module of a kernel.
    Module(Arc<Module>),
}

/// A node: a unit of work, and what it names.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) work: Work,
    named: Vec<Named>,
}

impl Node {
    /// Parameters are bytes: every word of 64 bits that is an address in device memory counts as naming that memory.
    pub(super) fn new(session: &Session, work: Work) -> Self {
        let mut named = Vec::new();
        let mut memory = |address| named.extend(session.memory.holder(address).map(Named::Memory));
        match &work {
            Work::Launch { function, parameters, .. } => {
                for word in parameters.chunks_exact(8) {
                    memory(u64::from_le_bytes(word.try_into().unwrap_or_default()));
                }
                named.push(Named::Module(Arc::clone(&function.module)));
            }
            Work::HostToDevice { to: device, host, .. } | Work::DeviceToHost { from: device, host, .. } => {
                memory(*device);
                let block = host.address().and_then(host_memory::block);
                named.extend(block.map(Named::Pinned));
            }
            Work::DeviceToDevice { to, from, .. } => {
                memory(*to);
                memory(*from);
            }
            Work::Fill { to, .. } => memory(*to),
            _ => {}
        }
        Self { work, named }
    }

    /// Why the node cannot run any more, if so.
    fn missing(&self, session: &Session) -> Option<(Option<u64>, String)> {
        self.named.iter().find_map(|named| match named {
            Named::Memory(start) if session.memory.holder(*start).is_none() => {
                Some((Some(*start), format!("device memory {}", session.memory.describe(*start))))
            }
            Named::Pinned(block) if host_memory::block(block.address).as_ref() != Some(block) => {
                Some((Some(block.address), "page-locked host memory, which was freed".to_owned()))
            }
            Named::Module(module) if module.is_unloaded() => {
                Some((None, "the kernel's module, which was unloaded".to_owned()))
            }
            _ => None,
        })
    }
}

/// Memory that a graph allocates, at the same addresses at every launch. The addresses are given up with the last graph
/// that contains the allocation.
#[derive(Debug)]
pub(super) struct GraphMemory {
    session: Arc<Session>,
    pub(super) address: u64,
}

impl GraphMemory {
    pub(super) fn new(session: &Arc<Session>, address: u64) -> Self {
        Self { session: Arc::clone(session), address }
    }
}

impl Drop for GraphMemory {
    fn drop(&mut self) {
        self.session.memory.give_up(self.address);
    }
}

/// What a capture recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    pub(super) list: Vec<Arc<Node>>,
    pub(super) memory: Vec<Arc<GraphMemory>>,
}

/// A graph: a sequence of work.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) nodes: Nodes,
    /// Whether there is an executable graph of it. Only one may exist of a graph that allocates memory.
    pub(super) instantiated: Arc<AtomicBool>,
}

/// A graph that can be launched.
#[derive(Debug)]
pub(super) struct GraphExec {
    pub(super) handle: Handle,
    pub(super) context: Arc<Context>,
    pub(super) nodes: Nodes,
    /// Whether memory that an earlier launch has left allocated is freed by the next (`AUTO_FREE_ON_LAUNCH`).
    pub(super) frees: bool,
    pub(super) instance: Arc<AtomicBool>,
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        self.instance.store(false, Ordering::Release);
    }
}

impl GraphExec {
    /// Submits the nodes to a stream, unless something that they name does not exist any more.
    pub(super) fn launch(&self, call: &Call, stream: &Stream) -> Result<(), CudaError> {
        let session = &self.context.session;
        for node in &self.nodes.list {
            if let Some((address, what)) = node.missing(session) {
                let (kind, message) = (FindingKind::UseAfterFree, format!("the graph names {what}"));
                let finding = launch::finding(call, &self.context, &node.work, kind, address, message);
                return launch::fail(&self.context, finding);
            }
        }
        if !self.nodes.memory.is_empty() && session.queues(call) {
            // Whether its memory is free is known when earlier launches are done.
            session.queue.finish(call, Some(&self.context));
        }
        for memory in &self.nodes.memory {
            if session.memory.allocation(memory.address).is_none() {
                continue;
            }
            if !self.frees {
                let what = "memory that an earlier launch of the graph allocated is still allocated";
                return Err(call.misuse(CudaError::InvalidValue, what));
            }
            stream.submit(call, Work::Free { address: memory.address })?;
        }
        for node in &self.nodes.list {
            stream.submit(call, node.work.clone())?;
        }
        Ok(())
    }
}
