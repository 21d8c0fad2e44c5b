//! SDIM: fills bucket tables, and changes them by behaviours.

use crate::cuda::batch::{CudaJagged, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::sdim::shares::Shares;
use crate::cuda::sdim::signatures::{
    Codes, FLAT_THREADS, PARTIAL_BYTES, SCAN_THREADS, Sizes, TILE_ROWS, check, codes,
};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::check_encode;
use crate::memory::ViewMut;
use crate::ops::{Change, Hash, Sdim, SdimEncodeInputs};
use crate::plan::{Cut, Pace};

/// Fills tables of few buckets by a product with a one-hot matrix; the launch chooses the threads.
const ENCODE: ByType = ByType([
    Kernel::new("sdim_encode", "sdim_encode_f32", 512, 120),
    Kernel::new("sdim_encode", "sdim_encode_f16", 512, 114),
    Kernel::new("sdim_encode", "sdim_encode_bf16", 512, 108),
]);
/// Fills tables of many buckets.
const SCATTER: ByType = ByType([
    Kernel::new("sdim_scan", "sdim_scatter_f32", SCAN_THREADS, 34),
    Kernel::new("sdim_scan", "sdim_scatter_f16", SCAN_THREADS, 35),
    Kernel::new("sdim_scan", "sdim_scatter_bf16", SCAN_THREADS, 35),
]);
/// Combines the partial tables of pieces.
const COMBINE: Kernel = Kernel::new("sdim", "sdim_combine", FLAT_THREADS, 32);
/// Multiplies rows by their weights.
const WEIGH: ByType = ByType([
    Kernel::new("sdim", "sdim_weigh_f32", FLAT_THREADS, 12),
    Kernel::new("sdim", "sdim_weigh_f16", FLAT_THREADS, 13),
    Kernel::new("sdim", "sdim_weigh_bf16", FLAT_THREADS, 13),
]);
/// The most bits for which a product with a one-hot matrix is cheaper than scanning for the rows of each bucket.
const ONE_HOT_BITS: usize = 6;
/// Buckets and columns per block of `sdim_scatter` in `kernels/sdim/scan.cu`.
const SCATTER_BUCKETS: usize = 128;
const SCATTER_COLUMNS: usize = 64;
/// The most behaviours of a piece of a one-hot product, which adds 16 at a time: longer chains of additions would round more. It is longer
/// where tables are so large that the partial results would take more than a quarter of the history's memory.
const LONGEST: usize = 1 << 13;
/// Behaviours per step of the plan.
const STEP: usize = 2 * TILE_ROWS;
/// What pieces cost: 2.5 cycles for each instruction of a warp (`kernels/evidence.md`). Each splits the rotations, and writes a table.
const PACE: Pace = Pace {
    resident: 1,
    step: 6000,
    row: 0,
    piece: 8000,
    combine: 4500,
    slot: 100,
    fewest_steps: 1,
    shrinks: false,
};

twins! {
    /// `kernels/sdim/encode.cu`
    pub(in crate::cuda) struct SdimEncodeParams {
        pieces: u64,
        rows: u64,
        rotations: u64,
        codes: u64,
        table: u64,
        partial: u64,
        record: u64,
        width: u32,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        bucket_warps: u32,
        column_warps: u32,
        bucket_blocks: u32,
        column_blocks: u32,
        append: u32,
        vectors: u32,
        stages: u32,
        sign: f32,
    }
}

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimCombineParams {
        tiles: u64,
        partial: u64,
        table: u64,
        size: u64,
        blocks_per_table: u64,
        append: u32,
        unused: u32,
    }
}

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimWeighParams {
        rows: u64,
        weights: u64,
        out: u64,
        count: u64,
        width: u32,
        unused: u32,
    }
}

twins! {
    /// `kernels/sdim/scan.cu`
    pub(in crate::cuda) struct SdimScatterParams {
        pieces: u64,
        rows: u64,
        codes: u64,
        table: u64,
        partial: u64,
        width: u32,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        append: u32,
        sign: f32,
    }
}

