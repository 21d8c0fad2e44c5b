//! Look-ups: gathers rows, or pools them over bags; sorted ids, gradients and optimisers in files of their own.

pub(super) mod backward;
pub(super) mod order;
pub(super) mod sort;
pub(super) mod update;
pub(super) mod weights;

use bytemuck::Zeroable;

use crate::cuda::batch::CudaJagged;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::weights::BagIds;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::{COLUMNS, DeviceTable, MOST_TABLES, record, table_of_rows, tables};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;
use crate::plan::{Cut, Pace};

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

    fn sort_ids_into(
        &self,
        column: IdColumn<'_, CudaMemory>,
        out: SortedIdsMut<'_, CudaMemory>,
    ) -> Result<()> {
        sort::sort_ids(self, &column, &out)
    }

    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, CudaJagged>,
        inputs: LookupInputs<'_, CudaMemory>,
        saved: LookupSaved<'_, CudaMemory>,
        grad_out: LookupGradOut<'_, CudaMemory>,
        grads: LookupGradients<'_, CudaMemory>,
    ) -> Result<()> {
        backward::backward(self, op, bags, &inputs, (&saved, &grad_out), &grads)
    }

    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, CudaMemory, T>,
        state: OptimiserState<'_, CudaMemory>,
        gradient: SparseGradient<'_, CudaMemory>,
    ) -> Result<()> {
        update::update_rows(self, op, &table, &state, &gradient)
    }
}

const NAME: &str = "lookup";
/// Reads a row per id.
const EACH: Kernel = Kernel::new("lookup", "lookup_each", 256, 22);
/// Sums the rows of a piece of a bag.
const BAGS: Kernel = Kernel::new("lookup", "lookup_bags", 256, 48);
/// The same with a weight for each id.
const WEIGHTED_BAGS: Kernel = Kernel::new("lookup", "lookup_weighted_bags", 256, 59);
/// Combines the sums of pieces.
const COMBINE: Kernel = Kernel::new("lookup", "lookup_combine", 256, 32);
/// Looks for ids outside their tables that no other kernel reads.
const CHECK: Kernel = Kernel::new("lookup", "lookup_check", 256, 16);
const THREADS: usize = 256;
/// Rows per step of the plan, and what pieces of bags cost, in cycles.
const STEP: usize = 16;
const PACE: Pace = Pace {
    resident: 1,
    step: 800,
    row: 0,
    piece: 1500,
    combine: 4500,
    slot: 40,
    fewest_steps: 1,
    shrinks: false,
};
/// The most rows of a piece, which are summed by blocks of 256: no chain of additions is longer than a few hundred.
const LONGEST: usize = 1 << 16;

twins! {
    /// `kernels/lookup/lookup.cu`
    pub(in crate::cuda) struct LookupColumn {
        out: u64,
        out_width: u64,
        first_column: u32,
        feature: u32,
    }
}

twins! {
    /// `kernels/lookup/lookup.cu`
    pub(in crate::cuda) struct LookupParams {
        ids: u64,
        pieces: u64,
        tiles: u64,
        partial: u64,
        scaled: u64,
        record: u64,
        weights: u64,
        counts: u64,
        rows: u64,
        features: u32,
        count: u32,
        vec4s: u32,
        mean: u32,
        tables: [DeviceTable; MOST_TABLES],
        columns: [LookupColumn; MOST_TABLES],
    }
}

/// Checks the first `rows` rows of ids that no other kernel reads.
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
        call.launch(&CHECK.blocks(blocks), &params)?;
    }
    Ok(())
}

/// Tables whose rows are concatenated in one output.
struct Output<'a> {
    pointer: u64,
    tables: &'a [Table<'a, CudaMemory>],
}

/// The parameters of the launches that read all tables, up to [`MOST_TABLES`] per launch.
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
            columns.push(LookupColumn {
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
        let (words, vec4s) = tables(gpu, operation, argument, all)?;
        let mut params = LookupParams { features, count: words.len() as u32, vec4s, ..params };
        params.tables[..words.len()].copy_from_slice(&words);
        params.columns[..words.len()].copy_from_slice(columns);
        launches.push(params);
    }
    Ok(launches)
}

