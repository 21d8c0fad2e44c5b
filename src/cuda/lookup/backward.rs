//! Gradients of tables: `kernels/lookup/backward.cu`.

use bytemuck::Zeroable;

use crate::cuda::batch::CudaJagged;
use crate::cuda::call::Call;
use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::check_ids;
use crate::cuda::lookup::order::{Given, GivenRuns};
use crate::cuda::lookup::sort::{Column, SortScratch, SortedPointers};
use crate::cuda::lookup::weights::IdWeights;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::COLUMNS;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{fit, head_levels};
use crate::ops::*;

const NAME: &str = "lookup_backward";
/// Finds the bag of each position.
const BAGS: Kernel = Kernel::new("lookup_backward", "bags_of_rows", 256, 16);
/// Writes the ids of a sparse gradient.
const IDS: Kernel = Kernel::new("lookup_backward", "gradient_ids", 256, 10);
/// Clears a dense gradient.
const CLEAR: Kernel = Kernel::new("lookup_backward", "gradient_clear", 256, 10);
/// Adds up the rows of a window.
const WINDOWS: Kernel = Kernel::new("lookup_backward", "gradient_windows", 128, 64);
/// Adds up the heads of a level.
const HEADS: Kernel = Kernel::new("lookup_backward", "gradient_heads", 256, 32);
/// Adds heads to the rows of long runs.
const LONG_RUNS: Kernel = Kernel::new("lookup_backward", "gradient_long_runs", 256, 34);
const THREADS: usize = 256;
/// Vec4s of a lane of [`WINDOWS`], and the fewest and the most lanes that take a window together.
const SPAN: usize = 2;
const LANES: [usize; 2] = [4, WARP];
const WARP: usize = 32;
const WORD: usize = size_of::<u32>();
/// Levels of heads over 2³² positions, and one more.
const MOST_LEVELS: usize = 7;
/// How far loops over positions step past the end, at most: a `u32` must hold that, too.
pub(in crate::cuda) const STEP: usize = 1 << 10;

twins! {
    /// `kernels/lookup/backward.cu`
    pub(in crate::cuda) struct BagsOfRowsParams {
        offsets: u64,
        bags: u64,
        rows: u64,
        bag_count: u32,
        mean: u32,
    }

    /// `kernels/lookup/backward.cu`
    pub(in crate::cuda) struct TableGradientParams {
        ids: u64,
        starts: u64,
        positions: u64,
        count: u64,
        is_wrong: u64,
        bags: u64,
        grad: u64,
        out: u64,
        out_ids: u64,
        out_count: u64,
        heads: [u64; MOST_LEVELS],
        leaving: u64,
        items: u64,
        grad_bytes: u32,
        width: u32,
        vec4s: u32,
        dense: u32,
        vectors: u32,
        levels: u32,
        level: u32,
        lanes: u32,
    }
}

/// Where the gradient of a table goes, and what it is a sum of.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Job {
    /// The table's first column of the gradient that comes in.
    pub(in crate::cuda) grad: Region<f32>,
    pub(in crate::cuda) grad_width: usize,
    pub(in crate::cuda) width: usize,
    /// Of the table.
    pub(in crate::cuda) rows: usize,
    pub(in crate::cuda) out: u64,
    /// Ids and count of a sparse gradient; `None` of a dense one.
    pub(in crate::cuda) sparse: Option<[u64; 2]>,
}

/// Ids in order that kernels read.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Runs {
    pub(in crate::cuda) sorted: SortedPointers,
    /// 0: nothing is.
    is_wrong: u64,
    /// The most ids and positions that there may be.
    pub(in crate::cuda) ids: usize,
    places: usize,
}

