//! Attention of decoupled embeddings over all behaviours.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::aggregate::aggregate_into;
use crate::cuda::decoupled::rows::{Ids, Rows, rows};
use crate::cuda::decoupled::scores::{Scoring, scoring, staged_bytes};
use crate::cuda::decoupled::search::search_into;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{BEHAVIOURS, Found, THREADS};
use crate::cuda::tables::COLUMNS;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::*;
use crate::plan::{Cut, Pace};

const ATTEND: &str = "decoupled_attend";
/// Attends to all behaviours of a piece.
const ATTEND_ALL: Kernel = Kernel::new("decoupled_attend", "decoupled_attend", 128, 168);
/// Combines the partial results of pieces.
const COMBINE: Kernel = Kernel::new("decoupled_attend", "decoupled_attend_combine", 128, 56);
/// Candidates per block in `kernels/decoupled/attend.cu`, and vec4s of columns.
const CANDIDATES: usize = 16;
const ROW_VEC4S: usize = 32;
/// Bytes of `Weighing` there.
const WEIGHING_BYTES: usize = (BEHAVIOURS * 20 + 11 * 16) * 4;
/// The most behaviours of a piece, which four groups of threads or more share: no chain of additions is longer than a thousand.
const LONGEST: usize = 1 << 12;
/// What pieces cost, in cycles.
const PACE: Pace = Pace {
    resident: 1,
    step: 20_000,
    row: 0,
    piece: 3000,
    combine: 4500,
    slot: 100,
    fewest_steps: 1,
    shrinks: false,
};
/// The most bytes of partial results.
const PARTIAL_BYTES: usize = 64 << 20;

twins! {
    /// `kernels/decoupled/attend.cu`
    pub(in crate::cuda) struct DecoupledAttendParams {
        pieces: u64,
        tiles: u64,
        partial: u64,
        stats: u64,
        column_blocks: u32,
        unused: u32,
        scoring: Scoring,
        rows: Rows,
    }
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
    for rows in rows(gpu, call.operation, op, representation, ids, out)? {
        let sums = CANDIDATES * rows.vec4s as usize * COLUMNS * size_of::<f32>();
        let column_blocks = (rows.vec4s as usize).div_ceil(ROW_VEC4S);
        let shared = attend_shared(scoring.vec4s as usize);
        let resident = gpu.busy(&ATTEND_ALL, THREADS as usize, shared) / column_blocks;
        let cut = Cut {
            rows_per_target: 1,
            tile_rows: CANDIDATES,
            step: BEHAVIOURS,
            longest: LONGEST,
            pace: PACE.within(resident, PARTIAL_BYTES / sums),
        };
        let plan = batch.plan(gpu, call.operation, &cut)?;
        let slots = plan.plan.slots;
        let params = DecoupledAttendParams {
            pieces: plan.pieces.pointer(),
            tiles: plan.split_tiles.pointer(),
            partial: call.scratch(slots.saturating_mul(sums))?,
            stats: call.scratch(slots.saturating_mul(column_blocks * CANDIDATES * 2 * size_of::<f32>()))?,
            column_blocks: column_blocks as u32,
            unused: 0,
            scoring,
            rows,
        };
        let blocks = plan.plan.pieces.len() * column_blocks;
        call.launch(&ATTEND_ALL.blocks(blocks).with_shared(shared), &params)?;
        call.launch(&COMBINE.blocks(plan.split_count * CANDIDATES), &params)?;
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
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, ATTEND, &SearchInputs { attention, history_ids, target_ids })?;
    let out = gpu.region_mut(ATTEND, &out)?.pointer;
    let mut call = gpu.begin(ATTEND);
    let longest = batch.as_ref().histories().max_length();
    let Some(top_k) = op.top_k.filter(|&top_k| top_k < longest) else {
        attend_all(gpu, &mut call, op, batch, attention, representation, ids, out)?;
        return call.finish();
    };
    let candidates = batch.as_ref().targets().rows();
    let found = Found::scratch(&mut call, candidates, top_k)?;
    search_into(gpu, &mut call, op, top_k, batch, attention, ids, found)?;
    aggregate_into(gpu, &call, op, top_k, batch, representation, ids, found, out)?;
    call.finish()
}

/// Bytes of dynamic shared memory per block of [`ATTEND_ALL`].
pub(in crate::cuda) fn attend_shared(vec4s: usize) -> usize {
    staged_bytes(vec4s, CANDIDATES) + WEIGHING_BYTES
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![ATTEND_ALL, COMBINE]
}
