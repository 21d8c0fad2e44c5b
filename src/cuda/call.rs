//! One call of an operation: its scratch memory and its launches.
//!
//! Launches are kept until the call [finishes](Call::finish). A call that cannot have all its scratch memory, or whose kernels cannot be
//! loaded, has then enqueued nothing, and no output has been written.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use bytemuck::Pod;

use crate::cuda::driver::{Allocation, Arguments, Function, clear};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{Kernel, Launch};
use crate::cuda::kernels::source_of;
use crate::cuda::memory::Region;
use crate::cuda::workspace::Workspace;
use crate::element::Scalar;
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
    /// Freed in stream order when the call ends, after its launches.
    own: Vec<Own>,
    launches: RefCell<Vec<Kept>>,
}

/// Memory that the call has allocated itself.
struct Own {
    allocation: Allocation,
    /// Later launches may use it.
    is_free: bool,
}

/// What is enqueued when the call finishes.
enum Kept {
    /// A launch that everything has been prepared for.
    Launch { function: Arc<Function>, blocks: u64, threads: u32, shared: u32, arguments: Arguments },
    /// Bytes of 0 from an address on.
    Zeros { pointer: u64, bytes: usize },
}

impl Cuda {
    /// Begins a call, which does nothing unless it [finishes](Call::finish).
    pub(super) fn begin(&self, operation: &'static str) -> Call<'_> {
        let workspace = lock(&self.shared.workspace);
        Call { gpu: self, operation, workspace, taken: 0, own: Vec::new(), launches: RefCell::default() }
    }
}

impl Call<'_> {
    /// The address of uninitialised scratch memory, valid until the call ends.
    pub(super) fn scratch(&mut self, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            // Nothing is read or written there; 0 would say that there is no such argument.
            return Ok(ALIGNMENT as u64);
        }
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
        let holds = |own: &&mut Own| own.is_free && own.allocation.bytes() >= bytes;
        if let Some(own) = self.own.iter_mut().filter(holds).min_by_key(|own| own.allocation.bytes()) {
            own.is_free = false;
            return Ok(own.allocation.pointer());
        }
        let allocation = Allocation::new(self.gpu.stream(), self.operation, bytes)?;
        let pointer = allocation.pointer();
        self.own.push(Own { allocation, is_free: false });
        Ok(pointer)
    }

    /// Takes scratch memory in `parts`, one after the other: launches of each may use what those before it used, and what is taken before
    /// all of them is kept. Sizes of parts differ little.
    pub(super) fn parts<P>(
        &mut self,
        parts: impl IntoIterator<Item = P>,
        mut part: impl FnMut(&mut Self, P) -> Result<()>,
    ) -> Result<()> {
        let (taken, kept) = (self.taken, self.own.len());
        for each in parts {
            self.taken = taken;
            self.own[kept..].iter_mut().for_each(|own| own.is_free = true);
            part(self, each)?;
        }
        Ok(())
    }

    /// The address of the record for ids out of range among `positions` of `argument`.
    pub(super) fn record(&self, argument: &'static str, positions: usize, bound: Bound) -> Result<u64> {
        let mut records = lock(&self.gpu.records);
        records.record(self.gpu.stream(), self.operation, argument, positions as u64, bound)
    }

    /// Launches a kernel when the call finishes. A grid without blocks does nothing.
    pub(super) fn launch<P: Pod>(&self, launch: &Launch, params: &P) -> Result<()> {
        if launch.blocks == 0 {
            return Ok(());
        }
        let function = self.function::<P>(&launch.kernel)?;
        trace(|| self.describe(launch));
        let Launch { blocks, threads, shared, .. } = *launch;
        let blocks = blocks as u64;
        function.prepare(self.operation, blocks, shared)?;
        let arguments = Arguments::new(params);
        self.launches.borrow_mut().push(Kept::Launch { function, blocks, threads, shared, arguments });
        Ok(())
    }

    /// Sets rows of `width` numbers to zero when the call finishes, where the region is asked for: rows in gaps between histories have
    /// gradients of zero.
    pub(super) fn clear_rows<T: Scalar>(&self, rows: &[Range<usize>], region: Region<T>, width: usize) {
        if region.pointer == 0 || rows.is_empty() {
            return;
        }
        let row = width * size_of::<T>();
        let zeros = |rows: &Range<usize>| Kept::Zeros {
            pointer: region.pointer + (rows.start * row) as u64,
            bytes: rows.len() * row,
        };
        self.launches.borrow_mut().extend(rows.iter().map(zeros));
    }

    /// Enqueues all launches of the call.
    pub(super) fn finish(&self) -> Result<()> {
        let stream = self.gpu.stream();
        self.launches.take().iter_mut().try_for_each(|kept| match kept {
            Kept::Launch { function, blocks, threads, shared, arguments } => {
                function.launch(stream, self.operation, *blocks, *threads, *shared, arguments)
            }
            Kept::Zeros { pointer, bytes } => clear(stream, self.operation, *pointer, *bytes),
        })
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
