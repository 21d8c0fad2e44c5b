//! Adds bucket tables, and multiplies them.

use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::Sdim;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/sdim/add_tables.wgsl.
    struct SdimAddTablesParams {
        threads: u32,
        table_base: u32,
        other_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/sdim/decay_tables.wgsl.
    struct SdimDecayTablesParams {
        threads: u32,
        size: u32,
        table_base: u32,
        factors_base: u32,
    }
}

fn add_kernel() -> Kernel {
    Kernel {
        name: "sdim/add_tables",
        params: &SdimAddTablesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/add_tables.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("other", "f32"), Slot::write("table", "f32")],
    }
}

fn decay_kernel() -> Kernel {
    Kernel {
        name: "sdim/decay_tables",
        params: &SdimDecayTablesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/decay_tables.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("factors", "f32"), Slot::write("table", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![add_kernel(), decay_kernel()]
}

/// A table that is read and written. If it shares its buffer with an input, a copy is used and copied back.
pub(super) fn in_place(
    gpu: &Wgpu,
    operation: &'static str,
    table: &ViewMut<'_, WgpuMemory, f32>,
    length: usize,
    inputs: &[&wgpu::Buffer],
    read: bool,
) -> Result<Output> {
    let output = gpu.output(operation, "table", table, length, inputs, &[])?;
    if !read {
        return Ok(output);
    }
    let output = output.keeping();
    gpu.fetch(&output);
    Ok(output)
}

pub(super) fn add_tables(
    gpu: &Wgpu,
    op: &Sdim,
    table: ViewMut<'_, WgpuMemory, f32>,
    other: View<'_, WgpuMemory, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_add_tables";
    let length = op.check_add(table.len(), other.len())?;
    let other = Region::of(other);
    let table = in_place(gpu, NAME, &table, length, &[other.buffer], true)?;
    let other = gpu.bind(NAME, "other", &other)?;
    let params = SdimAddTablesParams {
        threads: fit(NAME, "table", length)?,
        table_base: table.binding.base,
        other_base: other.base,
    };
    gpu.dispatch(NAME, &add_kernel(), &params, &[&other, &table.binding], groups_of(length))?;
    gpu.finish(table)
}

pub(super) fn decay(
    gpu: &Wgpu,
    op: &Sdim,
    table: ViewMut<'_, WgpuMemory, f32>,
    factors: View<'_, WgpuMemory, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_decay";
    let length = table.len();
    op.check_decay(length, factors.len())?;
    let size = if factors.len() == 1 { length } else { op.table_length(1)? };
    let factors = Region::of(factors);
    let table = in_place(gpu, NAME, &table, length, &[factors.buffer], true)?;
    let factors = gpu.bind(NAME, "factors", &factors)?;
    let params = SdimDecayTablesParams {
        threads: fit(NAME, "table", length)?,
        size: fit(NAME, "table", size)?,
        table_base: table.binding.base,
        factors_base: factors.base,
    };
    gpu.dispatch(NAME, &decay_kernel(), &params, &[&factors, &table.binding], groups_of(length))?;
    gpu.finish(table)
}