pub(super) fn backward(
    gpu: &Cuda,
    op: &Lookup,
    bags: Bags<'_, CudaJagged>,
    inputs: &LookupInputs<'_, CudaMemory>,
    (saved, grad_out): (&LookupSaved<'_, CudaMemory>, &LookupGradOut<'_, CudaMemory>),
    grads: &LookupGradients<'_, CudaMemory>,
) -> Result<()> {
    let used = op.check_backward(&bags, inputs, saved, grad_out, grads)?;
    fit(NAME, "ids", used.saturating_add(STEP))?;
    let features = inputs.tables.len();
    let ids = gpu.region(NAME, &inputs.ids)?;
    let grad = gpu.region(NAME, &grad_out.out)?;
    let first = jobs(gpu, NAME, inputs.tables, grad, &grads.tables)?;
    let second_grad = grad_out.second.as_ref().map(|second| gpu.region(NAME, second)).transpose()?;
    let second = match second_grad {
        Some(grad) => jobs(gpu, NAME, inputs.second_tables, grad, &grads.second_tables)?,
        None => Vec::new(),
    };
    let grad_weights = grads.weights.as_ref().map(|grad| gpu.region_mut(NAME, grad)).transpose()?;
    let given = saved.sorted.iter().zip(inputs.tables);
    let given: Vec<_> =
        given.map(|(sorted, table)| given_runs(gpu, sorted, table.rows, used)).collect::<Result<_>>()?;
    let offsets = match &bags {
        Bags::Each => None,
        Bags::Sum(bags) => Some((bags.offsets(gpu, NAME)?, bags.as_ref().users(), false)),
        Bags::Mean(bags) => Some((bags.offsets(gpu, NAME)?, bags.as_ref().users(), true)),
    };
    let all: Vec<&Job> = first.iter().chain(&second).flatten().collect();
    let mut call = gpu.begin(NAME);
    if given.is_empty() || grad_weights.is_some() {
        check_ids(gpu, &call, "ids", op.ids, ids, used, inputs.tables)?;
    }
    let is_wrong = call.scratch(features * WORD)?;
    for (feature, (given, runs)) in given.iter().enumerate() {
        given.check_sorted(&call, runs, is_wrong + (feature * WORD) as u64)?;
    }
    if all.is_empty() && grad_weights.is_none() {
        return call.finish();
    }
    let id_weights = IdWeights::new(gpu, &mut call, op, &bags, inputs)?;
    let bags = match (&id_weights, &offsets) {
        (Some(weights), _) => weights.bags,
        (None, Some((offsets, bags, mean))) => bags_of_rows(&mut call, offsets, (*bags, *mean), used)?,
        (None, None) => 0,
    };
    let places = saved.sorted.iter().map(|sorted| sorted.positions.len()).fold(used, usize::max);
    let heads = heads(&mut call, &all, places)?;
    let sorts = given.is_empty() && !all.is_empty();
    let own = sorts.then(|| OwnSort::new(&mut call, used)).transpose()?;
    if let (Some(weights), Some(out)) = (&id_weights, grad_weights) {
        weights.weigh(&call, 0)?;
        weights.gradient(gpu, &call, inputs.tables, grad, out.pointer, false)?;
        if let Some(grad) = second_grad {
            weights.gradient(gpu, &call, inputs.second_tables, grad, out.pointer, true)?;
        }
    }
    for (feature, table) in inputs.tables.iter().enumerate() {
        let jobs = [&first, &second].map(|jobs| jobs.get(feature).and_then(Option::as_ref));
        if jobs.iter().all(Option::is_none) {
            continue;
        }
        let runs = match &own {
            Some(own) => own.sort(&call, ids, [features, feature], [used, table.rows])?,
            None => {
                let (given, runs) = &given[feature];
                let GivenRuns { starts, positions, places, .. } = *runs;
                let sorted = SortedPointers { ids: given.ids, starts, positions, count: given.count };
                let is_wrong = is_wrong + (feature * WORD) as u64;
                Runs { sorted, is_wrong, ids: given.capacity, places }
            }
        };
        if let Some(weights) = &id_weights {
            weights.weigh(&call, feature)?;
        }
        jobs.into_iter().flatten().try_for_each(|job| job.run(&call, &runs, bags, heads))?;
    }
    call.finish()
}

