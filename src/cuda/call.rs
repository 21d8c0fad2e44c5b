//! One call of an operation: its scratch memory and its launches.

use std::sync::{Arc, MutexGuard};

use bytemuck::Pod;

use crate::cuda::driver::{Allocation, Function};
use crate::cuda::handle::Cuda;
use crate::cuda::workspace::Workspace;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::{Bound, lock};

/// Scratch begins at multiples of this: what the widest loads need, and a line of the cache.
const ALIGNMENT: usize = 128;

/// A call under way. It holds the backend's lock, so that the launches of two threads' calls do not mix: they share
/// the workspace.
pub(super) struct Call<'a> {
    gpu: &'a Cuda,
    pub(super) operation: &'static str,
    workspace: MutexGuard<'a, Workspace>,
    taken: usize,
    /// Freed in the stream's order when the call ends.
    own: Vec<Allocation>,
}

/// A kernel and how it is launched.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// The file it is in.
    pub(super) stem: &'static str,
    pub(super) name: String,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub(super) shared: u32,
}

impl Kernel {
    pub(super) fn new(stem: &'static str, name: impl Into<String>, threads: u32) -> Self {
        Self { stem, name: name.into(), threads, shared: 0 }
    }

    pub(super) fn with_shared(self, shared: u32) -> Self {
        Self { shared, ..self }
    }
}

/// How the names of kernels call a storage type.
pub(super) fn suffix<T: Element>() -> &'static str {
    match T::DTYPE {
        crate::DType::F32 => "f32",
        crate::DType::F16 => "f16",
        crate::DType::Bf16 => "bf16",
    }
}

impl Cuda {
    /// Begins a call.
    pub(super) fn call(&self, operation: &'static str) -> Call<'_> {
        Call { gpu: self, operation, workspace: lock(&self.shared.workspace), taken: 0, own: Vec::new() }
    }
}

impl Call<'_> {
    /// The address of scratch memory, which holds anything, until the call ends.
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

    /// The address of the record for bad ids among `positions` of `argument`.
    pub(super) fn record(&self, argument: &'static str, positions: usize, bound: Bound) -> Result<u64> {
        let mut records = lock(&self.gpu.records);
        records.record(self.gpu.stream(), self.operation, argument, positions as u64, bound)
    }

    /// Enqueues a kernel.
    pub(super) fn launch<P: Pod>(&self, kernel: &Kernel, blocks: usize, params: &P) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let function = self.function::<P>(kernel)?;
        function.launch(
            self.gpu.stream(),
            self.operation,
            blocks as u64,
            kernel.threads,
            kernel.shared,
            params,
        )
    }

    fn function<P: Pod>(&self, kernel: &Kernel) -> Result<Arc<Function>> {
        let key = (kernel.stem, kernel.name.clone());
        let mut functions = lock(&self.gpu.shared.functions);
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let module = self.gpu.module(self.operation, kernel.stem)?;
        let function = Arc::new(Function::find::<P>(&module, self.operation, &kernel.name)?);
        functions.insert(key, function.clone());
        Ok(function)
    }
}