pub(super) fn encode<T: Element>(
    gpu: &Cuda,
    change: Change,
    op: &Sdim,
    histories: &CudaJagged,
    inputs: &SdimEncodeInputs<'_, CudaMemory, T>,
    table: ViewMut<'_, CudaMemory, f32>,
) -> Result<()> {
    let (operation, jagged) = (change.name(), histories.as_ref());
    if check_encode(operation, op, jagged, inputs, table.len())? == 0 {
        return Ok(());
    }
    let rows = gpu.region(operation, &inputs.history)?;
    let table = gpu.region_mut(operation, &table)?;
    let sums = (table.pointer, change);
    if let Some(weights) = &inputs.weights {
        let weights = gpu.region(operation, weights)?;
        let mut call = gpu.begin(operation);
        // Of the rows as they are.
        let hashing = codes(gpu, &mut call, op, jagged.total(), Some(inputs.history), &inputs.hash)?;
        let rows = weigh(&mut call, op, jagged.total(), rows, weights)?;
        add_up(gpu, &mut call, op, histories, rows, Hashing::Codes(hashing), sums)?;
        return call.finish();
    }
    let mut call = gpu.begin(operation);
    let hashing = hashing(gpu, &mut call, op, jagged.total(), inputs)?;
    add_up(gpu, &mut call, op, histories, rows, hashing, sums)?;
    call.finish()
}

/// How the rows of an encode are hashed: as they are read where a block has memory for that, otherwise before.
pub(super) fn hashing<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    inputs: &SdimEncodeInputs<'_, CudaMemory, T>,
) -> Result<Hashing> {
    match &inputs.hash {
        Hash::Rotations(rotations) if op.bits <= ONE_HOT_BITS && Shares::of_hashed::<T>(op).is_some() => {
            Ok(Hashing::Rotations(gpu.region(call.operation, rotations)?.pointer))
        }
        hash => Ok(Hashing::Codes(codes(gpu, call, op, count, Some(inputs.history), hash)?)),
    }
}

/// The signatures by which rows are added up.
#[derive(Clone, Copy)]
pub(super) enum Hashing {
    /// Of the rows themselves, which are hashed as they are read; the address of the rotations.
    Rotations(u64),
    Codes(Codes),
}

/// Adds up the rows of each bucket, into the tables at an address: over what they hold, to it, or from it.
pub(super) fn add_up<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    histories: &CudaJagged,
    rows: Region<T>,
    hashing: Hashing,
    (table, change): (u64, Change),
) -> Result<()> {
    let operation = call.operation;
    let sizes = Sizes::of(operation, op)?;
    let one_hot = op.bits <= ONE_HOT_BITS;
    let hashed = match hashing {
        Hashing::Rotations(_) => Shares::of_hashed::<T>(op),
        Hashing::Codes(_) => None,
    };
    let shares = hashed.unwrap_or(Shares::of_given(op));
    let blocks = if one_hot { shares.blocks() } else { op.groups * op.buckets() / SCATTER_BUCKETS };
    let resident = match hashing {
        Hashing::Codes(_) if !one_hot => gpu.resident(SCATTER.of::<T>(), SCAN_THREADS as usize, 0),
        hashing => {
            let hashes = matches!(hashing, Hashing::Rotations(_));
            let shared = shares.shared::<T>(op, shares.stages::<T>(op, hashes), hashes);
            gpu.busy(ENCODE.of::<T>(), shares.threads(), shared)
        }
    };
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: 1,
        step: STEP,
        longest: if one_hot { LONGEST.max(4 * op.groups * op.buckets()) } else { 1 << 30 },
        // Every partial result is a whole table.
        pace: PACE.within(resident.div_ceil(blocks), PARTIAL_BYTES / (sizes.table * 4)),
    };
    let plan = histories.per_user.plan(gpu, operation, &cut)?;
    let partial = call.scratch(plan.plan.slots * sizes.table * 4)?;
    let target = Target { plan: &plan, table, partial, change };
    match hashing {
        Hashing::Codes(codes) if !one_hot => {
            scatter(call, op, histories.as_ref().total(), rows, codes, &target)?
        }
        hashing => multiply(call, op, rows, hashing, &shares, &target)?,
    }
    let blocks_per_table = sizes.table.div_ceil(FLAT_THREADS as usize);
    let params = SdimCombineParams {
        tiles: plan.split_tiles.pointer(),
        partial,
        table,
        size: sizes.table as u64,
        blocks_per_table: blocks_per_table as u64,
        append: change.appends().into(),
        unused: 0,
    };
    call.launch(&COMBINE.blocks(plan.split_count * blocks_per_table), &params)
}

