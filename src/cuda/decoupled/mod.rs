//! Decoupled embeddings: searches in one table (`decoupled_search`), aggregates from another, or attends to all behaviours
//! (`decoupled_attend`).

mod attend;
mod search;

use bytemuck::{Pod, Zeroable};

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Call, Kernel};
use crate::cuda::decoupled::attend::attend_all;
use crate::cuda::lookup::{MOST_TABLES, TableWords, check_ids, tables};
use crate::cuda::memory::{CudaMemory, Region};
use crate::error::Result;
use crate::gpu::{Bound, NONE, fit};
use crate::memory::ViewMut;
use crate::ops::*;
use crate::plan::Cut;
use search::search_into;

impl DecoupledOps for Cuda {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: SearchInputs<'_, CudaMemory>,
        out: SelectionMut<'_, CudaMemory>,
    ) -> Result<()> {
        search::search(self, op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: AggregateInputs<'_, CudaMemory>,
        selection: Selection<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &CudaBatch,
        inputs: DecoupledInputs<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, f32>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, out)
    }
}

const AGGREGATE: &str = "decoupled_aggregate";
const ATTEND: &str = "decoupled_attend";
/// As in decoupled_rows.cuh: threads of a block.
const ROW_THREADS: u32 = 128;

/// `Rows` of decoupled_rows.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Rows {
    pub(super) ids: u64,
    pub(super) target_ids: u64,
    pub(super) out: u64,
    pub(super) out_width: u64,
    pub(super) features: u32,
    pub(super) first_feature: u32,
    pub(super) count: u32,
    pub(super) fours: u32,
    pub(super) tables: [TableWords; MOST_TABLES],
    pub(super) first_columns: [u32; MOST_TABLES],
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

/// The ids of behaviours and candidates.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) behaviours: Region<u32>,
    pub(super) candidates: Region<u32>,
}

impl Ids {
    pub(super) fn of(
        gpu: &Cuda,
        operation: &'static str,
        inputs: &SearchInputs<'_, CudaMemory>,
    ) -> Result<Self> {
        let behaviours = gpu.region(operation, &inputs.ids)?;
        let candidates = gpu.region(operation, &inputs.target_ids)?;
        Ok(Self { behaviours, candidates })
    }
}

/// A selection in device memory.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) positions: u64,
    pub(super) scores: u64,
    pub(super) counts: u64,
}

/// The representation tables, as many as a launch has room for at a time.
pub(super) fn rows(
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
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: 1, wanted: 1, longest: usize::MAX };
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
        let kernel = Kernel::new("decoupled", "decoupled_aggregate", ROW_THREADS);
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
