//! SDIM: gradients of queries, of the rows that are encoded, and of both at once.

use crate::cuda::batch::{CudaBatch, CudaJagged, UserPart};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::sdim::encode::{Hashing, add_up};
use crate::cuda::sdim::gather::{gather, hashes};
use crate::cuda::sdim::query::sum_buckets;
use crate::cuda::sdim::signatures::{Codes, PARTIAL_BYTES, SCAN_THREADS, Sizes, check, codes};
use crate::cuda::twin::twins;
use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::gpu::AttendCut;
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
use crate::plan::{Cut, Pace};

/// Turns sums of gradients into those of bucket rows.
const BUCKETS: Kernel = Kernel::new("sdim_backward", "sdim_bucket_gradients", SCAN_THREADS, 40);
/// The same for each candidate and group.
const TARGETS: ByType = ByType([
    Kernel::new("sdim_backward", "sdim_target_gradients_f32", SCAN_THREADS, 56),
    Kernel::new("sdim_backward", "sdim_target_gradients_f16", SCAN_THREADS, 56),
    Kernel::new("sdim_backward", "sdim_target_gradients_bf16", SCAN_THREADS, 56),
]);
/// Adds the gradients of the candidates that share a behaviour's buckets.
const MATCH: ByType = ByType([
    Kernel::new("sdim_backward", "sdim_match_f32", SCAN_THREADS, 48),
    Kernel::new("sdim_backward", "sdim_match_f16", SCAN_THREADS, 48),
    Kernel::new("sdim_backward", "sdim_match_bf16", SCAN_THREADS, 48),
]);
/// Columns per lane in `kernels/sdim/columns.cuh`.
const LANE_COLUMNS: usize = 4;
/// Behaviours per step of the plan of `sdim_match`, of which a warp takes one at a time.
const MATCH_STEP: usize = 8;
/// What its pieces cost, in cycles. Nothing is combined.
const MATCH_PACE: Pace = Pace {
    resident: 1,
    step: 600,
    row: 0,
    piece: 1500,
    combine: 0,
    slot: 0,
    fewest_steps: 1,
    shrinks: false,
};

twins! {
    /// `kernels/sdim/backward.cu`
    pub(in crate::cuda) struct SdimBucketParams {
        table: u64,
        grads: u64,
        offsets: u64,
        codes: u64,
        rows: u64,
        width: u32,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        normalise: u32,
        inverse_groups: f32,
    }

    /// `kernels/sdim/backward.cu`
    pub(in crate::cuda) struct SdimTargetGradientParams {
        tiles: u64,
        grad_out: u64,
        sums: u64,
        count: u64,
        width: u32,
        groups: u32,
        normalise: u32,
        first_whole: u32,
        inverse_groups: f32,
        unused: u32,
    }

    /// `kernels/sdim/backward.cu`
    pub(in crate::cuda) struct SdimMatchParams {
        pieces: u64,
        offsets: u64,
        codes: u64,
        target_codes: u64,
        grads: u64,
        out: u64,
        width: u32,
        groups: u32,
        code_bytes: u32,
        target_code_bytes: u32,
        narrow: u32,
        unused: u32,
    }
}

/// Blocks of `sdim_bucket_gradients` and `sdim_target_gradients` for so many rows.
fn row_blocks(op: &Sdim, rows: usize) -> usize {
    let lanes = op.width.div_ceil(LANE_COLUMNS).next_power_of_two().min(32);
    rows.div_ceil(SCAN_THREADS as usize / lanes)
}

pub(super) fn query<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    targets: &CudaJagged,
    inputs: &SdimQueryInputs<'_, CudaMemory, T>,
    (grad_out, grad_table): (View<'_, CudaMemory, T>, ViewMut<'_, CudaMemory, f32>),
) -> Result<()> {
    const NAME: &str = "sdim_query_backward";
    let jagged = targets.as_ref();
    op.check_query(NAME, jagged, inputs)?;
    Sdim::check_no_users(NAME, inputs)?;
    op.check_grad_out(NAME, jagged, grad_out.len())?;
    op.check_grad_table(NAME, jagged.users(), grad_table.len())?;
    if jagged.users() == 0 {
        return Ok(());
    }
    let (table, grads) = (gpu.region(NAME, &inputs.table)?, gpu.region_mut(NAME, &grad_table)?);
    let rows = gpu.region(NAME, &grad_out)?;
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    let codes = codes(gpu, call, op, jagged.total(), inputs.targets, &inputs.hash)?;
    bucket_gradients(gpu, call, op, targets, (rows, codes), (table.pointer, grads.pointer))?;
    call.finish()
}

