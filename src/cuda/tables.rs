//! Embedding tables as kernels take them.

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::twin::twins;
use crate::element::{DType, Element, Scalar};
use crate::error::Result;
use crate::gpu::{fit, id_bound};
use crate::memory::View;
use crate::ops::{IdPolicy, Table, TableData};

/// The most tables in the parameters of a launch.
pub(super) const MOST_TABLES: usize = 32;
/// Numbers per vec4, the unit in which a thread reads a row.
pub(super) const COLUMNS: usize = 4;

twins! {
    /// `kernels/shared/tables.cuh`
    pub(in crate::cuda) struct DeviceTable {
        data: u64,
        scale: u64,
        offset: u64,
        rows: u64,
        width: u32,
        storage: u32,
        vectors: u32,
        first_vec4: u32,
    }
}

/// Tables as kernels take them, and the vec4s per concatenated row.
pub(super) fn tables(
    gpu: &Cuda,
    operation: &'static str,
    argument: &'static str,
    tables: &[Table<'_, CudaMemory>],
) -> Result<(Vec<DeviceTable>, u32)> {
    let mut words = Vec::with_capacity(tables.len());
    let mut vec4s = 0usize;
    for table in tables {
        let first_vec4 = fit(operation, argument, vec4s)?;
        vec4s = vec4s.saturating_add(table.width.div_ceil(COLUMNS));
        words.push(DeviceTable { first_vec4, ..table_words(gpu, operation, argument, table)? });
    }
    // Kernels count numbers in 32 bits too.
    Ok((words, fit(operation, argument, vec4s.saturating_mul(COLUMNS))? / COLUMNS as u32))
}

fn table_words(
    gpu: &Cuda,
    operation: &'static str,
    argument: &'static str,
    table: &Table<'_, CudaMemory>,
) -> Result<DeviceTable> {
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
    Ok(DeviceTable { data, scale, offset, rows: table.rows as u64, width, storage, vectors, first_vec4: 0 })
}

/// Rows of so many numbers as a table that kernels read by index.
pub(super) fn table_of_rows<T: Element>(
    operation: &'static str,
    argument: &'static str,
    rows: Region<T>,
    (count, width): (usize, usize),
) -> Result<DeviceTable> {
    let storage = match T::DTYPE {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    };
    // Kernels count numbers in 32 bits.
    fit(operation, argument, width.saturating_add(COLUMNS))?;
    Ok(DeviceTable {
        data: rows.pointer,
        scale: 0,
        offset: 0,
        rows: count as u64,
        width: width as u32,
        storage,
        vectors: u32::from(rows.vectors(width, COLUMNS * size_of::<T>())),
        first_vec4: 0,
    })
}

/// The address of a table's numbers, and whether rows can be read a vec4 at a time.
fn numbers<T: Scalar>(
    gpu: &Cuda,
    operation: &'static str,
    view: &View<'_, CudaMemory, T>,
    width: usize,
) -> Result<(u64, u32)> {
    let data = gpu.region(operation, view)?;
    Ok((data.pointer, u32::from(data.vectors(width, COLUMNS * size_of::<T>()))))
}

/// The record for ids outside their tables; 0 if they are not reported.
pub(super) fn record(
    call: &Call<'_>,
    argument: &'static str,
    policy: IdPolicy,
    ids: Region<u32>,
    tables: &[Table<'_, CudaMemory>],
) -> Result<u64> {
    id_bound(policy, tables).map_or(Ok(0), |bound| call.record(argument, ids.length, bound))
}
