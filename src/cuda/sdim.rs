//! SDIM: hashes, fills and reads bucket tables.

use bytemuck::{Pod, Zeroable};

use crate::cuda::batch::{CudaBatch, CudaJagged, DevicePlan};
use crate::cuda::call::{Call, Kernel, suffix};
use crate::cuda::faults::Bound;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::{Cuda, fit};
use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Hash, Sdim, SdimHistory, SdimInputs, SdimQuery};
use crate::plan::Cut;

/// Rows that a block hashes or adds at a time, and groups that it hashes.
const TILE_ROWS: usize = 64;
const TILE_GROUPS: usize = 16;
/// A warp's share of a table in sdim.cu, and the warps of a block at most.
const WARP_BUCKETS: usize = 64;
const WARP_COLUMNS: usize = 16;
const MOST_WARPS: usize = 16;
/// The most bits for which a product with a one-hot matrix does less than looking for each bucket's rows.
const ONE_HOT_BITS: usize = 6;
/// Buckets and columns of a block in sdim_scan.cu's tables, groups of one in its sums, and its threads.
const SCATTER_BUCKETS: usize = 128;
const SCATTER_COLUMNS: usize = 64;
const SUMS_GROUPS: usize = 4;
const SCAN_THREADS: u32 = 128;
/// Candidates of a block in sdim_query.cu.
const QUERY_ROWS: usize = 4;
/// Threads of the kernels that take a number each.
const FLAT_THREADS: u32 = 256;
/// Shared memory that a block may have on every device from Ampere on, with room for what the driver takes.
const SHARED: usize = 96 << 10;
/// Bytes that partial tables may take: a small part of a GPU's memory.
const PARTIAL_BYTES: usize = 64 << 20;
/// Parts of histories are whole multiples of this, and at least four times as long: each ends with a table of sums.
const STEP: usize = 2 * TILE_ROWS;
/// Pieces of work a multiprocessor: enough that the last ones to end leave little of it idle.
const PIECES: usize = 4;

/// `SignatureParams` of sdim.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct SignatureParams {
    rows: u64,
    rotations: u64,
    out: u64,
    count: u64,
    width: u32,
    groups: u32,
    bits: u32,
    vectors: u32,
    code_bytes: u32,
    unused: u32,
}

/// `EncodeParams` of sdim.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct EncodeParams {
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
    unused: u32,
}

/// `MergeParams` of sdim.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct MergeParams {
    merges: u64,
    partial: u64,
    table: u64,
    size: u64,
    blocks_a_table: u64,
    append: u32,
    unused: u32,
}

/// `AddParams` of sdim.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct AddParams {
    table: u64,
    other: u64,
    length: u64,
}

/// `CheckParams` of sdim.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct CheckParams {
    codes: u64,
    record: u64,
    length: u64,
    bits: u32,
    code_bytes: u32,
}

/// `ScatterParams` of sdim_scan.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct ScatterParams {
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
    unused: u32,
}

/// `SumsParams` of sdim_scan.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct SumsParams {
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

/// `QueryParams` of sdim_query.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct QueryParams {
    places: u64,
    table: u64,
    codes: u64,
    out: u64,
    record: u64,
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
    unused: u32,
}

/// Sizes as the kernels take them.
struct Sizes {
    width: u32,
    groups: u32,
    bits: u32,
    /// Numbers of one user's table.
    table: usize,
}

impl Sizes {
    fn of(operation: &'static str, op: &Sdim) -> Result<Self> {
        fit(operation, "rotations", op.width.saturating_mul(op.groups).saturating_mul(op.bits))?;
        fit(operation, "buckets", op.groups.saturating_mul(op.buckets()))?;
        Ok(Self {
            width: fit(operation, "width", op.width)?,
            groups: fit(operation, "groups", op.groups)?,
            bits: fit(operation, "bits", op.bits)?,
            table: op.table_length(1)?,
        })
    }
}