/// Where the bucket sums are written.
struct Target<'a> {
    plan: &'a DevicePlan,
    table: u64,
    partial: u64,
    change: Change,
}

impl Target<'_> {
    /// Partial tables have the sign, too, and are added.
    fn sign(&self) -> f32 {
        if self.change.subtracts() { -1.0 } else { 1.0 }
    }
}

fn multiply<T: Element>(
    call: &Call<'_>,
    op: &Sdim,
    rows: Region<T>,
    hashing: Hashing,
    shares: &Shares,
    target: &Target<'_>,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    let (rotations, codes) = match hashing {
        Hashing::Rotations(rotations) => (rotations, Codes::default()),
        Hashing::Codes(codes) => (0, codes),
    };
    let hashing = rotations != 0;
    let stages = shares.stages::<T>(op, hashing);
    let params = SdimEncodeParams {
        pieces: target.plan.pieces.pointer(),
        rows: rows.pointer,
        rotations,
        codes: codes.pointer,
        table: target.table,
        partial: target.partial,
        record: codes.record,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: codes.bytes,
        bucket_warps: shares.bucket_warps as u32,
        column_warps: shares.column_warps as u32,
        bucket_blocks: shares.bucket_blocks as u32,
        column_blocks: shares.column_blocks as u32,
        append: target.change.appends().into(),
        vectors: rows.vectors(op.width, 16).into(),
        stages: stages as u32,
        sign: target.sign(),
    };
    let launch = ENCODE.of::<T>().blocks(target.plan.plan.pieces.len() * shares.blocks());
    let shared = shares.shared::<T>(op, stages, hashing);
    call.launch(&launch.with_threads(shares.threads()).with_shared(shared), &params)
}

fn scatter<T: Element>(
    call: &Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Region<T>,
    codes: Codes,
    target: &Target<'_>,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    check(call, op, count, codes)?;
    let params = SdimScatterParams {
        pieces: target.plan.pieces.pointer(),
        rows: rows.pointer,
        codes: codes.pointer,
        table: target.table,
        partial: target.partial,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: codes.bytes,
        append: target.change.appends().into(),
        sign: target.sign(),
    };
    let blocks = op.groups * (op.buckets() / SCATTER_BUCKETS) * op.width.div_ceil(SCATTER_COLUMNS);
    call.launch(&SCATTER.of::<T>().blocks(target.plan.plan.pieces.len() * blocks), &params)
}

/// Multiplies the first `count` rows by their weights, into scratch memory.
fn weigh<T: Element>(
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Region<T>,
    weights: Region<f32>,
) -> Result<Region<f32>> {
    let sizes = Sizes::of(call.operation, op)?;
    let length = count * op.width;
    let out = Region::new(call.scratch(length * size_of::<f32>())?, length);
    let params = SdimWeighParams {
        rows: rows.pointer,
        weights: weights.pointer,
        out: out.pointer,
        count: count as u64,
        width: sizes.width,
        unused: 0,
    };
    call.launch(&WEIGH.of::<T>().blocks(count.div_ceil(FLAT_THREADS as usize / 32)), &params)?;
    Ok(out)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [&ENCODE.0[..], &SCATTER.0, &WEIGH.0, &[COMBINE]].concat()
}
