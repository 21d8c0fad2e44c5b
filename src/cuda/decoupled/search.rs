//! Scores of decoupled embeddings, and the search for the best of them.

use std::array;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Call, Kernel};
use crate::cuda::decoupled::{Found, Ids};
use crate::cuda::lookup::{COLUMNS, MOST_TABLES, TableWords, check_ids, record, tables};
use crate::cuda::memory::CudaMemory;
use crate::error::{Error, Result};
use crate::gpu::fit;
use crate::jagged::Batch;
use crate::ops::*;
use crate::plan::{Cut, FEWEST_STEPS};

const SEARCH: &str = "decoupled_search";

/// As in decoupled_scores.cuh: threads of a block, behaviours and fours of numbers that it has staged, twice, and fours
/// of queries.
pub(super) const THREADS: u32 = 128;
pub(super) const BEHAVIOURS: usize = 256;
const FOURS: usize = 4;
const QUERY_FOURS: usize = 32;
/// Entries of all lists of a block of decoupled_search.cu, and the threads that need room in each.
const ENTRIES: usize = 4096;
const SELECT_THREADS: u32 = 256;
/// The most that decoupled_select sorts with as many on their way.
const MAX_TOP_K: usize = 1024;
/// Candidates of a tile of a search.
const TILES: [usize; 4] = [16, 8, 4, 2];
/// Pieces of work a multiprocessor. Every part of a history keeps lists of its own, so there are few.
pub(super) const PIECES: usize = 2;

/// `Scoring` of decoupled_scores.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Scoring {
    pub(super) ids: u64,
    pub(super) target_ids: u64,
    pub(super) record: u64,
    pub(super) target_record: u64,
    pub(super) features: u32,
    pub(super) fours: u32,
    pub(super) tables: [TableWords; MOST_TABLES],
    pub(super) scales: [f32; MOST_TABLES],
}

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

/// What the kernels that score need, and the check of the ids that they leave unread: those of users without
/// candidates, and of candidates without a history.
pub(super) fn scoring(
    gpu: &Cuda,
    call: &Call<'_>,
    op: &Decoupled,
    batch: &Batch,
    attention: &[Table<'_, CudaMemory>],
    ids: Ids,
) -> Result<Scoring> {
    let operation = call.operation;
    if attention.len() > MOST_TABLES {
        let (needed, limit) = (attention.len() as u64, MOST_TABLES as u64);
        return Err(Error::Limit { operation, argument: "attention", needed, limit });
    }
    let (words, fours) = tables(gpu, operation, "attention", attention)?;
    let scoring = Scoring {
        ids: ids.behaviours.pointer,
        target_ids: ids.candidates.pointer,
        record: record(call, "ids", op.ids, ids.behaviours, attention)?,
        target_record: record(call, "target_ids", op.ids, ids.candidates, attention)?,
        features: words.len() as u32,
        fours,
        tables: array::from_fn(|f| words.get(f).copied().unwrap_or(Zeroable::zeroed())),
        scales: array::from_fn(|f| op.scales.get(f).copied().unwrap_or(0.0)),
    };
    if batch.requests().any(|(history, targets)| targets.is_empty() && !history.is_empty()) {
        let rows = batch.histories().total();
        check_ids(gpu, call, "ids", op.ids, ids.behaviours, rows, attention)?;
    }
    if batch.requests().any(|(history, targets)| history.is_empty() && !targets.is_empty()) {
        let rows = batch.targets().total();
        check_ids(gpu, call, "target_ids", op.ids, ids.candidates, rows, attention)?;
    }
    Ok(scoring)
}

/// Bytes of shared memory that rows and queries are staged in, for so many candidates at a time.
pub(super) fn staged_bytes(scoring: &Scoring, candidates: usize) -> u32 {
    // At most, behind the behaviours of each column of fours.
    const PADDING: usize = 4;
    let fours = scoring.fours as usize;
    let rows = 2 * FOURS.min(fours) * (BEHAVIOURS + PADDING);
    ((rows + QUERY_FOURS.min(fours) * (candidates + 1)) * COLUMNS * size_of::<f32>()) as u32
}

/// Cuts a batch into about as many pieces as are wanted, but none shorter than what a block takes at a time. Edges are a
/// quarter of a piece apart, because a plan has no shorter pieces than of [`FEWEST_STEPS`].
pub(super) fn cut(batch: &Batch, candidates: usize, wanted: usize) -> Cut {
    let rows =
        |(history, targets): (Range<usize>, Range<usize>)| history.len() * targets.len().div_ceil(candidates);
    let piece = batch.requests().map(rows).sum::<usize>() / wanted;
    let longest = FEWEST_STEPS * BEHAVIOURS;
    let step = piece.min(longest).next_power_of_two().clamp(BEHAVIOURS, longest) / FEWEST_STEPS;
    Cut { rows_per_target: 1, tile_rows: candidates, step, wanted, longest: usize::MAX }
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
    if top_k > MAX_TOP_K {
        let (needed, limit) = (top_k as u64, MAX_TOP_K as u64);
        return Err(Error::Limit { operation, argument: "top_k", needed, limit });
    }
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