/// Signatures on the device.
#[derive(Clone, Copy)]
struct Codes {
    pointer: u64,
    bytes: u32,
    /// Where those out of range are recorded; 0 where there are none.
    record: u64,
}

pub(super) fn signatures<T: Element, W: Signature>(
    gpu: &Cuda,
    op: &Sdim,
    rows: View<'_, CudaMemory, T>,
    rotations: View<'_, CudaMemory, f32>,
    out: ViewMut<'_, CudaMemory, W>,
) -> Result<()> {
    const NAME: &str = "sdim_signatures";
    let count = op.check_signatures(rows.len(), rotations.len())?;
    op.check_signatures_output::<W>(count, out.len())?;
    let (rows, rotations) = (gpu.region(NAME, &rows)?, gpu.region(NAME, &rotations)?);
    let out = gpu.region_mut(NAME, &out)?;
    hash(&gpu.call(NAME), op, count, rows, rotations, out.pointer, size_of::<W>() as u32)
}

fn hash<T: Element>(
    call: &Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Region<T>,
    rotations: Region<f32>,
    out: u64,
    code_bytes: u32,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    let params = SignatureParams {
        rows: rows.pointer,
        rotations: rotations.pointer,
        out,
        count: count as u64,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        vectors: rows.vectors(op.width, 16).into(),
        code_bytes,
        unused: 0,
    };
    let kernel = Kernel::new("sdim", format!("sdim_signatures_{}", suffix::<T>()), FLAT_THREADS);
    call.launch(&kernel, count.div_ceil(TILE_ROWS) * op.groups.div_ceil(TILE_GROUPS), &params)
}

/// The signatures of the first `count` rows: computed, or given.
fn codes<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Option<View<'_, CudaMemory, T>>,
    given: &Hash<'_, CudaMemory>,
) -> Result<Codes> {
    fn region<W: Scalar>(
        gpu: &Cuda,
        call: &Call<'_>,
        op: &Sdim,
        count: usize,
        words: &View<'_, CudaMemory, W>,
    ) -> Result<Codes> {
        let bound = Bound::Columns(vec![op.buckets() as u64]);
        let record = call.record("signatures", count * op.groups, bound)?;
        let pointer = gpu.region(call.operation, words)?.pointer;
        Ok(Codes { pointer, bytes: size_of::<W>() as u32, record })
    }
    match (given, rows) {
        (Hash::Signatures8(words), _) => region(gpu, call, op, count, words),
        (Hash::Signatures16(words), _) => region(gpu, call, op, count, words),
        (Hash::Rotations(rotations), rows) => {
            let bytes = if op.bits <= 8 { 1 } else { 2 };
            let pointer = call.scratch(count * op.groups * bytes as usize)?;
            if let Some(rows) = rows {
                let (rows, rotations) =
                    (gpu.region(call.operation, &rows)?, gpu.region(call.operation, rotations)?);
                hash(call, op, count, rows, rotations, pointer, bytes)?;
            }
            Ok(Codes { pointer, bytes, record: 0 })
        }
    }
}

/// Looks through given signatures, for kernels that do not see each of them.
fn check(call: &Call<'_>, op: &Sdim, count: usize, codes: Codes) -> Result<()> {
    if codes.record == 0 {
        return Ok(());
    }
    let length = count * op.groups;
    let params = CheckParams {
        codes: codes.pointer,
        record: codes.record,
        length: length as u64,
        bits: op.bits as u32,
        code_bytes: codes.bytes,
    };
    let kernel = Kernel::new("sdim", "sdim_check", FLAT_THREADS);
    call.launch(&kernel, length.div_ceil(FLAT_THREADS as usize), &params)
}

/// How a table is cut among the warps of a block, and among blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    bucket_warps: usize,
    column_warps: usize,
    bucket_blocks: usize,
    column_blocks: usize,
}

