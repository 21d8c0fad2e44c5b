//! Look-ups: gathers rows, or pools them over bags.

use bytemuck::{Pod, Zeroable};

use crate::cuda::batch::CudaJagged;
use crate::cuda::call::{Call, Kernel};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::{COLUMNS, MOST_TABLES, TableWords, record, tables};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;
use crate::plan::Cut;

impl LookupOps for Cuda {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, CudaJagged>,
        inputs: LookupInputs<'_, CudaMemory>,
        outputs: LookupOutputs<'_, CudaMemory>,
    ) -> Result<()> {
        lookup(self, op, bags, &inputs, outputs)
    }
}

const NAME: &str = "lookup";
const THREADS: usize = 256;
/// Pieces of bags a multiprocessor, so that few long bags keep it busy, and the rows by which they are cut.
const PIECES: usize = 8;
const STEP: usize = 16;

/// `Column` of lookup.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Column {
    out: u64,
    out_width: u64,
    first_column: u32,
    feature: u32,
}

/// `LookupParams` of lookup.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct LookupParams {
    ids: u64,
    pieces: u64,
    merges: u64,
    partial: u64,
    record: u64,
    rows: u64,
    features: u32,
    count: u32,
    fours: u32,
    mean: u32,
    tables: [TableWords; MOST_TABLES],
    columns: [Column; MOST_TABLES],
}

/// Looks for ids outside their tables among the first `rows` rows of ids that no kernel reads.
pub(super) fn check_ids(
    gpu: &Cuda,
    call: &Call<'_>,
    argument: &'static str,
    policy: IdPolicy,
    ids: Region<u32>,
    rows: usize,
    tables: &[Table<'_, CudaMemory>],
) -> Result<()> {
    let record = record(call, argument, policy, ids, tables)?;
    if record == 0 {
        return Ok(());
    }
    let nowhere = Output { pointer: 0, tables };
    let params = LookupParams { ids: ids.pointer, record, rows: rows as u64, ..Zeroable::zeroed() };
    for params in launches(gpu, call.operation, "tables", params, &[nowhere])? {
        let blocks = (rows * params.count as usize).div_ceil(THREADS);
        call.launch(&Kernel::new(NAME, "lookup_check", THREADS as u32), blocks, &params)?;
    }
    Ok(())
}

/// Tables whose rows go side by side into one output.
struct Output<'a> {
    pointer: u64,
    tables: &'a [Table<'a, CudaMemory>],
}

/// The parameters of the launches that read all tables, as many as a launch has room for at a time.
fn launches(
    gpu: &Cuda,
    operation: &'static str,
    argument: &'static str,
    params: LookupParams,
    outputs: &[Output<'_>],
) -> Result<Vec<LookupParams>> {
    let (mut all, mut columns) = (Vec::new(), Vec::new());
    for output in outputs {
        let mut first_column = 0;
        for (feature, table) in output.tables.iter().enumerate() {
            all.push(*table);
            columns.push(Column {
                out: output.pointer,
                out_width: total_width(output.tables) as u64,
                first_column: fit(operation, argument, first_column)?,
                feature: fit(operation, argument, feature)?,
            });
            first_column += table.width;
        }
    }
    let features = fit(operation, argument, outputs.first().map_or(0, |output| output.tables.len()))?;
    let mut launches = Vec::new();
    for (all, columns) in all.chunks(MOST_TABLES).zip(columns.chunks(MOST_TABLES)) {
        let (words, fours) = tables(gpu, operation, argument, all)?;
        let mut params = LookupParams { features, count: words.len() as u32, fours, ..params };
        params.tables[..words.len()].copy_from_slice(&words);
        params.columns[..words.len()].copy_from_slice(columns);
        launches.push(params);
    }
    Ok(launches)
}

/// Blocks of a launch over so many rows.
fn blocks(rows: usize, fours: u32) -> usize {
    rows.div_ceil((THREADS / fours as usize).max(1))
}

pub(super) fn lookup(
    gpu: &Cuda,
    op: &Lookup,
    bags: Bags<'_, CudaJagged>,
    inputs: &LookupInputs<'_, CudaMemory>,
    outputs: LookupOutputs<'_, CudaMemory>,
) -> Result<()> {
    let rows = op.check(&bags, inputs)?;
    op.check_outputs(rows, inputs, &outputs)?;
    let ids = gpu.region(NAME, &inputs.ids)?;
    let second = match &outputs.second {
        Some(second) => gpu.region_mut(NAME, second)?.pointer,
        None => 0,
    };
    let outputs = [
        Output { pointer: gpu.region_mut(NAME, &outputs.out)?.pointer, tables: inputs.tables },
        Output { pointer: second, tables: inputs.second_tables },
    ];
    let mut call = gpu.call(NAME);
    let record = record(&call, "ids", op.ids, ids, inputs.tables)?;
    let params = LookupParams { ids: ids.pointer, record, rows: rows as u64, ..Zeroable::zeroed() };
    let kernel = |name| Kernel::new(NAME, name, THREADS as u32);
    let (bags, mean) = match bags {
        Bags::Each => {
            for params in launches(gpu, NAME, "tables", params, &outputs)? {
                call.launch(&kernel("lookup_each"), blocks(rows, params.fours), &params)?;
            }
            return Ok(());
        }
        Bags::Sum(bags) => (bags, 0),
        Bags::Mean(bags) => (bags, 1),
    };
    let wanted = PIECES * gpu.multiprocessors();
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: STEP, wanted, longest: usize::MAX };
    let plan = bags.per_user.plan(gpu, NAME, &cut)?;
    for params in launches(gpu, NAME, "tables", LookupParams { mean, ..params }, &outputs)? {
        let size = params.fours as usize * COLUMNS * size_of::<f32>();
        let partial =
            if plan.plan.slots > 0 { call.scratch(plan.plan.slots.saturating_mul(size))? } else { 0 };
        let pieces = plan.plan.pieces.len();
        let params = LookupParams { pieces: plan.pieces.pointer(), partial, rows: pieces as u64, ..params };
        call.launch(&kernel("lookup_bags"), blocks(pieces, params.fours), &params)?;
        let bags = plan.merge_count;
        let params = LookupParams { merges: plan.merges.pointer(), rows: bags as u64, ..params };
        call.launch(&kernel("lookup_merge"), blocks(bags, params.fours), &params)?;
    }
    Ok(())
}
