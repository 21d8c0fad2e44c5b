//! Embedding tables as kernels take them.

use bytemuck::{Pod, Zeroable};

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::{fit, id_bound};
use crate::memory::View;
use crate::ops::{IdPolicy, Table, TableData};

/// Tables that the parameters of a launch have room for.
pub(super) const MOST_TABLES: usize = 32;
/// Numbers that a thread reads of a row at a time.
pub(super) const COLUMNS: usize = 4;

/// `Table` of tables.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct TableWords {
    data: u64,
    scale: u64,
    offset: u64,
    rows: u64,
    width: u32,
    storage: u32,
    vectors: u32,
    first_four: u32,
}

/// As kernels take them, tables that lie side by side, and the fours of numbers of a row of them together.
pub(super) fn tables(
    gpu: &Cuda,
    operation: &'static str,
    argument: &'static str,
    tables: &[Table<'_, CudaMemory>],
) -> Result<(Vec<TableWords>, u32)> {
    let mut words = Vec::with_capacity(tables.len());
    let mut fours = 0usize;
    for table in tables {
        let first_four = fit(operation, argument, fours)?;
        fours = fours.saturating_add(table.width.div_ceil(COLUMNS));
        words.push(TableWords { first_four, ..table_words(gpu, operation, argument, table)? });
    }
    // So that numbers can be counted too.
    Ok((words, fit(operation, argument, fours.saturating_mul(COLUMNS))? / COLUMNS as u32))
}

fn table_words(
    gpu: &Cuda,
    operation: &'static str,
    argument: &'static str,
    table: &Table<'_, CudaMemory>,
) -> Result<TableWords> {
    let ((data, vectors), storage) = match &table.data {
        TableData::F32(view) => (numbers(gpu, operation, view, table.width)?, 0),
        TableData::F16(view) => (numbers(gpu, operation, view, table.width)?, 1),
        TableData::Bf16(view) => (numbers(gpu, operation, view, table.width)?, 2),
        TableData::Int8 { codes, .. } => (numbers(gpu, operation, codes, table.width)?, 3),
    };
    let (scale, offset) = match &table.data {
        TableData::Int8 { scale, offset, .. } => {
            (gpu.region(operation, scale)?.pointer, gpu.region(operation, offset)?.pointer)
        }
        _ => (0, 0),
    };
    let width = fit(operation, argument, table.width)?;
    Ok(TableWords { data, scale, offset, rows: table.rows as u64, width, storage, vectors, first_four: 0 })
}

/// Where a table's numbers are, and whether a row's can be read four at a time.
fn numbers<T: Scalar>(
    gpu: &Cuda,
    operation: &'static str,
    view: &View<'_, CudaMemory, T>,
    width: usize,
) -> Result<(u64, u32)> {
    let data = gpu.region(operation, view)?;
    Ok((data.pointer, u32::from(data.vectors(width, COLUMNS * size_of::<T>()))))
}

/// Where ids outside their tables are noted; 0 where nobody asks.
pub(super) fn record(
    call: &Call<'_>,
    argument: &'static str,
    policy: IdPolicy,
    ids: Region<u32>,
    tables: &[Table<'_, CudaMemory>],
) -> Result<u64> {
    id_bound(policy, tables).map_or(Ok(0), |bound| call.record(argument, ids.length, bound))
}
