//! Decoupled embeddings: searches in one table, aggregates from another.

use std::array;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::cuda::batch::{CudaBatch, NONE};
use crate::cuda::call::{Call, Kernel};
use crate::cuda::faults::Bound;
use crate::cuda::lookup::{COLUMNS, MOST_TABLES, TableWords, check_ids, record, tables};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::{Cuda, fit};
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::ViewMut;
use crate::ops::*;
use crate::plan::{Cut, FEWEST_STEPS};

const SEARCH: &str = "decoupled_search";
const AGGREGATE: &str = "decoupled_aggregate";
const ATTEND: &str = "decoupled_attend";

/// As in decoupled_scores.cuh: threads of a block, behaviours and fours of numbers that it has staged, twice, and fours
/// of queries.
const THREADS: u32 = 128;
const BEHAVIOURS: usize = 256;
const FOURS: usize = 4;
const QUERY_FOURS: usize = 32;
/// Entries of all lists of a block of decoupled_search.cu, and the threads that need room in each.
const ENTRIES: usize = 4096;
const SELECT_THREADS: u32 = 256;
/// The most that decoupled_select sorts with as many on their way.
const MAX_TOP_K: usize = 1024;
/// Candidates of a tile of a search.
const TILES: [usize; 4] = [16, 8, 4, 2];
/// Candidates and fours of columns of a block of decoupled_attend.cu.
const CANDIDATES: usize = 16;
const ROW_FOURS: usize = 32;
/// `Weighing` there.
const WEIGHING_BYTES: u32 = (BEHAVIOURS as u32 * 20 + 11 * 16) * 4;
/// Pieces of work a multiprocessor. Every part of a history keeps lists of its own, so there are few.
const PIECES: usize = 2;
/// Bytes that partial sums may take.
const PARTIAL_BYTES: usize = 64 << 20;

/// `Scoring` of decoupled_scores.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Scoring {
    ids: u64,
    target_ids: u64,
    record: u64,
    target_record: u64,
    features: u32,
    fours: u32,
    tables: [TableWords; MOST_TABLES],
    scales: [f32; MOST_TABLES],
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

/// `Rows` of decoupled_rows.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Rows {
    ids: u64,
    target_ids: u64,
    out: u64,
    out_width: u64,
    features: u32,
    first_feature: u32,
    count: u32,
    fours: u32,
    tables: [TableWords; MOST_TABLES],
    first_columns: [u32; MOST_TABLES],
}

/// `AggregateParams` of decoupled.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct AggregateParams {
    tiles: u64,
    positions: u64,
    scores: u64,
    counts: u64,
    bad_counts: u64,
    bad_positions: u64,
    top_k: u32,
    unused: u32,
    rows: Rows,
}

/// `AttendParams` of decoupled_attend.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct AttendParams {
    pieces: u64,
    merges: u64,
    sums: u64,
    totals: u64,
    column_blocks: u32,
    unused: u32,
    scoring: Scoring,
    rows: Rows,
}

/// The ids of behaviours and candidates.
#[derive(Clone, Copy)]
struct Ids {
    behaviours: Region<u32>,
    candidates: Region<u32>,
}

impl Ids {
    fn of(gpu: &Cuda, operation: &'static str, inputs: &SearchInputs<'_, CudaMemory>) -> Result<Self> {
        let behaviours = gpu.region(operation, &inputs.ids)?;
        let candidates = gpu.region(operation, &inputs.target_ids)?;
        Ok(Self { behaviours, candidates })
    }
}

/// A selection in device memory.
#[derive(Clone, Copy)]
struct Found {
    positions: u64,
    scores: u64,
    counts: u64,
}