/// Gathers the rows of ids, concatenated; zeros for ids outside their tables, which are not reported.
pub(in crate::cuda) fn gather(
    gpu: &Cuda,
    call: &Call<'_>,
    tables: &[Table<'_, CudaMemory>],
    ids: u64,
    rows: usize,
    out: u64,
) -> Result<()> {
    let params = LookupParams { ids, rows: rows as u64, ..Zeroable::zeroed() };
    for params in launches(gpu, call.operation, "tables", params, &[Output { pointer: out, tables }])? {
        call.launch(&EACH.blocks(blocks(rows, params.vec4s)), &params)?;
    }
    Ok(())
}

/// Gathers `rows` of the rows of an argument, so many of so many numbers each, by index, as `f32`; zeros for an index outside.
pub(in crate::cuda) fn gather_rows<T: Element>(
    call: &Call<'_>,
    (argument, from): (&'static str, Region<T>),
    (count, width): (usize, usize),
    (ids, rows): (u64, usize),
    out: u64,
) -> Result<()> {
    let table = table_of_rows(call.operation, argument, from, (count, width))?;
    let vec4s = width.div_ceil(COLUMNS) as u32;
    let mut params =
        LookupParams { ids, rows: rows as u64, features: 1, count: 1, vec4s, ..Zeroable::zeroed() };
    params.tables[0] = table;
    params.columns[0] = LookupColumn { out, out_width: width as u64, first_column: 0, feature: 0 };
    call.launch(&EACH.blocks(blocks(rows, vec4s)), &params)
}

/// Blocks of a launch over `rows` rows of `vec4s` each.
fn blocks(rows: usize, vec4s: u32) -> usize {
    rows.div_ceil((THREADS / vec4s as usize).max(1))
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
    let weights = match &inputs.weights {
        Some(weights) => gpu.region(NAME, weights)?.pointer,
        None => 0,
    };
    let mut call = gpu.begin(NAME);
    let record = record(&call, "ids", op.ids, ids, inputs.tables)?;
    let params = LookupParams { ids: ids.pointer, record, weights, rows: rows as u64, ..Zeroable::zeroed() };
    let (bags, mean) = match bags {
        Bags::Each => {
            for params in launches(gpu, NAME, "tables", params, &outputs)? {
                call.launch(&EACH.blocks(blocks(rows, params.vec4s)), &params)?;
            }
            return call.finish();
        }
        Bags::Sum(bags) => (bags, 0),
        Bags::Mean(bags) => (bags, 1),
    };
    let counts = match op.ids {
        IdPolicy::Skip if mean == 1 => BagIds::new(gpu, NAME, ids, inputs.tables, bags)?.count(&mut call)?,
        _ => 0,
    };
    let kernel = if inputs.weights.is_some() { WEIGHTED_BAGS } else { BAGS };
    let resident = gpu.resident(&kernel, THREADS, 0);
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: STEP, longest: LONGEST, pace: PACE.on(resident) };
    let plan = bags.per_user.plan(gpu, NAME, &cut)?;
    for params in launches(gpu, NAME, "tables", LookupParams { mean, counts, ..params }, &outputs)? {
        let size = params.vec4s as usize * COLUMNS * size_of::<f32>();
        let partial = plan.plan.slots.saturating_mul(size);
        // Means have a second sum, for where the first is not finite.
        let [partial, scaled] = match plan.plan.slots {
            0 => [0, 0],
            _ => [call.scratch(partial)?, if mean == 1 { call.scratch(partial)? } else { 0 }],
        };
        let pieces = plan.plan.pieces.len();
        let rows = pieces as u64;
        let params = LookupParams { pieces: plan.pieces.pointer(), partial, scaled, rows, ..params };
        call.launch(&kernel.blocks(blocks(pieces, params.vec4s)), &params)?;
        let bags = plan.split_count;
        let params = LookupParams { tiles: plan.split_tiles.pointer(), rows: bags as u64, ..params };
        call.launch(&COMBINE.blocks(blocks(bags, params.vec4s)), &params)?;
    }
    call.finish()
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    let own = vec![EACH, BAGS, WEIGHTED_BAGS, COMBINE, CHECK];
    [own, sort::table(), order::table(), backward::table(), update::table(), weights::table()].concat()
}
