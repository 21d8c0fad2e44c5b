//! The search for the behaviours with the highest scores.

use bytemuck::{Pod, Zeroable};

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Call, Kernel};
use crate::cuda::decoupled::rows::{Found, Ids};
use crate::cuda::decoupled::scores::{PIECES, Scoring, THREADS, cut, scoring, staged_bytes};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::error::Result;
use crate::gpu::{check_top_k, fit};
use crate::ops::*;

const SEARCH: &str = "decoupled_search";
/// Entries of all lists of a block of decoupled_search.cu, and the threads that need room in each.
const ENTRIES: usize = 4096;
const SELECT_THREADS: u32 = 256;
/// Candidates of a tile of a search.
const TILES: [usize; 4] = [16, 8, 4, 2];

/// `SearchParams` of decoupled_search.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct SearchParams {
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

/// `SelectParams` of decoupled_search.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct SelectParams {
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
    search_into(gpu, &mut gpu.call(SEARCH), op, top_k, batch, inputs.attention, ids, found)
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
    // Between K and room a list can be left as it is.
    let room = top_k + top_k / 4;
    let most = batch.as_ref().requests().map(|(_, targets)| targets.len()).max().unwrap_or(0);
    let fits = |&tile: &usize| room + THREADS as usize <= ENTRIES / tile && (tile / 2 < most || tile == 2);
    let candidates = TILES.into_iter().find(fits).unwrap_or(2);
    let cut = cut(batch.as_ref(), candidates, PIECES * gpu.multiprocessors());
    let plan = batch.plan(gpu, operation, &cut)?;
    let tiles = plan.plan.tiles.len();
    let lists = (plan.plan.slots + tiles).saturating_mul(candidates);
    fit(operation, "lists", lists)?;
    let scoring = scoring(gpu, call, op, batch.as_ref(), attention, ids)?;
    let search = SearchParams {
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
    let kernel = Kernel::new("decoupled_search", format!("decoupled_search_{candidates}"), THREADS)
        .with_shared(
            staged_bytes(&scoring, candidates) + (ENTRIES * size_of::<u64>() + 16 * candidates) as u32,
        );
    call.launch(&kernel, plan.plan.pieces.len(), &search)?;
    let select = SelectParams {
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
    let kernel = Kernel::new("decoupled_search", "decoupled_select", SELECT_THREADS);
    call.launch(&kernel, tiles * candidates, &select)
}
