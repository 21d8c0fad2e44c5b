//! Attention of decoupled embeddings over all behaviours.

use bytemuck::{Pod, Zeroable};

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Call, Kernel};
use crate::cuda::decoupled::search::{BEHAVIOURS, PIECES, Scoring, THREADS, cut, scoring, staged_bytes};
use crate::cuda::decoupled::{Ids, Rows, rows};
use crate::cuda::lookup::COLUMNS;
use crate::cuda::memory::CudaMemory;
use crate::error::Result;
use crate::ops::*;

/// Candidates and fours of columns of a block of decoupled_attend.cu.
const CANDIDATES: usize = 16;
const ROW_FOURS: usize = 32;
/// `Weighing` there.
const WEIGHING_BYTES: u32 = (BEHAVIOURS as u32 * 20 + 11 * 16) * 4;
/// Bytes that partial sums may take.
const PARTIAL_BYTES: usize = 64 << 20;

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

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
pub(super) fn attend_all(
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
        let sums = CANDIDATES * rows.fours as usize * COLUMNS * size_of::<f32>();
        let column_blocks = (rows.fours as usize).div_ceil(ROW_FOURS);
        let wanted = (2 * PIECES * gpu.multiprocessors()).min(PARTIAL_BYTES / sums).max(1);
        let cut = cut(batch.as_ref(), CANDIDATES, wanted);
        let plan = batch.plan(gpu, call.operation, &cut)?;
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
