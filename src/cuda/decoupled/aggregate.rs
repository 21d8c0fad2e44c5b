//! Weighted sums over the behaviours that a search kept.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::{Ids, Rows, rows};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::check_ids;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{Found, count_record, position_record};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::NONE;
use crate::memory::ViewMut;
use crate::ops::*;

const AGGREGATE: &str = "decoupled_aggregate";
/// A block per candidate.
const KERNEL: Kernel = Kernel::new("decoupled", "decoupled_aggregate", 128, 60);

twins! {
    /// `kernels/decoupled/decoupled.cu`
    pub(in crate::cuda) struct DecoupledAggregateParams {
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
    let AggregateInputs { representation, history_ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, AGGREGATE, &SearchInputs { attention: representation, history_ids, target_ids })?;
    let found = Found::given(gpu, AGGREGATE, selection)?;
    let out = gpu.region_mut(AGGREGATE, &out)?.pointer;
    let call = gpu.begin(AGGREGATE);
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    check_ids(gpu, &call, "history_ids", op.ids, ids.behaviours, histories.total(), representation)?;
    check_ids(gpu, &call, "target_ids", op.ids, ids.candidates, targets.total(), representation)?;
    aggregate_into(gpu, &call, op, top_k, batch, representation, ids, found, out)?;
    call.finish()
}

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
pub(super) fn aggregate_into(
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
    let plan = batch.candidates(gpu, operation)?;
    let bad_counts = count_record(call, batch, top_k)?;
    let bad_positions = position_record(call, batch, top_k)?;
    for rows in rows(gpu, operation, op, representation, ids, out)? {
        let params = DecoupledAggregateParams {
            tiles: plan.tiles.pointer(),
            positions: found.positions,
            scores: found.scores,
            counts: found.counts,
            bad_counts,
            bad_positions,
            // Counts have 32 bits: a larger K puts none out of range.
            top_k: u32::try_from(top_k).unwrap_or(NONE),
            unused: 0,
            rows,
        };
        call.launch(&KERNEL.blocks(plan.plan.tiles.len()), &params)?;
    }
    Ok(())
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![KERNEL]
}