/// Writes the gradients of the tables at the second address, from the bucket rows at the first.
fn bucket_gradients<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    targets: &CudaJagged,
    (grad_out, codes): (Region<T>, Codes),
    (table, grads): (u64, u64),
) -> Result<()> {
    add_up(gpu, call, op, targets, grad_out, Hashing::Codes(codes), (grads, Change::Encode))?;
    let sizes = Sizes::of(call.operation, op)?;
    let rows = targets.as_ref().users() * op.groups * op.buckets();
    let params = SdimBucketParams {
        table,
        grads,
        offsets: targets.offsets(gpu, call.operation)?.pointer(),
        codes: codes.pointer,
        rows: rows as u64,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: codes.bytes,
        normalise: op.normalise.into(),
        inverse_groups: 1.0 / op.groups as f32,
    };
    call.launch(&BUCKETS.blocks(row_blocks(op, rows)), &params)
}

/// The signatures of behaviours: computed as they are gathered where the kernel can, otherwise before.
fn hashing<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    inputs: &SdimEncodeInputs<'_, CudaMemory, T>,
) -> Result<Hashing> {
    match &inputs.hash {
        Hash::Rotations(rotations) if hashes::<T>(op) => {
            Ok(Hashing::Rotations(gpu.region(call.operation, rotations)?.pointer))
        }
        hash => Ok(Hashing::Codes(codes(gpu, call, op, count, Some(inputs.history), hash)?)),
    }
}

pub(super) fn encode<T: Element, G: Element>(
    gpu: &Cuda,
    op: &Sdim,
    histories: &CudaJagged,
    inputs: &SdimEncodeInputs<'_, CudaMemory, T>,
    (grad_table, grad_history): (View<'_, CudaMemory, f32>, ViewMut<'_, CudaMemory, G>),
) -> Result<()> {
    const NAME: &str = "sdim_encode_backward";
    let jagged = histories.as_ref();
    op.check_encode(NAME, jagged, inputs)?;
    op.check_grad_history(NAME, jagged, grad_history.len())?;
    op.check_grad_table(NAME, jagged.users(), grad_table.len())?;
    if jagged.total() == 0 {
        return Ok(());
    }
    let (rows, out) = (gpu.region(NAME, &inputs.history)?, gpu.region_mut(NAME, &grad_history)?);
    let grads = gpu.region(NAME, &grad_table)?;
    let weights = inputs.weights.as_ref().map(|weights| gpu.region(NAME, weights)).transpose()?;
    let mut call = gpu.begin(NAME);
    let hashing = hashing(gpu, &mut call, op, jagged.total(), inputs)?;
    call.clear_rows(&jagged.gaps(), out, op.width);
    gather(gpu, &call, op, histories, (rows, hashing, weights), grads, out)?;
    call.finish()
}

/// What the parts of a call of `attend_backward` share.
struct Attend<T: Element, G: Element> {
    history: Region<T>,
    grad_out: Region<T>,
    out: Region<G>,
    /// Signatures, checked; those of behaviours may be left to the kernel that gathers.
    codes: Codes,
    target_codes: Codes,
    /// Scratch for tables and their gradients, or for the sums that candidates read.
    scratch: u64,
}

pub(super) fn attend<T: Element, G: Element>(
    gpu: &Cuda,
    op: &Sdim,
    batch: &CudaBatch,
    inputs: &SdimAttendInputs<'_, CudaMemory, T>,
    (grad_out, grad_history): (View<'_, CudaMemory, T>, ViewMut<'_, CudaMemory, G>),
) -> Result<()> {
    const NAME: &str = "sdim_attend_backward";
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(NAME, batch.as_ref(), inputs)?;
    op.check_grad_out(NAME, targets, grad_out.len())?;
    op.check_grad_history(NAME, histories, grad_history.len())?;
    let (behaviours, candidates) = (histories.total(), targets.total());
    let sizes = Sizes::of(NAME, op)?;
    let (history, out) = (gpu.region(NAME, &inputs.history)?, gpu.region_mut(NAME, &grad_history)?);
    let grad_out = gpu.region(NAME, &grad_out)?;
    // Signatures of the whole batch are computed at once.
    let cut = AttendCut::new(op, batch.as_ref(), PARTIAL_BYTES, [0, 0]);
    let parts = batch.user_parts(gpu, NAME, &cut)?;
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    let target_codes = codes(gpu, call, op, candidates, inputs.targets, &inputs.target_hash)?;
    let codes = codes(gpu, call, op, behaviours, Some(inputs.history), &inputs.history_hash)?;
    check(call, op, candidates, target_codes)?;
    check(call, op, behaviours, codes)?;
    call.clear_rows(&histories.gaps(), out, op.width);
    // Records count positions from the first signature of the batch.
    let checked = |codes: Codes| Codes { record: 0, ..codes };
    let most_users = parts.iter().map(|part| part.histories.as_ref().users()).max().unwrap_or(0);
    let tables = if cut.by_tables { most_users.saturating_mul(sizes.table) } else { 0 };
    let scratch = call.scratch(tables.saturating_mul(2 * size_of::<f32>()))?;
    let attend = Attend {
        history,
        grad_out,
        out,
        codes: checked(codes),
        target_codes: checked(target_codes),
        scratch,
    };
    call.parts(parts.iter(), |call, part| {
        let attend = attend.of(op, part);
        match cut.by_tables {
            true => attend.through_tables(gpu, call, op, part, tables),
            false => attend.through_candidates(gpu, call, op, part),
        }
    })?;
    call.finish()
}

