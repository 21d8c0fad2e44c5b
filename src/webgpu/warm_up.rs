//! Compiles kernels before calls need them.

use crate::error::Result;
use crate::webgpu::all_kernels;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl Wgpu {
    /// Compiles the kernels that are wanted and that this device takes, and returns how many there were that it had not.
    pub(super) fn compile(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        let compiled = self.shared.pipelines.keys();
        let is_missing = |kernel: &Kernel| {
            let key = kernel.key();
            compiled.binary_search(&key).is_err() && is_wanted(&key)
        };
        let takes = |kernel: &Kernel| self.shared.uses_subgroups || !kernel.needs_subgroups();
        let missing: Vec<_> = all_kernels().into_iter().filter(takes).filter(is_missing).collect();
        on_all_threads(&missing, |kernel| self.pipeline("warm_up", kernel).map(drop))?;
        Ok(missing.len())
    }
}

/// Does `work` for each item, on as many threads as there are processors.
#[cfg(not(target_arch = "wasm32"))]
fn on_all_threads<I: Sync>(items: &[I], work: impl Fn(&I) -> Result<()> + Sync) -> Result<()> {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    // The first error ends its thread, and the others soon after.
    let take_turns = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take_turns)).collect();
        let own = take_turns();
        let joined = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.fold(own, Result::and)
    })
}

/// Does `work` for each item: there are no threads.
#[cfg(target_arch = "wasm32")]
fn on_all_threads<I>(items: &[I], work: impl Fn(&I) -> Result<()>) -> Result<()> {
    items.iter().try_for_each(work)
}