/// What the kernels that score need, and the check of the ids that they leave unread: those of users without
/// candidates, and of candidates without a history.
fn scoring(
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
fn staged_bytes(scoring: &Scoring, candidates: usize) -> u32 {
    // At most, behind the behaviours of each column of fours.
    const PADDING: usize = 4;
    let fours = scoring.fours as usize;
    let rows = 2 * FOURS.min(fours) * (BEHAVIOURS + PADDING);
    ((rows + QUERY_FOURS.min(fours) * (candidates + 1)) * COLUMNS * size_of::<f32>()) as u32
}

/// Cuts a batch into about as many pieces as are wanted, but none shorter than what a block takes at a time. Edges are a
/// quarter of a piece apart, because a plan has no shorter pieces than of [`FEWEST_STEPS`].
fn cut(batch: &Batch, candidates: usize, wanted: usize) -> Cut {
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
fn search_into(
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

/// The representation tables, as many as a launch has room for at a time.
fn rows(
    gpu: &Cuda,
    operation: &'static str,
    op: &Decoupled,
    representation: &[Table<'_, CudaMemory>],
    ids: Ids,
    out: u64,
) -> Result<Vec<Rows>> {
    let features = fit(operation, "representation", representation.len())?;
    let width = total_width(representation);
    fit(operation, "representation", width)?;
    let (mut first_feature, mut first_column) = (0, 0);
    let mut launches = Vec::new();
    for group in representation.chunks(MOST_TABLES) {
        let (words, fours) = tables(gpu, operation, "representation", group)?;
        let mut rows = Rows {
            ids: ids.behaviours.pointer,
            target_ids: if op.multiply_target { ids.candidates.pointer } else { 0 },
            out,
            out_width: width as u64,
            features,
            first_feature,
            count: words.len() as u32,
            fours,
            tables: [Zeroable::zeroed(); MOST_TABLES],
            first_columns: [0; MOST_TABLES],
        };
        rows.tables[..words.len()].copy_from_slice(&words);
        for (first, table) in rows.first_columns.iter_mut().zip(group) {
            *first = first_column;
            first_column += table.width as u32;
        }
        first_feature += rows.count;
        launches.push(rows);
    }
    Ok(launches)
}

pub(super) fn aggregate(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    inputs: &AggregateInputs<'_, CudaMemory>,
    selection: &Selection<'_, CudaMemory>,
    out: ViewMut<'_, CudaMemory, f32>,
) -> Result<()> {
    let top_k = op.check_aggregate(batch.as_ref(), inputs, selection)?;
    op.check_output(AGGREGATE, batch.as_ref(), inputs.representation, out.len())?;
    let AggregateInputs { representation, ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, AGGREGATE, &SearchInputs { attention: representation, ids, target_ids })?;
    let found = Found {
        positions: gpu.region(AGGREGATE, &selection.positions)?.pointer,
        scores: gpu.region(AGGREGATE, &selection.scores)?.pointer,
        counts: gpu.region(AGGREGATE, &selection.counts)?.pointer,
    };
    let out = gpu.region_mut(AGGREGATE, &out)?.pointer;
    let call = gpu.call(AGGREGATE);
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    check_ids(gpu, &call, "ids", op.ids, ids.behaviours, histories.total(), representation)?;
    check_ids(gpu, &call, "target_ids", op.ids, ids.candidates, targets.total(), representation)?;
    aggregate_into(gpu, &call, op, top_k, batch, representation, ids, found, out)
}

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
fn aggregate_into(
    gpu: &Cuda,
    call: &Call<'_>,
    op: &Decoupled,
    top_k: usize,
    batch: &CudaBatch,
    representation: &[Table<'_, CudaMemory>],
    ids: Ids,
    found: Found,
    out: u64,
) -> Result<()> {
    let operation = call.operation;
    // A tile a candidate, and no use of the pieces.
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: BEHAVIOURS, wanted: 1, longest: usize::MAX };
    let plan = batch.plan(gpu, operation, &cut)?;
    let candidates = batch.as_ref().targets().rows();
    let counts = Bound::Columns(vec![top_k as u64 + 1]);
    let positions = Bound::History(batch.shared().clone(), top_k);
    let bad_counts = call.record("counts", candidates, counts)?;
    let bad_positions = call.record("positions", candidates.saturating_mul(top_k), positions)?;
    for rows in rows(gpu, operation, op, representation, ids, out)? {
        let params = AggregateParams {
            tiles: plan.tiles.pointer(),
            positions: found.positions,
            scores: found.scores,
            counts: found.counts,
            bad_counts,
            bad_positions,
            // No count is larger: beyond, `counts` are never out of range.
            top_k: u32::try_from(top_k).unwrap_or(NONE),
            unused: 0,
            rows,
        };
        let kernel = Kernel::new("decoupled", "decoupled_aggregate", THREADS);
        call.launch(&kernel, plan.plan.tiles.len(), &params)?;
    }
    Ok(())
}

pub(super) fn attend(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    inputs: &DecoupledInputs<'_, CudaMemory>,
    out: ViewMut<'_, CudaMemory, f32>,
) -> Result<()> {
    op.check_attend(batch.as_ref(), inputs)?;
    op.check_output(ATTEND, batch.as_ref(), inputs.representation, out.len())?;
    let DecoupledInputs { attention, representation, ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, ATTEND, &SearchInputs { attention, ids, target_ids })?;
    let out = gpu.region_mut(ATTEND, &out)?.pointer;
    let mut call = gpu.call(ATTEND);
    let longest = batch.as_ref().histories().max_length();
    let Some(top_k) = op.top_k.filter(|&top_k| top_k < longest) else {
        return attend_all(gpu, &mut call, op, batch, attention, representation, ids, out);
    };
    let candidates = batch.as_ref().targets().rows();
    let slots = candidates.saturating_mul(top_k * size_of::<u32>());
    let found = Found {
        positions: call.scratch(slots)?,
        scores: call.scratch(slots)?,
        counts: call.scratch(candidates * size_of::<u32>())?,
    };
    search_into(gpu, &mut call, op, top_k, batch, attention, ids, found)?;
    aggregate_into(gpu, &call, op, top_k, batch, representation, ids, found, out)
}

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
fn attend_all(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Decoupled,
    batch: &CudaBatch,
    attention: &[Table<'_, CudaMemory>],
    representation: &[Table<'_, CudaMemory>],
    ids: Ids,
    out: u64,
) -> Result<()> {
    let scoring = scoring(gpu, call, op, batch.as_ref(), attention, ids)?;
    for rows in rows(gpu, ATTEND, op, representation, ids, out)? {
        let sums = CANDIDATES * rows.fours as usize * COLUMNS * size_of::<f32>();
        let column_blocks = (rows.fours as usize).div_ceil(ROW_FOURS);
        let wanted = (2 * PIECES * gpu.multiprocessors()).min(PARTIAL_BYTES / sums).max(1);
        let cut = cut(batch.as_ref(), CANDIDATES, wanted);
        let plan = batch.plan(gpu, ATTEND, &cut)?;
        let slots = plan.plan.slots;
        let params = AttendParams {
            pieces: plan.pieces.pointer(),
            merges: plan.merges.pointer(),
            sums: call.scratch(slots.saturating_mul(sums))?,
            totals: call.scratch(slots * CANDIDATES * 2 * size_of::<f32>())?,
            column_blocks: column_blocks as u32,
            unused: 0,
            scoring,
            rows,
        };
        let kernel = Kernel::new("decoupled_attend", "decoupled_attend", THREADS)
            .with_shared(staged_bytes(&scoring, CANDIDATES) + WEIGHING_BYTES);
        call.launch(&kernel, plan.plan.pieces.len() * column_blocks, &params)?;
        let kernel = Kernel::new("decoupled_attend", "decoupled_attend_merge", THREADS);
        call.launch(&kernel, plan.merge_count * CANDIDATES, &params)?;
    }
    Ok(())
}
