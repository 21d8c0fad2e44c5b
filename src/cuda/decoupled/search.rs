//! The search for the behaviours with the highest scores.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::Ids;
use crate::cuda::decoupled::scores::{Scoring, scoring, staged_bytes};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{Found, Keeping, KeptLists, THREADS, list_bytes, room};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::check_top_k;
use crate::ops::*;

const SEARCH: &str = "decoupled_search";
/// The search by candidates per tile, largest first.
static SEARCH_KERNELS: [(usize, Kernel); 4] = [
    (16, Kernel::new("decoupled_search", "decoupled_search_16", THREADS, 98)),
    (8, Kernel::new("decoupled_search", "decoupled_search_8", THREADS, 80)),
    (4, Kernel::new("decoupled_search", "decoupled_search_4", THREADS, 89)),
    (2, Kernel::new("decoupled_search", "decoupled_search_2", THREADS, 72)),
];
/// Selects the best of the lists of all pieces.
const SELECT: Kernel = Kernel::new("decoupled_search", "decoupled_select", 256, 60);
/// Entries of all lists of a block in `kernels/decoupled/search.cu`.
const ENTRIES: usize = 4096;

twins! {
    /// `kernels/decoupled/search.cu`
    pub(in crate::cuda) struct DecoupledSearchParams {
        pieces: u64,
        kept: KeptLists,
        scoring: Scoring,
    }
}

pub(super) fn search(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    inputs: &SearchInputs<'_, CudaMemory>,
    out: SelectionMut<'_, CudaMemory>,
) -> Result<()> {
    let top_k = op.check_search(batch.as_ref(), inputs)?;
    op.check_search_outputs(batch.as_ref(), top_k, &out)?;
    let found = Found::of(gpu, SEARCH, &out)?;
    let ids = Ids::of(gpu, SEARCH, inputs)?;
    let mut call = gpu.begin(SEARCH);
    search_into(gpu, &mut call, op, top_k, batch, inputs.attention, ids, found)?;
    call.finish()
}

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
pub(super) fn search_into(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Decoupled,
    top_k: usize,
    batch: &CudaBatch,
    attention: &[Table<'_, CudaMemory>],
    ids: Ids,
    found: Found,
) -> Result<()> {
    check_top_k(call.operation, top_k)?;
    let most = batch.as_ref().requests().map(|(_, targets)| targets.len()).max().unwrap_or(0);
    let fits = |&&(tile, _): &&(usize, Kernel)| {
        room(top_k) + THREADS as usize <= ENTRIES / tile && (tile / 2 < most || tile == 2)
    };
    let (candidates, kernel) = SEARCH_KERNELS.iter().find(fits).unwrap_or(&SEARCH_KERNELS[3]);
    let keeping = Keeping::new(gpu, call, batch, *candidates, top_k)?;
    let scoring = scoring(gpu, call, op, batch.as_ref(), attention, ids)?;
    let (pieces, blocks) = keeping.pieces();
    let search = DecoupledSearchParams { pieces, kept: keeping.kept, scoring };
    let shared = search_shared(scoring.vec4s as usize, *candidates);
    call.launch(&kernel.blocks(blocks).with_shared(shared), &search)?;
    keeping.select(call, &SELECT.blocks(keeping.selections()), found)
}

/// Bytes of dynamic shared memory per block of a search with so many candidates per tile: the lists, then what is staged.
pub(in crate::cuda) fn search_shared(vec4s: usize, candidates: usize) -> usize {
    staged_bytes(vec4s, candidates) + list_bytes(candidates, ENTRIES)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    SEARCH_KERNELS.iter().map(|(_, kernel)| *kernel).chain([SELECT]).collect()
}
