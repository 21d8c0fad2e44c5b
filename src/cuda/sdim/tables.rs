//! SDIM: adds whole bucket tables, and multiplies them.

use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::sdim::signatures::FLAT_THREADS;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::Sdim;

/// Adds a table to another.
const ADD: Kernel = Kernel::new("sdim", "sdim_add", FLAT_THREADS, 10);
/// Multiplies tables.
const DECAY: Kernel = Kernel::new("sdim", "sdim_decay", FLAT_THREADS, 16);

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimAddParams {
        table: u64,
        other: u64,
        length: u64,
    }
}

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimDecayParams {
        table: u64,
        factors: u64,
        size: u64,
        blocks_per_table: u64,
        each: u32,
        unused: u32,
    }
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
    let params = SdimAddParams { table: table.pointer, other: other.pointer, length: length as u64 };
    let call = gpu.begin(NAME);
    call.launch(&ADD.blocks(length.div_ceil(FLAT_THREADS as usize)), &params)?;
    call.finish()
}

pub(super) fn decay(
    gpu: &Cuda,
    op: &Sdim,
    table: ViewMut<'_, CudaMemory, f32>,
    factors: View<'_, CudaMemory, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_decay";
    let users = op.check_decay(table.len(), factors.len())?;
    let each = factors.len() != 1;
    let (table, factors) = (gpu.region_mut(NAME, &table)?, gpu.region(NAME, &factors)?);
    let size = op.table_length(1)?;
    let blocks_per_table = size.div_ceil(FLAT_THREADS as usize);
    let params = SdimDecayParams {
        table: table.pointer,
        factors: factors.pointer,
        size: size as u64,
        blocks_per_table: blocks_per_table as u64,
        each: each.into(),
        unused: 0,
    };
    let call = gpu.begin(NAME);
    call.launch(&DECAY.blocks(users * blocks_per_table), &params)?;
    call.finish()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![ADD, DECAY]
}
