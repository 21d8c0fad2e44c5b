//! Optimisers on rows of a table: `kernels/lookup/update.cu`.

use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::order::Given;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::COLUMNS;
use crate::cuda::twin::twins;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::gpu::{Step, fit};
use crate::ops::{Optimiser, OptimiserState, SparseGradient, TableMut};

const NAME: &str = "update_rows";
/// Changes the rows of a table and their state.
const UPDATE: Kernel = Kernel::new("lookup_update", "update_rows", 256, 46);
const THREADS: usize = 256;
/// The most lanes that share a row.
const MOST_LANES: usize = 32;

twins! {
    /// `kernels/lookup/update.cu`
    pub(in crate::cuda) struct UpdateRowsParams {
        ids: u64,
        gradient: u64,
        count: u64,
        is_wrong: u64,
        table: u64,
        first: u64,
        second: u64,
        width: u32,
        storage: u32,
        method: u32,
        lanes: u32,
        vectors: u32,
        rate: f32,
        kept: f32,
        eps: f32,
        beta1: f32,
        beta2: f32,
        new1: f32,
        new2: f32,
        mean: f32,
        square: f32,
    }
}

pub(super) fn update_rows<T: Element>(
    gpu: &Cuda,
    op: &Optimiser,
    table: &TableMut<'_, CudaMemory, T>,
    state: &OptimiserState<'_, CudaMemory>,
    gradient: &SparseGradient<'_, CudaMemory>,
) -> Result<()> {
    op.check_update(table, state, gradient)?;
    let (width, capacity) = (table.width, gradient.ids.len());
    let data = gpu.region_mut(NAME, &table.data)?;
    let nothing = Region::<f32>::new(0, 0);
    let (first, second) = match state {
        OptimiserState::Empty => (nothing, nothing),
        OptimiserState::Sums(sums) => (gpu.region_mut(NAME, sums)?, nothing),
        OptimiserState::Moments { first, second } => {
            (gpu.region_mut(NAME, first)?, gpu.region_mut(NAME, second)?)
        }
    };
    let (ids, rows) = (gpu.region(NAME, &gradient.ids)?, gpu.region(NAME, &gradient.rows)?);
    let count = gpu.region(NAME, &gradient.count)?.pointer;
    let step = Step::of(op);
    let storage = match T::DTYPE {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    };
    // Sums of row-wise Adagrad are read one at a time.
    let states = [first, second].iter().all(|state| state.vectors(width, COLUMNS * size_of::<f32>()));
    let vectors = (states || step.method == Step::ROW_WISE_ADAGRAD)
        && data.vectors(width, COLUMNS * size_of::<T>())
        && rows.vectors(width, COLUMNS * size_of::<f32>());
    let lanes = width.div_ceil(COLUMNS).next_power_of_two().min(MOST_LANES);
    let Step { method, rate, kept, eps, betas, new, corrections } = step;
    let mut call = gpu.begin(NAME);
    let params = UpdateRowsParams {
        ids: ids.pointer,
        gradient: rows.pointer,
        count,
        is_wrong: call.scratch(size_of::<u32>())?,
        table: data.pointer,
        first: first.pointer,
        second: second.pointer,
        // Kernels count numbers of a row, rounded up, in 32 bits.
        width: fit(NAME, "table", width.saturating_add(MOST_LANES * COLUMNS))
            .and(fit(NAME, "table", width))?,
        storage,
        method,
        lanes: lanes as u32,
        vectors: u32::from(vectors),
        rate,
        kept,
        eps,
        beta1: betas[0],
        beta2: betas[1],
        new1: new[0],
        new2: new[1],
        mean: corrections[0],
        square: corrections[1],
    };
    let given = Given { ids: ids.pointer, count, capacity, rows: table.rows };
    given.check_gradient(&call, params.is_wrong)?;
    call.launch(&UPDATE.blocks(capacity.div_ceil(THREADS / lanes)), &params)?;
    call.finish()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![UPDATE]
}