/// The gradients asked for of some tables, one place for each table.
pub(in crate::cuda) fn jobs(
    gpu: &Cuda,
    operation: &'static str,
    tables: &[Table<'_, CudaMemory>],
    grad: Region<f32>,
    grads: &[Option<TableGradient<'_, CudaMemory>>],
) -> Result<Vec<Option<Job>>> {
    let grad_width = total_width(tables);
    let mut start = 0;
    let mut jobs = Vec::with_capacity(tables.len());
    for (table, gradient) in tables.iter().zip(grads) {
        let (width, rows) = (table.width, table.rows);
        // Kernels count the bytes of a row in 32 bits.
        fit(operation, "tables", width.saturating_add(COLUMNS).saturating_mul(WORD))?;
        let grad = Region::new(grad.pointer + (start * WORD) as u64, grad.length);
        start += width;
        let job = |out, sparse| Job { grad, grad_width, width, rows, out, sparse };
        jobs.push(match gradient {
            None => None,
            Some(TableGradient::Dense(rows)) => Some(job(gpu.region_mut(operation, rows)?.pointer, None)),
            Some(TableGradient::Sparse(gradient)) => {
                let ids = gpu.region_mut(operation, &gradient.ids)?.pointer;
                let count = gpu.region_mut(operation, &gradient.count)?.pointer;
                Some(job(gpu.region_mut(operation, &gradient.rows)?.pointer, Some([ids, count])))
            }
        });
    }
    Ok(jobs)
}

/// Ids in order that the caller gave.
fn given_runs(
    gpu: &Cuda,
    sorted: &SortedIds<'_, CudaMemory>,
    rows: usize,
    used: usize,
) -> Result<(Given, GivenRuns)> {
    // A gradient's capacity is at most the number of positions.
    let capacity = sorted.ids.len().min(used);
    let places = sorted.positions.len();
    // A kernel counts up to the end of the last window.
    fit(NAME, "sorted", places.saturating_add(STEP))?;
    let (ids, count) = (gpu.region(NAME, &sorted.ids)?.pointer, gpu.region(NAME, &sorted.count)?.pointer);
    let starts = gpu.region(NAME, &sorted.starts)?.pointer;
    let positions = gpu.region(NAME, &sorted.positions)?.pointer;
    Ok((Given { ids, count, capacity, rows }, GivenRuns { starts, positions, places, end: used }))
}

/// The address of the bag of each position and its weight.
fn bags_of_rows(
    call: &mut Call<'_>,
    offsets: &Allocation,
    (bags, mean): (usize, bool),
    used: usize,
) -> Result<u64> {
    let params = BagsOfRowsParams {
        offsets: offsets.pointer(),
        bags: call.scratch(used.saturating_mul(2 * WORD))?,
        rows: used as u64,
        bag_count: fit(NAME, "bags", bags)?,
        mean: u32::from(mean),
    };
    call.launch(&BAGS.blocks(used.div_ceil(THREADS)), &params)?;
    Ok(params.bags)
}

/// Scratch memory for the heads of the widest of some gradients, after a word for each window.
pub(in crate::cuda) fn heads(call: &mut Call<'_>, jobs: &[&Job], places: usize) -> Result<u64> {
    let vec4s = jobs.iter().map(|job| job.width.div_ceil(COLUMNS)).max().unwrap_or(0);
    let levels = head_levels(places);
    let nodes: usize = levels.iter().map(|level| level.nodes).sum();
    let bytes = nodes.saturating_mul(vec4s).saturating_mul(COLUMNS * WORD);
    call.scratch(bytes.saturating_add(words_of_windows(levels[0].nodes)))
}

/// The bytes of a word for each window, and what aligns the vec4s that follow.
fn words_of_windows(windows: usize) -> usize {
    windows.next_multiple_of(COLUMNS) * WORD
}

/// Memory for ids that the call sorts itself, one feature after the other.
pub(in crate::cuda) struct OwnSort {
    scratch: SortScratch,
    out: SortedPointers,
}

impl OwnSort {
    /// For so many positions.
    pub(in crate::cuda) fn new(call: &mut Call<'_>, used: usize) -> Result<Self> {
        let bytes = used.saturating_add(1).saturating_mul(WORD);
        let out = SortedPointers {
            ids: call.scratch(bytes)?,
            starts: call.scratch(bytes)?,
            positions: call.scratch(bytes)?,
            count: call.scratch(WORD)?,
        };
        Ok(Self { scratch: SortScratch::new(call, used)?, out })
    }

    fn sort(
        &self,
        call: &Call<'_>,
        ids: Region<u32>,
        [features, feature]: [usize; 2],
        [used, rows]: [usize; 2],
    ) -> Result<Runs> {
        let column = Column {
            ids: ids.pointer,
            more_ids: 0,
            records: [0, 0],
            lengths: [used, used],
            features,
            feature,
            rows,
        };
        self.sort_column(call, &column)
    }

    /// Sorts a column; the ids of an earlier one are lost.
    pub(in crate::cuda) fn sort_column(&self, call: &Call<'_>, column: &Column) -> Result<Runs> {
        self.scratch.sort(call, column, &self.out)?;
        let places = column.lengths[1];
        Ok(Runs { sorted: self.out, is_wrong: 0, ids: places.min(column.rows), places })
    }
}

impl Job {
    /// Writes the ids of a sparse gradient.
    pub(in crate::cuda) fn write_ids(&self, call: &Call<'_>, runs: &Runs) -> Result<()> {
        let [out_ids, out_count] = self.sparse.unwrap_or_default();
        let SortedPointers { ids, count, .. } = runs.sorted;
        let is_wrong = runs.is_wrong;
        let params = TableGradientParams { ids, count, is_wrong, out_ids, out_count, ..Zeroable::zeroed() };
        call.launch(&IDS.blocks(runs.ids.div_ceil(THREADS).max(1)), &params)
    }

    /// Sums the rows of the gradient that comes in by id.
    pub(in crate::cuda) fn run(&self, call: &Call<'_>, runs: &Runs, bags: u64, scratch: u64) -> Result<()> {
        let vec4s = self.width.div_ceil(COLUMNS);
        let levels = head_levels(runs.places);
        let heads = scratch + words_of_windows(levels[0].nodes) as u64;
        let mut pointers = [0; MOST_LEVELS];
        for (pointer, level) in pointers.iter_mut().zip(&levels) {
            *pointer = heads + (level.first * vec4s * COLUMNS * WORD) as u64;
        }
        let vec4 = COLUMNS * WORD;
        let vectors = self.grad.vectors(self.grad_width, vec4)
            && self.width.is_multiple_of(COLUMNS)
            && self.out.is_multiple_of(vec4 as u64);
        let lanes = lanes_of(vec4s);
        let SortedPointers { ids, starts, positions, count } = runs.sorted;
        let params = TableGradientParams {
            ids,
            starts,
            positions,
            count,
            is_wrong: runs.is_wrong,
            bags,
            grad: self.grad.pointer,
            out: self.out,
            heads: pointers,
            leaving: scratch,
            grad_bytes: fit(NAME, "grad_out", self.grad_width.saturating_mul(WORD))?,
            width: fit(NAME, "tables", self.width)?,
            vec4s: vec4s as u32,
            dense: u32::from(self.sparse.is_none()),
            vectors: u32::from(vectors),
            levels: levels.len() as u32,
            lanes: lanes as u32,
            ..Zeroable::zeroed()
        };
        match self.sparse {
            Some(_) => self.write_ids(call, runs)?,
            None => {
                let items = self.rows * self.width;
                let params = TableGradientParams { items: items as u64, ..params };
                call.launch(&CLEAR.blocks(items.div_ceil(COLUMNS * THREADS)), &params)?;
            }
        }
        let warps = levels[0].nodes.div_ceil(WARP / lanes).saturating_mul(vec4s.div_ceil(SPAN * lanes));
        let blocks = warps.div_ceil(WINDOWS.threads as usize / WARP);
        call.launch(&WINDOWS.blocks(blocks), &TableGradientParams { items: warps as u64, ..params })?;
        for (level, next) in levels[1..].iter().enumerate() {
            let params = TableGradientParams { level: level as u32, ..params };
            launch(call, &HEADS, &params, next.nodes)?;
        }
        launch(call, &LONG_RUNS, &params, levels[0].nodes - 1)
    }
}

/// The lanes that take a window of rows of so many vec4s together, or one of equal parts of its columns.
fn lanes_of(vec4s: usize) -> usize {
    let [fewest, most] = LANES;
    let lanes = vec4s.div_ceil(SPAN);
    lanes.div_ceil(lanes.div_ceil(most).max(1)).max(fewest)
}

/// Launches a kernel with a thread for each vec4 of so many windows or nodes.
fn launch(call: &Call<'_>, kernel: &Kernel, params: &TableGradientParams, nodes: usize) -> Result<()> {
    let items = nodes.saturating_mul(params.vec4s as usize);
    let params = TableGradientParams { items: items as u64, ..*params };
    call.launch(&kernel.blocks(items.div_ceil(THREADS)), &params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![BAGS, IDS, CLEAR, WINDOWS, HEADS, LONG_RUNS]
}
