//! SDIM: reads bucket tables, or sums of the buckets that candidates read.

use std::sync::Arc;

use bytemuck::Zeroable;

use crate::cuda::batch::{CudaBatch, CudaJagged, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::lookup::check_ids;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::sdim::signatures::{Codes, PARTIAL_BYTES, SCAN_THREADS, Sizes, TILE_ROWS, codes};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::ViewMut;
use crate::ops::{Hash, IdPolicy, Sdim, SdimQueryInputs, Table, TableData};
use crate::plan::{Cut, Pace};

/// Reads bucket tables.
const QUERY: ByType = ByType([
    Kernel::new("sdim_query", "sdim_query_f32", SCAN_THREADS, 64),
    Kernel::new("sdim_query", "sdim_query_f16", SCAN_THREADS, 64),
    Kernel::new("sdim_query", "sdim_query_bf16", SCAN_THREADS, 64),
]);
/// Sums the buckets of candidates, without a table.
const SUMS: ByType = ByType([
    Kernel::new("sdim_scan", "sdim_sums_f32", SCAN_THREADS, 48),
    Kernel::new("sdim_scan", "sdim_sums_f16", SCAN_THREADS, 48),
    Kernel::new("sdim_scan", "sdim_sums_bf16", SCAN_THREADS, 48),
]);
/// Combines the sums of pieces into the output.
const QUERY_SUMS: ByType = ByType([
    Kernel::new("sdim_query", "sdim_query_sums_f32", SCAN_THREADS, 40),
    Kernel::new("sdim_query", "sdim_query_sums_f16", SCAN_THREADS, 40),
    Kernel::new("sdim_query", "sdim_query_sums_bf16", SCAN_THREADS, 40),
]);
/// Groups per block of `sdim_sums` in `kernels/sdim/scan.cu`.
const SUMS_GROUPS: usize = 4;
/// What pieces of `sdim_sums` cost, in cycles. What reads their sums is launched in any case.
const SUMS_PACE: Pace = Pace {
    resident: 1,
    step: 800,
    row: 0,
    piece: 2000,
    combine: 0,
    slot: 60,
    fewest_steps: 1,
    shrinks: false,
};
/// Candidates per block in `kernels/sdim/query.cu`, and its blocks per multiprocessor.
const QUERY_ROWS: usize = 4;
const QUERY_BLOCKS: usize = 8;
/// The most groups for which that kernel hashes candidates itself.
const HASHED_GROUPS: usize = 512;

twins! {
    /// `kernels/sdim/scan.cu`
    pub(in crate::cuda) struct SdimSumsParams {
        pieces: u64,
        rows: u64,
        codes: u64,
        target_codes: u64,
        sums: u64,
        width: u32,
        groups: u32,
        code_bytes: u32,
        target_code_bytes: u32,
        first_whole: u32,
        unused: u32,
    }
}

twins! {
    /// `kernels/sdim/query.cu`
    pub(in crate::cuda) struct SdimQueryParams {
        places: u64,
        table: u64,
        codes: u64,
        targets: u64,
        rotations: u64,
        out: u64,
        record: u64,
        owners: u64,
        owner_record: u64,
        count: u64,
        users: u32,
        width: u32,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        normalise: u32,
        vectors: u32,
        first_whole: u32,
        inverse_groups: f32,
        tables: u32,
    }
}

pub(super) fn query<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    targets: &CudaJagged,
    inputs: &SdimQueryInputs<'_, CudaMemory, T>,
    out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    const NAME: &str = "sdim_query";
    let jagged = targets.as_ref();
    op.check_query(NAME, jagged, inputs)?;
    op.check_output(NAME, jagged, out.len())?;
    let sizes = Sizes::of(NAME, op)?;
    let count = jagged.total();
    let (table, out) = (gpu.region(NAME, &inputs.table)?, gpu.region_mut(NAME, &out)?);
    let offsets = targets.offsets(gpu, NAME)?;
    let mut call = gpu.begin(NAME);
    let (mut owners, mut owner_record, mut tables) = (0, 0, 0);
    if let Some(users) = &inputs.users {
        let count = op.tables(NAME, inputs.table.len())?;
        let bound = Bound::Columns(vec![count as u64]);
        owner_record = call.record("users", jagged.users(), bound)?;
        let users = gpu.region(NAME, users)?;
        (owners, tables) = (users.pointer, fit(NAME, "table", count)?);
        if jagged.ranges().any(|targets| targets.is_empty()) {
            // No candidate reads the table of such a request.
            let table = Table::new(count, op.table_length(1)?, TableData::F32(inputs.table));
            check_ids(gpu, &call, "users", IdPolicy::Error, users, jagged.users(), &[table])?;
        }
    }
    // If all blocks run at once, latency matters, and hashing in the same kernel saves a launch. With more blocks, each would
    // read the rotations again.
    let few = count <= QUERY_ROWS * QUERY_BLOCKS * gpu.multiprocessors() && op.groups <= HASHED_GROUPS;
    let (codes, rotations, rows) = match (&inputs.hash, &inputs.targets) {
        (Hash::Rotations(rotations), Some(rows)) if few => {
            let (rotations, rows) = (gpu.region(NAME, rotations)?, gpu.region(NAME, rows)?);
            (Codes::default(), rotations.pointer, rows.pointer)
        }
        (hash, rows) => (codes(gpu, &mut call, op, count, *rows, hash)?, 0, 0),
    };
    let params = SdimQueryParams {
        places: offsets.pointer(),
        table: table.pointer,
        codes: codes.pointer,
        targets: rows,
        rotations,
        out: out.pointer,
        record: codes.record,
        owners,
        owner_record,
        tables,
        count: count as u64,
        users: fit(NAME, "users", jagged.users())?,
        code_bytes: codes.bytes,
        vectors: table.vectors(op.width, 16).into(),
        ..query_params(op, &sizes)
    };
    call.launch(&QUERY.of::<T>().blocks(count.div_ceil(QUERY_ROWS)), &params)?;
    call.finish()
}