impl Shares {
    /// As many buckets as one block can have: each block of others reads the history again. Then as many columns.
    fn of(op: &Sdim) -> Self {
        let buckets = (op.groups * op.buckets()).div_ceil(WARP_BUCKETS);
        let columns = op.width.div_ceil(WARP_COLUMNS);
        let bucket_blocks = buckets.div_ceil(MOST_WARPS);
        let bucket_warps = buckets.div_ceil(bucket_blocks);
        let column_blocks = columns.div_ceil(MOST_WARPS / bucket_warps);
        let column_warps = columns.div_ceil(column_blocks);
        Self { bucket_warps, column_warps, bucket_blocks, column_blocks }
    }

    fn blocks(&self) -> usize {
        self.bucket_blocks * self.column_blocks
    }

    fn threads(&self) -> usize {
        32 * self.bucket_warps * self.column_warps
    }

    /// Bytes of shared memory of a block with so many tiles in flight, as sdim.cu divides it.
    fn shared<T: Element>(&self, op: &Sdim, stages: usize, hashing: bool) -> usize {
        let columns = self.column_warps * WARP_COLUMNS;
        let tile = TILE_ROWS * (columns * size_of::<T>() + 16);
        let groups = (self.bucket_warps * WARP_BUCKETS / op.buckets() + 2).min(op.groups);
        let codes = groups.next_multiple_of(2) * (TILE_ROWS + 16 / size_of::<T>()) * 2;
        // The room between two bits is at most 31 words. Of 16-bit rows' rotations there are three parts.
        let function = if size_of::<T>() == 2 { 3 * (columns + 8) * 2 } else { (columns + 4) * 4 };
        let rotations = op.bits * (op.groups * function + 3 * 31 * 4);
        stages * tile + codes + if hashing { rotations } else { 0 }
    }
}

pub(super) fn encode<T: Element>(
    gpu: &Cuda,
    operation: &'static str,
    op: &Sdim,
    histories: &CudaJagged,
    inputs: &SdimHistory<'_, CudaMemory, T>,
    table: ViewMut<'_, CudaMemory, f32>,
    append: bool,
) -> Result<()> {
    let jagged = histories.as_ref();
    op.check_encode(operation, jagged, inputs)?;
    op.check_table(operation, jagged.users(), table.len())?;
    if jagged.users() == 0 {
        return Ok(());
    }
    let sizes = Sizes::of(operation, op)?;
    let rows = gpu.region(operation, &inputs.rows)?;
    let table = gpu.region_mut(operation, &table)?;
    let one_hot = op.bits <= ONE_HOT_BITS;
    let shares = Shares::of(op);
    let blocks = if one_hot { shares.blocks() } else { op.groups * op.buckets() / SCATTER_BUCKETS };
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: 1,
        step: STEP,
        // Every part has a table of its own.
        wanted: (PIECES * gpu.multiprocessors())
            .div_ceil(blocks)
            .min(PARTIAL_BYTES / (sizes.table * 4))
            .max(1),
        longest: 1 << 31,
    };
    let plan = histories.per_user.plan(gpu, operation, &cut)?;
    let mut call = gpu.call(operation);
    let call = &mut call;
    let partial = call.scratch(plan.plan.slots * sizes.table * 4)?;
    let target = Target { plan: &plan, table: table.pointer, partial, append };
    if one_hot {
        multiply(gpu, call, op, jagged.total(), inputs, rows, &shares, &target)?;
    } else {
        scatter(gpu, call, op, jagged.total(), inputs, rows, &target)?;
    }
    let blocks_a_table = sizes.table.div_ceil(FLAT_THREADS as usize);
    let params = MergeParams {
        merges: plan.merges.pointer(),
        partial,
        table: table.pointer,
        size: sizes.table as u64,
        blocks_a_table: blocks_a_table as u64,
        append: append.into(),
        unused: 0,
    };
    let kernel = Kernel::new("sdim", "sdim_merge", FLAT_THREADS);
    call.launch(&kernel, plan.merge_count * blocks_a_table, &params)
}

/// Where bucket sums go.
struct Target<'a> {
    plan: &'a DevicePlan,
    table: u64,
    partial: u64,
    append: bool,
}

