//! Columns of ids in order: `kernels/lookup/sort.cu`.

use bytemuck::Zeroable;

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{Bound, SortPlan, fit};
use crate::ops::{IdColumn, IdPolicy, SortedIdsMut};

const NAME: &str = "sort_ids";
/// Writes the keys of ids.
const LOAD: Kernel = Kernel::new("lookup_sort", "sort_load", 256, 14);
/// Counts the digits of a block's keys.
const COUNT: Kernel = Kernel::new("lookup_sort", "sort_count", 256, 20);
/// Adds up the counts of blocks.
const SCAN: Kernel = Kernel::new("lookup_sort", "sort_scan", 256, 30);
/// Moves keys and positions.
const SCATTER: Kernel = Kernel::new("lookup_sort", "sort_scatter", 256, 64);
/// Counts the different keys of a block.
const HEADS: Kernel = Kernel::new("lookup_sort", "sort_heads", 256, 19);
/// Writes ids, starts and positions.
const RUNS: Kernel = Kernel::new("lookup_sort", "sort_runs", 256, 40);

/// The most bits of a digit.
const DIGIT_BITS: u32 = 8;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Digits of a block of [`SCAN`].
const WARPS: usize = 8;
const KEYS_PER_BLOCK: usize = 2048;
const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/lookup/sort.cu`
    pub(in crate::cuda) struct SortIdsParams {
        ids: u64,
        more_ids: u64,
        record: u64,
        more_record: u64,
        from_keys: u64,
        from_positions: u64,
        to_keys: u64,
        to_positions: u64,
        counts: u64,
        totals: u64,
        out_ids: u64,
        out_starts: u64,
        out_positions: u64,
        out_count: u64,
        rows: u64,
        first: u32,
        length: u32,
        features: u32,
        feature: u32,
        shift: u32,
        digits: u32,
        blocks: u32,
        unused: u32,
    }
}

/// A column of ids to be sorted.
pub(in crate::cuda) struct Column {
    /// The first of the ids.
    pub(in crate::cuda) ids: u64,
    pub(in crate::cuda) more_ids: u64,
    /// Where ids outside the table are reported; 0: nowhere.
    pub(in crate::cuda) records: [u64; 2],
    /// The positions of `ids`, and of both.
    pub(in crate::cuda) lengths: [usize; 2],
    pub(in crate::cuda) features: usize,
    pub(in crate::cuda) feature: usize,
    /// Of the table.
    pub(in crate::cuda) rows: usize,
}

/// Where ids in order are written, or read.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct SortedPointers {
    pub(in crate::cuda) ids: u64,
    pub(in crate::cuda) starts: u64,
    pub(in crate::cuda) positions: u64,
    pub(in crate::cuda) count: u64,
}

/// Scratch memory of a sort of so many positions: keys and positions twice, and counts.
pub(super) struct SortScratch {
    keys: [u64; 2],
    positions: [u64; 2],
    counts: u64,
    totals: u64,
}

impl SortScratch {
    pub(super) fn new(call: &mut Call<'_>, length: usize) -> Result<Self> {
        let bytes = length.saturating_mul(WORD);
        let keys = [call.scratch(bytes)?, call.scratch(bytes)?];
        let positions = [call.scratch(bytes)?, call.scratch(bytes)?];
        let counts = call.scratch(length.div_ceil(KEYS_PER_BLOCK).saturating_mul(DIGITS * WORD))?;
        Ok(Self { keys, positions, counts, totals: call.scratch(DIGITS * WORD)? })
    }

    /// Sorts a column whose positions are no more than the scratch memory is for.
    pub(super) fn sort(&self, call: &Call<'_>, column: &Column, out: &SortedPointers) -> Result<()> {
        let [first, length] = column.lengths;
        let plan = SortPlan::new(length, column.rows, DIGIT_BITS, KEYS_PER_BLOCK);
        let params = SortIdsParams {
            ids: column.ids,
            more_ids: column.more_ids,
            record: column.records[0],
            more_record: column.records[1],
            to_keys: self.keys[0],
            counts: self.counts,
            totals: self.totals,
            out_ids: out.ids,
            out_starts: out.starts,
            out_positions: out.positions,
            out_count: out.count,
            rows: column.rows as u64,
            first: fit(call.operation, "ids", first)?,
            length: fit(call.operation, "ids", length)?,
            features: fit(call.operation, "ids", column.features)?,
            feature: fit(call.operation, "ids", column.feature)?,
            blocks: fit(call.operation, "ids", plan.blocks)?,
            ..Zeroable::zeroed()
        };
        call.launch(&LOAD.blocks(length.div_ceil(LOAD.threads as usize)), &params)?;
        let side = |pass: u32| (pass % 2) as usize;
        for pass in 0..plan.passes {
            let params = SortIdsParams {
                from_keys: self.keys[side(pass)],
                from_positions: if pass == 0 { 0 } else { self.positions[side(pass)] },
                to_keys: self.keys[side(pass + 1)],
                to_positions: self.positions[side(pass + 1)],
                shift: pass * plan.digit_bits,
                digits: 1 << plan.digit_bits,
                ..params
            };
            call.launch(&COUNT.blocks(plan.blocks), &params)?;
            let digits = if length == 0 { 0 } else { params.digits as usize };
            call.launch(&SCAN.blocks(digits.div_ceil(WARPS)), &params)?;
            call.launch(&SCATTER.blocks(plan.blocks), &params)?;
        }
        let from = side(plan.passes);
        let params = SortIdsParams {
            from_keys: self.keys[from],
            from_positions: self.positions[from],
            digits: 1,
            ..params
        };
        call.launch(&HEADS.blocks(plan.blocks), &params)?;
        call.launch(&SCAN.blocks(1), &params)?;
        call.launch(&RUNS.blocks(plan.blocks.max(1)), &params)
    }
}

pub(super) fn sort_ids(
    gpu: &Cuda,
    column: &IdColumn<'_, CudaMemory>,
    out: &SortedIdsMut<'_, CudaMemory>,
) -> Result<()> {
    let length = column.check_outputs(out)?;
    let features = column.features;
    let ids = gpu.region(NAME, &column.ids)?;
    let more_ids = match &column.more_ids {
        Some(more_ids) => gpu.region(NAME, more_ids)?,
        None => Region::new(0, 0),
    };
    let out = SortedPointers {
        ids: gpu.region_mut(NAME, &out.ids)?.pointer,
        starts: gpu.region_mut(NAME, &out.starts)?.pointer,
        positions: gpu.region_mut(NAME, &out.positions)?.pointer,
        count: gpu.region_mut(NAME, &out.count)?.pointer,
    };
    fit(NAME, "ids", length)?;
    let mut call = gpu.begin(NAME);
    let bound = || Bound::Columns(vec![column.rows as u64; features]);
    let records = match column.policy {
        IdPolicy::Error => {
            [call.record("ids", ids.length, bound())?, call.record("more_ids", more_ids.length, bound())?]
        }
        IdPolicy::Zero | IdPolicy::Skip => [0, 0],
    };
    let scratch = SortScratch::new(&mut call, length)?;
    let column = Column {
        ids: ids.pointer,
        more_ids: more_ids.pointer,
        records,
        lengths: [ids.length / features, length],
        features,
        feature: column.feature,
        rows: column.rows,
    };
    scratch.sort(&call, &column, &out)?;
    call.finish()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![LOAD, COUNT, SCAN, SCATTER, HEADS, RUNS]
}