fn query_params(op: &Sdim, sizes: &Sizes) -> SdimQueryParams {
    SdimQueryParams {
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        normalise: op.normalise.into(),
        inverse_groups: 1.0 / op.groups as f32,
        ..SdimQueryParams::zeroed()
    }
}

/// Reads the tables of users by the signatures of their candidates, which are checked.
pub(super) fn query_tables<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    targets: &CudaJagged,
    (table, codes): (u64, Codes),
    out: Region<T>,
) -> Result<()> {
    let (sizes, count) = (Sizes::of(call.operation, op)?, targets.as_ref().total());
    let params = SdimQueryParams {
        places: targets.offsets(gpu, call.operation)?.pointer(),
        table,
        codes: codes.pointer,
        out: out.pointer,
        count: count as u64,
        users: fit(call.operation, "users", targets.as_ref().users())?,
        code_bytes: codes.bytes,
        // Scratch is aligned.
        vectors: op.width.is_multiple_of(4).into(),
        ..query_params(op, &sizes)
    };
    call.launch(&QUERY.of::<T>().blocks(count.div_ceil(QUERY_ROWS)), &params)
}

/// Combines the sums that candidates read.
pub(super) fn query_sums<T: Element>(
    call: &mut Call<'_>,
    op: &Sdim,
    sums: &BucketSums,
    out: Region<T>,
) -> Result<()> {
    let (sizes, count) = (Sizes::of(call.operation, op)?, sums.plan.plan.tiles.len());
    let params = SdimQueryParams {
        places: sums.plan.tiles.pointer(),
        table: sums.pointer,
        out: out.pointer,
        count: count as u64,
        vectors: op.width.is_multiple_of(4).into(),
        first_whole: sums.first_whole,
        ..query_params(op, &sizes)
    };
    call.launch(&QUERY_SUMS.of::<T>().blocks(count.div_ceil(QUERY_ROWS)), &params)
}

/// The bucket sums that candidates read, `[slots + candidates, G, d]`: those of a candidate whose history is not split are in the
/// second range.
pub(super) struct BucketSums {
    pub(super) plan: Arc<DevicePlan>,
    pub(super) pointer: u64,
    /// The length of the first range.
    pub(super) first_whole: u32,
}

/// Adds up the rows of the buckets that candidates read, by the signatures of behaviours and of candidates.
pub(super) fn sum_buckets<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    batch: &CudaBatch,
    rows: Region<T>,
    [history, wished]: [Codes; 2],
) -> Result<BucketSums> {
    let operation = call.operation;
    let sizes = Sizes::of(operation, op)?;
    let size = op.groups * op.width;
    let resident = gpu.resident(SUMS.of::<T>(), SCAN_THREADS as usize, 0) / op.groups.div_ceil(SUMS_GROUPS);
    let pace = SUMS_PACE.within(resident, PARTIAL_BYTES / (size * 4));
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: TILE_ROWS, longest: 1 << 31, pace };
    let plan = batch.plan(gpu, operation, &cut)?;
    let places = plan.plan.slots + plan.plan.tiles.len();
    fit(operation, "partial results", places)?;
    let pointer = call.scratch(places * size * 4)?;
    let first_whole = plan.plan.slots as u32;
    let params = SdimSumsParams {
        pieces: plan.pieces.pointer(),
        rows: rows.pointer,
        codes: history.pointer,
        target_codes: wished.pointer,
        sums: pointer,
        width: sizes.width,
        groups: sizes.groups,
        code_bytes: history.bytes,
        target_code_bytes: wished.bytes,
        first_whole,
        unused: 0,
    };
    let blocks = plan.plan.pieces.len() * op.groups.div_ceil(SUMS_GROUPS);
    call.launch(&SUMS.of::<T>().blocks(blocks), &params)?;
    Ok(BucketSums { plan, pointer, first_whole })
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [&QUERY.0[..], &QUERY_SUMS.0, &SUMS.0].concat()
}