/// Rows `first` and on.
pub(super) fn from_row<T: Scalar>(region: Region<T>, first: usize, width: usize) -> Region<T> {
    Region::new(region.pointer + (first * width * size_of::<T>()) as u64, region.length - first * width)
}

/// Signatures of rows `first` and on.
pub(super) fn from_code(op: &Sdim, codes: Codes, first: usize) -> Codes {
    Codes { pointer: codes.pointer + (first * op.groups) as u64 * u64::from(codes.bytes), ..codes }
}

impl<T: Element, G: Element> Attend<T, G> {
    /// The same for the users of a part, whose rows are counted from 0.
    fn of(&self, op: &Sdim, part: &UserPart) -> Self {
        Self {
            history: from_row(self.history, part.first_behaviour, op.width),
            grad_out: from_row(self.grad_out, part.first_candidate, op.width),
            out: from_row(self.out, part.first_behaviour, op.width),
            codes: from_code(op, self.codes, part.first_behaviour),
            target_codes: from_code(op, self.target_codes, part.first_candidate),
            scratch: self.scratch,
        }
    }

    /// Fills the tables of the users, computes their gradients, of `length` numbers at most, and gathers these.
    fn through_tables(
        &self,
        gpu: &Cuda,
        call: &mut Call<'_>,
        op: &Sdim,
        part: &UserPart,
        length: usize,
    ) -> Result<()> {
        let hashing = Hashing::Codes(self.codes);
        let (table, grads) = (self.scratch, self.scratch + (length * size_of::<f32>()) as u64);
        if op.normalise {
            add_up(gpu, call, op, &part.histories, self.history, hashing, (table, Change::Encode))?;
        }
        let candidates = (self.grad_out, self.target_codes);
        bucket_gradients(gpu, call, op, &part.targets, candidates, (table, grads))?;
        let grads = Region::new(grads, length);
        gather(gpu, call, op, &part.histories, (self.history, hashing, None), grads, self.out)
    }

    /// Computes the gradient of each bucket row that a candidate reads, and gathers these.
    fn through_candidates(&self, gpu: &Cuda, call: &mut Call<'_>, op: &Sdim, part: &UserPart) -> Result<()> {
        let sizes = Sizes::of(call.operation, op)?;
        let count = part.targets.as_ref().total();
        let sums = sum_buckets(gpu, call, op, &part.batch, self.history, [self.codes, self.target_codes])?;
        let params = SdimTargetGradientParams {
            tiles: sums.plan.tiles.pointer(),
            grad_out: self.grad_out.pointer,
            sums: sums.pointer,
            count: count as u64,
            width: sizes.width,
            groups: sizes.groups,
            normalise: op.normalise.into(),
            first_whole: sums.first_whole,
            inverse_groups: 1.0 / op.groups as f32,
            unused: 0,
        };
        call.launch(&TARGETS.of::<T>().blocks(row_blocks(op, count * op.groups)), &params)?;
        let cut = Cut {
            rows_per_target: 1,
            tile_rows: 1,
            step: MATCH_STEP,
            longest: 1 << 30,
            pace: MATCH_PACE.on(gpu.resident(MATCH.of::<T>(), SCAN_THREADS as usize, 0)),
        };
        let plan = part.histories.per_user.plan(gpu, call.operation, &cut)?;
        let row = (op.groups * op.width * size_of::<f32>()) as u64;
        let params = SdimMatchParams {
            pieces: plan.pieces.pointer(),
            offsets: part.targets.offsets(gpu, call.operation)?.pointer(),
            codes: self.codes.pointer,
            target_codes: self.target_codes.pointer,
            grads: sums.pointer + u64::from(sums.first_whole) * row,
            out: self.out.pointer,
            width: sizes.width,
            groups: sizes.groups,
            code_bytes: self.codes.bytes,
            target_code_bytes: self.target_codes.bytes,
            narrow: u32::from(T::DTYPE == G::DTYPE),
            unused: 0,
        };
        call.launch(&MATCH.of::<T>().blocks(plan.plan.pieces.len()), &params)
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [&[BUCKETS][..], &TARGETS.0, &MATCH.0].concat()
}