#[expect(clippy::too_many_arguments, reason = "one part of `encode`")]
fn multiply<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    inputs: &SdimHistory<'_, CudaMemory, T>,
    rows: Region<T>,
    shares: &Shares,
    target: &Target<'_>,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    // A block that has the whole table hashes as it reads, if the rotations fit beside the rows.
    let hashing = matches!(inputs.hash, Hash::Rotations(_))
        && shares.blocks() == 1
        && shares.shared::<T>(op, 1, true) <= SHARED;
    let (rotations, codes) = match &inputs.hash {
        Hash::Rotations(rotations) if hashing => {
            let rotations = gpu.region(call.operation, rotations)?.pointer;
            (rotations, Codes { pointer: 0, bytes: 0, record: 0 })
        }
        hash => (0, codes(gpu, call, op, count, Some(inputs.rows), hash)?),
    };
    let stages = if shares.shared::<T>(op, 2, hashing) <= SHARED { 2 } else { 1 };
    let params = EncodeParams {
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
        append: target.append.into(),
        vectors: rows.vectors(op.width, 16).into(),
        stages: stages as u32,
        unused: 0,
    };
    let name = format!("sdim_encode_{}", suffix::<T>());
    let kernel = Kernel::new("sdim", name, shares.threads() as u32)
        .with_shared(shares.shared::<T>(op, stages, hashing) as u32);
    call.launch(&kernel, target.plan.plan.pieces.len() * shares.blocks(), &params)
}

fn scatter<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    inputs: &SdimHistory<'_, CudaMemory, T>,
    rows: Region<T>,
    target: &Target<'_>,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    let codes = codes(gpu, call, op, count, Some(inputs.rows), &inputs.hash)?;
    check(call, op, count, codes)?;
    let params = ScatterParams {
        pieces: target.plan.pieces.pointer(),
        rows: rows.pointer,
        codes: codes.pointer,
        table: target.table,
        partial: target.partial,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: codes.bytes,
        append: target.append.into(),
        unused: 0,
    };
    let kernel = Kernel::new("sdim_scan", format!("sdim_scatter_{}", suffix::<T>()), SCAN_THREADS);
    let blocks = op.groups * (op.buckets() / SCATTER_BUCKETS) * op.width.div_ceil(SCATTER_COLUMNS);
    call.launch(&kernel, target.plan.plan.pieces.len() * blocks, &params)
}

pub(super) fn add_tables(
    gpu: &Cuda,
    op: &Sdim,
    table: ViewMut<'_, CudaMemory, f32>,
    other: View<'_, CudaMemory, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_add_tables";
    let length = op.check_add(table.len(), other.len())?;
    let (table, other) = (gpu.region_mut(NAME, &table)?, gpu.region(NAME, &other)?);
    let params = AddParams { table: table.pointer, other: other.pointer, length: length as u64 };
    let kernel = Kernel::new("sdim", "sdim_add", FLAT_THREADS);
    gpu.call(NAME).launch(&kernel, length.div_ceil(FLAT_THREADS as usize), &params)
}

pub(super) fn query<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    targets: &CudaJagged,
    inputs: &SdimQuery<'_, CudaMemory, T>,
    out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    const NAME: &str = "sdim_query";
    let jagged = targets.as_ref();
    op.check_query(jagged, inputs)?;
    op.check_output(NAME, jagged, out.len())?;
    let sizes = Sizes::of(NAME, op)?;
    let count = jagged.total();
    let (table, out) = (gpu.region(NAME, &inputs.table)?, gpu.region_mut(NAME, &out)?);
    let offsets = targets.offsets(gpu, NAME)?;
    let mut call = gpu.call(NAME);
    let codes = codes(gpu, &mut call, op, count, inputs.targets, &inputs.hash)?;
    let params = QueryParams {
        places: offsets.pointer(),
        table: table.pointer,
        codes: codes.pointer,
        out: out.pointer,
        record: codes.record,
        count: count as u64,
        users: fit(NAME, "users", jagged.users())?,
        code_bytes: codes.bytes,
        vectors: table.vectors(op.width, 16).into(),
        ..query_params(op, &sizes)
    };
    let kernel = Kernel::new("sdim_query", format!("sdim_query_{}", suffix::<T>()), SCAN_THREADS);
    call.launch(&kernel, count.div_ceil(QUERY_ROWS), &params)
}

