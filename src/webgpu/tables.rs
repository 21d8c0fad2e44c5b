//! Embedding tables as kernels bind them.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::View;
use crate::ops::{Table, TableData};
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::Format;
use crate::webgpu::state::Wgpu;

/// A table as kernels bind it.
pub(crate) struct BoundTable {
    pub(crate) data: Binding,
    pub(crate) scale: Binding,
    pub(crate) offset: Binding,
    pub(crate) format: Format,
    /// Whether rows are 8-bit codes with a scale and an offset.
    pub(crate) int8: bool,
    pub(crate) rows: u32,
    pub(crate) width: u32,
}

/// The formats of tables, and whether rows have a scale and an offset.
pub(crate) fn table_formats() -> impl Iterator<Item = (Format, bool)> {
    let int8 = [Format::int8(true), Format::int8(false)].map(|format| (format, true));
    Format::ALL.map(|format| (format, false)).into_iter().chain(int8)
}

impl BoundTable {
    pub(crate) fn new(gpu: &Wgpu, operation: &'static str, table: &Table<'_, WgpuMemory>) -> Result<Self> {
        let width = table.width;
        let bound = match &table.data {
            TableData::F32(view) => Self::floats(gpu, operation, *view, width)?,
            TableData::F16(view) => Self::floats(gpu, operation, *view, width)?,
            TableData::Bf16(view) => Self::floats(gpu, operation, *view, width)?,
            TableData::Int8 { codes, scale, offset } => {
                let data = gpu.bind(operation, "tables", &Region::of(*codes))?;
                let format = Format::int8(data.has_whole_vec4s(width));
                let scale = gpu.bind(operation, "tables", &Region::of(*scale))?;
                let offset = gpu.bind(operation, "tables", &Region::of(*offset))?;
                Self { data, scale, offset, format, int8: true, rows: 0, width: 0 }
            }
        };
        let rows = fit(operation, "tables", table.rows)?;
        fit(operation, "tables", table.rows * width)?;
        Ok(Self { rows, width: width as u32, ..bound })
    }

    fn floats<T: Element>(
        gpu: &Wgpu,
        operation: &'static str,
        view: View<'_, WgpuMemory, T>,
        width: usize,
    ) -> Result<Self> {
        let data = gpu.bind(operation, "tables", &Region::of(view))?;
        Ok(Self::of_rows::<T>(gpu, data, 0, width))
    }

    /// So many rows of so many numbers, which kernels read by index.
    pub(crate) fn of_rows<T: Element>(gpu: &Wgpu, data: Binding, rows: u32, width: usize) -> Self {
        let format = data.format_of_rows::<T>(width);
        let (scale, offset) = (gpu.nothing(), gpu.nothing());
        Self { data, scale, offset, format, int8: false, rows, width: width as u32 }
    }
}

/// The buffers of some tables.
pub(crate) fn buffers_of<'a>(tables: &[Table<'a, WgpuMemory>]) -> Vec<&'a wgpu::Buffer> {
    let of = |table: &Table<'a, WgpuMemory>| match &table.data {
        TableData::F32(view) => vec![Region::of(*view).buffer],
        TableData::F16(view) => vec![Region::of(*view).buffer],
        TableData::Bf16(view) => vec![Region::of(*view).buffer],
        TableData::Int8 { codes, scale, offset } => {
            vec![Region::of(*codes).buffer, Region::of(*scale).buffer, Region::of(*offset).buffer]
        }
    };
    tables.iter().flat_map(of).collect()
}
