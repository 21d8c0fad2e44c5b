//! Weights the selected behaviours, and sums their representation rows.

use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::{AggregateInputs, Decoupled, Selection, Table, total_width};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::{Gather, Pooling};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::selection::{Given, Number};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::sum_parts::{Mode, Rows};
use crate::webgpu::tables::{BoundTable, buffers_of, table_formats};

const NAME: &str = "decoupled_aggregate";

/// Behaviours that one thread adds up.
const PART: usize = 1024;

params! {
    /// Twin of the struct in shaders/decoupled/aggregate.wgsl.
    struct AggregateParams {
        threads: u32,
        top_k: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
        width: u32,
        table_base: u32,
        scale_base: u32,
        offset_base: u32,
        out_base: u32,
        out_width: u32,
        first_column: u32,
        parts: u32,
        part: u32,
    }
}

fn aggregate_kernel(table: Format, int8: bool) -> Kernel {
    Kernel {
        name: "decoupled/aggregate",
        params: &AggregateParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/decoupled/aggregate.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("ids", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    table_formats().map(|(format, int8)| aggregate_kernel(format, int8)).collect()
}

pub(super) fn aggregate(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &AggregateInputs<'_, WgpuMemory>,
    selection: &Selection<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let top_k = op.check_aggregate(batch.as_ref(), inputs, selection)?;
    op.check_output(NAME, batch.as_ref(), inputs.representation, out.len())?;
    aggregate_as(gpu, NAME, op, top_k, batch, inputs, selection, out)
}

/// As [`aggregate`], of checked arguments, and under another operation's name.
#[expect(clippy::too_many_arguments, reason = "an operation's parameters, inputs and output")]
pub(super) fn aggregate_as(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Decoupled,
    top_k: usize,
    batch: &WgpuBatch,
    inputs: &AggregateInputs<'_, WgpuMemory>,
    selection: &Selection<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    let [ids, target_ids] = [inputs.history_ids, inputs.target_ids].map(Region::of);
    let tables = inputs.representation;
    let mut read = buffers_of(tables);
    read.extend([ids.buffer, target_ids.buffer]);
    let width = total_width(tables);
    let out = gpu.output(operation, "out", &out, candidates * width, &read, &[])?;
    let kept = weigh(gpu, operation, top_k, batch, selection)?;
    // Elsewhere the search has checked the ids.
    if operation == NAME {
        gpu.check_ids(operation, "history_ids", op.ids, ids, behaviours, tables)?;
        gpu.check_ids(operation, "target_ids", op.ids, target_ids, candidates, tables)?;
    }
    let ids = gpu.bind(operation, "history_ids", &ids)?;
    let rows = KeptRows { top_k, candidates, kept: &kept, ids: &ids };
    rows.sum(gpu, operation, tables, &out.binding)?;
    if op.multiply_target {
        let ids = gpu.bind(operation, "target_ids", &target_ids)?;
        let rows = Gather {
            operation,
            ids: &ids,
            features: tables.len(),
            rows: candidates,
            pooling: Pooling::Each,
            width,
            multiply: true,
            padded: false,
            report: None,
        };
        rows.run(gpu, tables, &[], &out.binding)?;
    }
    gpu.finish(out)
}

/// Behaviours that are kept, with their numbers.
#[derive(Clone, Copy)]
pub(super) struct KeptRows<'a> {
    pub(super) top_k: usize,
    pub(super) candidates: usize,
    /// `[M, K]`: (number, row of the history or `NONE`).
    pub(super) kept: &'a Binding,
    pub(super) ids: &'a Binding,
}

impl KeptRows<'_> {
    /// Sums number · row of the tables, `[M, Σ width]`.
    pub(super) fn sum(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        tables: &[Table<'_, WgpuMemory>],
        out: &Binding,
    ) -> Result<()> {
        let Self { top_k, candidates, kept, ids } = *self;
        let width = total_width(tables);
        fit(operation, "out", candidates * width)?;
        let parts = top_k.div_ceil(PART).max(1);
        let sums = match parts {
            1 => out.clone(),
            parts => gpu.scratch(operation, (candidates * parts * width) as u64)?,
        };
        let mut first_column = 0;
        for (feature, table) in tables.iter().enumerate() {
            let bound = BoundTable::new(gpu, operation, table)?;
            let threads = candidates * parts * table.width.div_ceil(4);
            let params = AggregateParams {
                threads: fit(operation, "out", threads)?,
                top_k: top_k as u32,
                ids_base: ids.base,
                features: tables.len() as u32,
                feature: feature as u32,
                table_rows: bound.rows,
                width: bound.width,
                table_base: bound.data.base,
                scale_base: bound.scale.base,
                offset_base: bound.offset.base,
                out_base: sums.base,
                out_width: width as u32,
                first_column,
                parts: parts as u32,
                part: PART as u32,
            };
            let bindings = [kept, ids, &bound.data, &bound.scale, &bound.offset, &sums];
            let kernel = aggregate_kernel(bound.format, bound.int8);
            gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
            first_column += table.width as u32;
        }
        if parts > 1 {
            let ranges: Vec<u32> =
                (0..candidates).flat_map(|m| [m * parts, (m + 1) * parts].map(|p| p as u32)).collect();
            let rows = Rows { out, rows: candidates, width, out_width: width, first_column: 0 };
            rows.sum_parts(gpu, operation, &gpu.list(operation, &ranges)?, &sums, Mode::Halves)?;
        }
        Ok(())
    }
}

/// The weights and rows of the selected behaviours.
pub(super) fn weigh(
    gpu: &Wgpu,
    operation: &'static str,
    top_k: usize,
    batch: &WgpuBatch,
    selection: &Selection<'_, WgpuMemory>,
) -> Result<Binding> {
    let given = Given::new(gpu, operation, top_k, batch, selection)?;
    let kept = given.keep(0..batch.as_ref().targets().total(), 0, Number::Weight)?;
    given.finish()?;
    Ok(kept)
}
