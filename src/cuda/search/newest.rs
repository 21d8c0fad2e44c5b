//! The newest behaviours with a candidate's key.

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::search::{FILE, SEARCH};
use crate::cuda::selection::Found;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::memory::View;
use crate::ops::Search;

/// A block per candidate.
const KERNEL: Kernel = Kernel::new(FILE, "search_newest", 256, 32);

twins! {
    /// `kernels/search/search.cu`
    pub(in crate::cuda) struct SearchNewestParams {
        tiles: u64,
        queries: u64,
        keys: u64,
        positions: u64,
        scores: u64,
        counts: u64,
        top_k: u32,
        unused: u32,
    }
}

pub(super) fn newest(
    gpu: &Cuda,
    op: &Search,
    batch: &CudaBatch,
    (queries, keys): (&View<'_, CudaMemory, u32>, &View<'_, CudaMemory, u32>),
    found: Found,
) -> Result<()> {
    let (queries, keys) = (gpu.region(SEARCH, queries)?.pointer, gpu.region(SEARCH, keys)?.pointer);
    let call = gpu.begin(SEARCH);
    let plan = batch.candidates(gpu, SEARCH)?;
    let params = SearchNewestParams {
        tiles: plan.tiles.pointer(),
        queries,
        keys,
        positions: found.positions,
        scores: found.scores,
        counts: found.counts,
        top_k: op.top_k as u32,
        unused: 0,
    };
    call.launch(&KERNEL.blocks(plan.plan.tiles.len()), &params)?;
    call.finish()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![KERNEL]
}
