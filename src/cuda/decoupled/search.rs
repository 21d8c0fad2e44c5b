//! The search for the behaviours with the highest scores.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::{Found, Ids};
use crate::cuda::decoupled::scores::{PIECES, Scoring, THREADS, cut, scoring, staged_bytes};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{check_top_k, fit};
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
        tiles: u64,
        lists: u64,
        lengths: u64,
        top_k: u32,
        room: u32,
        first_whole: u32,
        unused: u32,
        scoring: Scoring,
    }
}

twins! {
    /// `kernels/decoupled/search.cu`
    pub(in crate::cuda) struct DecoupledSelectParams {
        tiles: u64,
        lists: u64,
        lengths: u64,
        positions: u64,
        scores: u64,
        counts: u64,
        candidates: u32,
        top_k: u32,
        room: u32,
        first_whole: u32,
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
    let found = Found {
        positions: gpu.region_mut(SEARCH, &out.positions)?.pointer,
        scores: gpu.region_mut(SEARCH, &out.scores)?.pointer,
        counts: gpu.region_mut(SEARCH, &out.counts)?.pointer,
    };
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
    let operation = call.operation;
    check_top_k(operation, top_k)?;
    // A list of between K and `room` entries need not be cut.
    let room = top_k + top_k / 4;
    let most = batch.as_ref().requests().map(|(_, targets)| targets.len()).max().unwrap_or(0);
    let fits = |&&(tile, _): &&(usize, Kernel)| {
        room + THREADS as usize <= ENTRIES / tile && (tile / 2 < most || tile == 2)
    };
    let (candidates, kernel) = SEARCH_KERNELS.iter().find(fits).unwrap_or(&SEARCH_KERNELS[3]);
    let candidates = *candidates;
    let cut = cut(batch.as_ref(), candidates, PIECES * gpu.multiprocessors(), usize::MAX);
    let plan = batch.plan(gpu, operation, &cut)?;
    let tiles = plan.plan.tiles.len();
    let lists = (plan.plan.slots + tiles).saturating_mul(candidates);
    fit(operation, "lists", lists)?;
    let scoring = scoring(gpu, call, op, batch.as_ref(), attention, ids)?;
    let search = DecoupledSearchParams {
        pieces: plan.pieces.pointer(),
        tiles: plan.tiles.pointer(),
        lists: call.scratch(lists.saturating_mul(room * size_of::<u64>()))?,
        lengths: call.scratch(lists * size_of::<u32>())?,
        top_k: top_k as u32,
        room: room as u32,
        first_whole: fit(operation, "partial results", plan.plan.slots)?,
        unused: 0,
        scoring,
    };
    let shared = search_shared(scoring.vec4s as usize, candidates);
    call.launch(&kernel.blocks(plan.plan.pieces.len()).with_shared(shared), &search)?;
    let select = DecoupledSelectParams {
        tiles: search.tiles,
        lists: search.lists,
        lengths: search.lengths,
        positions: found.positions,
        scores: found.scores,
        counts: found.counts,
        candidates: candidates as u32,
        top_k: search.top_k,
        room: search.room,
        first_whole: search.first_whole,
    };
    call.launch(&SELECT.blocks(tiles * candidates), &select)
}

/// Bytes of dynamic shared memory per block of a search with so many candidates per tile: the lists, then what is staged.
pub(in crate::cuda) fn search_shared(vec4s: usize, candidates: usize) -> usize {
    staged_bytes(vec4s, candidates) + ENTRIES * size_of::<u64>() + 16 * candidates
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    SEARCH_KERNELS.iter().map(|(_, kernel)| *kernel).chain([SELECT]).collect()
}