fn query_params(op: &Sdim, sizes: &Sizes) -> QueryParams {
    QueryParams {
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        normalise: op.normalise.into(),
        inverse_groups: 1.0 / op.groups as f32,
        ..QueryParams::zeroed()
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    batch: &CudaBatch,
    inputs: &SdimInputs<'_, CudaMemory, T>,
    out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    const NAME: &str = "sdim_attend";
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(batch.as_ref(), inputs)?;
    op.check_output(NAME, targets, out.len())?;
    let sizes = Sizes::of(NAME, op)?;
    let count = targets.total();
    let (rows, out) = (gpu.region(NAME, &inputs.history.rows)?, gpu.region_mut(NAME, &out)?);
    let size = op.groups * op.width;
    let wanted = (PIECES * gpu.multiprocessors()).min(PARTIAL_BYTES / (size * 4)).max(1);
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: TILE_ROWS, wanted, longest: 1 << 31 };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let mut call = gpu.call(NAME);
    let call = &mut call;
    let history = codes(gpu, call, op, histories.total(), Some(inputs.history.rows), &inputs.history.hash)?;
    check(call, op, histories.total(), history)?;
    let wished = codes(gpu, call, op, count, inputs.targets, &inputs.hash)?;
    check(call, op, count, wished)?;
    let places = plan.plan.slots + plan.plan.tiles.len();
    fit(NAME, "partial results", places)?;
    let sums = call.scratch(places * size * 4)?;
    let first_whole = plan.plan.slots as u32;
    let params = SumsParams {
        pieces: plan.pieces.pointer(),
        rows: rows.pointer,
        codes: history.pointer,
        target_codes: wished.pointer,
        sums,
        width: sizes.width,
        groups: sizes.groups,
        code_bytes: history.bytes,
        target_code_bytes: wished.bytes,
        first_whole,
        unused: 0,
    };
    let kernel = Kernel::new("sdim_scan", format!("sdim_sums_{}", suffix::<T>()), SCAN_THREADS);
    call.launch(&kernel, plan.plan.pieces.len() * op.groups.div_ceil(SUMS_GROUPS), &params)?;
    let params = QueryParams {
        places: plan.tiles.pointer(),
        table: sums,
        out: out.pointer,
        count: count as u64,
        // Scratch is aligned.
        vectors: op.width.is_multiple_of(4).into(),
        first_whole,
        ..query_params(op, &sizes)
    };
    let kernel = Kernel::new("sdim_query", format!("sdim_query_sums_{}", suffix::<T>()), SCAN_THREADS);
    call.launch(&kernel, count.div_ceil(QUERY_ROWS), &params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::f16;

    #[test]
    fn shares_cover_the_table_and_fit_a_block() {
        for (width, groups, bits) in
            [(64, 16, 3), (128, 16, 3), (1, 1, 1), (300, 3, 6), (7, 100, 6), (5000, 1, 1)]
        {
            let op = Sdim::new(width).with_groups(groups, bits);
            let shares = Shares::of(&op);
            assert!(shares.bucket_warps * shares.bucket_blocks * WARP_BUCKETS >= groups << bits);
            assert!(shares.column_warps * shares.column_blocks * WARP_COLUMNS >= width);
            assert!(shares.threads() <= 32 * MOST_WARPS);
            assert!(shares.shared::<f32>(&op, 1, false) <= SHARED);
        }
        // The paper's sizes are hashed and added in one pass.
        for width in [64, 128] {
            let op = Sdim::new(width);
            assert_eq!(Shares::of(&op).blocks(), 1);
            assert!(Shares::of(&op).shared::<f32>(&op, 1, true) <= SHARED);
        }
        assert!(Shares::of(&Sdim::new(64)).shared::<f16>(&Sdim::new(64), 2, true) <= 48 << 10);
    }
}
