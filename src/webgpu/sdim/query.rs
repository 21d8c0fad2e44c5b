//! Reads bucket tables, or the bucket sums of candidates.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::{Sdim, SdimQueryInputs};
use crate::webgpu::batch::{DevicePlan, WgpuJagged};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::loops::check_read;
use crate::webgpu::sdim::signatures::{Codes, hash_buffers};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/sdim/query.wgsl.
    struct SdimQueryParams {
        width: u32,
        hash_groups: u32,
        buckets: u32,
        users: u32,
        table_base: u32,
        codes_base: u32,
        out_base: u32,
        normalise: u32,
        tables: u32,
        owners_base: u32,
    }
}

/// `summed`: reads the sums of candidates in place of tables.
fn query_kernel(summed: bool, bits: u32) -> Kernel {
    Kernel {
        name: "sdim/query",
        params: &SdimQueryParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/query.wgsl")],
        constants: vec![("SUMMED", u32::from(summed))],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("table", "f32"),
            Slot::words("codes", bits),
            Slot::plain("owners", "u32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![query_kernel(true, 32), query_kernel(false, 8), query_kernel(false, 16), query_kernel(false, 32)]
}

pub(super) fn query<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    targets: &WgpuJagged,
    inputs: &SdimQueryInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    let jagged = targets.as_ref();
    op.check_query(operation, jagged, inputs)?;
    op.check_output(operation, jagged, out.len())?;
    check_read(operation, op)?;
    let count = jagged.total();
    let table = Region::of(inputs.table);
    let users = inputs.users.map(Region::of);
    let mut read = vec![table.buffer];
    read.extend(hash_buffers(&inputs.hash));
    read.extend(users.map(|users| users.buffer));
    let out = gpu.output(operation, "out", &out, count * op.width, &read, &[])?;
    let table = gpu.bind(operation, "table", &table)?;
    let codes = Codes::new(gpu, operation, op, count, ("targets", inputs.targets), &inputs.hash)?;
    let offsets = targets.offsets(gpu, operation, "targets")?;
    let (mut tables, mut owners) = (0, gpu.nothing());
    if let Some(users) = users {
        let count = op.tables(operation, inputs.table.len())?;
        gpu.check_words(operation, "users", users, jagged.users(), &[count])?;
        (tables, owners) = (fit(operation, "table", count)?, gpu.bind(operation, "users", &users)?);
    }
    let params = SdimQueryParams {
        width: op.width as u32,
        hash_groups: op.groups as u32,
        buckets: op.buckets() as u32,
        users: jagged.users() as u32,
        table_base: table.base,
        codes_base: codes.binding.base,
        out_base: out.binding.base,
        normalise: u32::from(op.normalise),
        tables,
        owners_base: owners.base,
    };
    let bindings = [&offsets, &table, &codes.binding, &owners, &out.binding];
    gpu.dispatch(
        operation,
        &query_kernel(false, codes.bits),
        &params,
        &bindings,
        (count * op.width.div_ceil(64)) as u64,
    )?;
    gpu.finish(out)
}

/// Reads the sums that sdim/attend.wgsl wrote.
pub(super) fn query_sums(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    plan: &DevicePlan,
    users: usize,
    sums: &Binding,
    out: &Binding,
) -> Result<()> {
    let params = SdimQueryParams {
        width: op.width as u32,
        hash_groups: op.groups as u32,
        buckets: op.buckets() as u32,
        users: users as u32,
        table_base: 0,
        codes_base: 0,
        out_base: out.base,
        normalise: u32::from(op.normalise),
        tables: 0,
        owners_base: 0,
    };
    let bindings = [&plan.tiles, sums, &gpu.nothing(), &gpu.nothing(), out];
    let groups = plan.plan.tiles.len() * op.width.div_ceil(64);
    gpu.dispatch(operation, &query_kernel(true, 32), &params, &bindings, groups as u64)
}
