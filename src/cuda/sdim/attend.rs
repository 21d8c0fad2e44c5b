//! SDIM without tables of the caller's: fills tables in scratch memory and reads them, or adds up what candidates read.

use crate::cuda::batch::{CudaBatch, UserPart};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::sdim::backward::{from_code, from_row};
use crate::cuda::sdim::encode::{Hashing, add_up, hashing};
use crate::cuda::sdim::query::{query_sums, query_tables, sum_buckets};
use crate::cuda::sdim::signatures::{Codes, PARTIAL_BYTES, Sizes, check, codes};
use crate::element::Element;
use crate::error::Result;
use crate::gpu::AttendCut;
use crate::memory::ViewMut;
use crate::ops::{Change, Sdim, SdimAttendInputs};

const NAME: &str = "sdim_attend";

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    batch: &CudaBatch,
    inputs: &SdimAttendInputs<'_, CudaMemory, T>,
    out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(NAME, batch.as_ref(), inputs)?;
    op.check_output(NAME, targets, out.len())?;
    let (behaviours, candidates) = (histories.total(), targets.total());
    let (rows, out) = (gpu.region(NAME, &inputs.history)?, gpu.region_mut(NAME, &out)?);
    // The same for the forward pass as for gradients, whose tables are two.
    let cut = AttendCut::new(op, batch.as_ref(), PARTIAL_BYTES, [0, 0]);
    let parts = if cut.by_tables { Some(batch.user_parts(gpu, NAME, &cut)?) } else { None };
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    let hashing = match parts {
        Some(_) => hashing(gpu, call, op, behaviours, &inputs.encode())?,
        None => Hashing::Codes(codes(gpu, call, op, behaviours, Some(inputs.history), &inputs.history_hash)?),
    };
    if let Hashing::Codes(history) = hashing {
        check(call, op, behaviours, history)?;
    }
    let wished = codes(gpu, call, op, candidates, inputs.targets, &inputs.target_hash)?;
    check(call, op, candidates, wished)?;
    match (parts, hashing) {
        (None, Hashing::Codes(history)) => {
            let sums = sum_buckets(gpu, call, op, batch, rows, [history, wished])?;
            query_sums(call, op, &sums, out)?;
        }
        (parts, hashing) => {
            let parts = parts.iter().flat_map(|parts| parts.iter());
            call.parts(parts, |call, part| {
                through_tables(gpu, call, op, part, (rows, hashing, wished), out)
            })?;
        }
    }
    call.finish()
}

/// Fills the tables of the users of a part, and reads them. Signatures that are given are checked.
fn through_tables<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    part: &UserPart,
    (rows, hashing, wished): (Region<T>, Hashing, Codes),
    out: Region<T>,
) -> Result<()> {
    let length = part.histories.as_ref().users().saturating_mul(Sizes::of(NAME, op)?.table);
    let table = call.scratch(length.saturating_mul(size_of::<f32>()))?;
    let rows = from_row(rows, part.first_behaviour, op.width);
    let hashing = match hashing {
        // Records count positions from the first signature of the batch.
        Hashing::Codes(codes) => {
            Hashing::Codes(Codes { record: 0, ..from_code(op, codes, part.first_behaviour) })
        }
        rotations => rotations,
    };
    add_up(gpu, call, op, &part.histories, rows, hashing, (table, Change::Encode))?;
    let wished = Codes { record: 0, ..from_code(op, wished, part.first_candidate) };
    let out = from_row(out, part.first_candidate, op.width);
    query_tables(gpu, call, op, &part.targets, (table, wished), out)
}
