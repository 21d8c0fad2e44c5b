//! One call of an operation: its scratch memory and its launches.

use std::sync::{Arc, MutexGuard};

use bytemuck::Pod;

use crate::cuda::driver::{Allocation, Function};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{Kernel, Launch};
use crate::cuda::kernels::source_of;
use crate::cuda::workspace::Workspace;
use crate::error::Result;
use crate::gpu::{Bound, lock, trace};

/// Alignment of scratch in bytes: a cache line, which also suffices for the widest loads.
const ALIGNMENT: usize = 128;

/// A call in progress. It holds the workspace's lock, so that launches of two threads' calls do not interleave: they
/// share the workspace.
pub(super) struct Call<'a> {
    gpu: &'a Cuda,
    pub(super) operation: &'static str,
    workspace: MutexGuard<'a, Workspace>,
    taken: usize,
    /// Freed in stream order when the call ends.
    own: Vec<Allocation>,
}

/// How much scratch memory a call has taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    taken: usize,
    own: usize,
}

impl Cuda {
    /// Starts a call.
    pub(super) fn call(&self, operation: &'static str) -> Call<'_> {
        Call { gpu: self, operation, workspace: lock(&self.shared.workspace), taken: 0, own: Vec::new() }
    }
}

impl Call<'_> {
    /// The address of uninitialised scratch memory, valid until the call ends.
    pub(super) fn scratch(&mut self, bytes: usize) -> Result<u64> {
        let start = self.taken;
        self.taken = start.saturating_add(bytes.next_multiple_of(ALIGNMENT));
        self.workspace.most = self.workspace.most.max(self.taken);
        if let Some(buffer) = &self.workspace.buffer {
            let first = buffer.device_pointer().next_multiple_of(ALIGNMENT as u64);
            let lost = (first - buffer.device_pointer()) as usize;
            if self.taken <= buffer.len().saturating_sub(lost) {
                return Ok(first + start as u64);
            }
        }
        let own = Allocation::new(self.gpu.stream(), self.operation, bytes)?;
        let pointer = own.pointer();
        self.own.push(own);
        Ok(pointer)
    }

    /// The scratch memory taken so far.
    pub(super) fn mark(&self) -> Mark {
        Mark { taken: self.taken, own: self.own.len() }
    }

    /// Gives back what was taken since: launches from now on may use it, after those before.
    pub(super) fn give_back(&mut self, mark: Mark) {
        self.taken = mark.taken;
        self.own.truncate(mark.own);
    }

    /// The address of the record for ids out of range among `positions` of `argument`.
    pub(super) fn record(&self, argument: &'static str, positions: usize, bound: Bound) -> Result<u64> {
        let mut records = lock(&self.gpu.records);
        records.record(self.gpu.stream(), self.operation, argument, positions as u64, bound)
    }

    /// Enqueues a kernel. A grid without blocks does nothing.
    pub(super) fn launch<P: Pod>(&self, launch: &Launch, params: &P) -> Result<()> {
        if launch.blocks == 0 {
            return Ok(());
        }
        let function = self.function::<P>(&launch.kernel)?;
        trace(|| self.describe(launch));
        let Launch { blocks, threads, shared, .. } = *launch;
        function.launch(self.gpu.stream(), self.operation, blocks as u64, threads, shared, params)
    }

    /// The line of a launch in the trace.
    fn describe(&self, launch: &Launch) -> String {
        let Launch { kernel, blocks, threads, shared } = launch;
        let Kernel { file, symbol, .. } = kernel;
        let (operation, source, scratch) = (self.operation, source_of(file), self.taken);
        format!(
            "{operation}: {symbol} (kernels/{source}): {blocks} blocks of {threads} threads, \
             {shared} bytes of dynamic shared memory, {scratch} bytes of scratch"
        )
    }

    fn function<P: Pod>(&self, kernel: &Kernel) -> Result<Arc<Function>> {
        let key = (kernel.file, kernel.symbol);
        let mut functions = lock(&self.gpu.shared.functions);
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let module = self.gpu.module(self.operation, kernel.file)?;
        let function = Arc::new(Function::find::<P>(&module, self.operation, kernel.symbol)?);
        functions.insert(key, function.clone());
        Ok(function)
    }
}
