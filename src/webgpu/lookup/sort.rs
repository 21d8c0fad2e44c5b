//! Columns of ids in order: a radix sort of (id, position), 4 bits at a time.

use crate::error::Result;
use crate::gpu::{Bound, SortPlan, fit};
use crate::ops::{IdColumn, IdPolicy, SortedIdsMut};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "sort_ids";
const DIGIT_BITS: u32 = 4;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Keys of a workgroup.
const BLOCK: usize = 1024;

params! {
    /// Twin of the struct in shaders/lookup/sort_keys.wgsl.
    struct SortKeysParams {
        length: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        rows: u32,
        first: u32,
        check_ids: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/sort_count.wgsl.
    struct SortCountParams {
        length: u32,
        shift: u32,
        blocks: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/sort_scan.wgsl.
    struct SortScanParams {
        blocks: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/sort_scatter.wgsl.
    struct SortScatterParams {
        length: u32,
        shift: u32,
        blocks: u32,
        is_first: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/sort_heads.wgsl.
    struct SortHeadsParams {
        length: u32,
        rows: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/sort_runs.wgsl.
    struct SortRunsParams {
        length: u32,
        rows: u32,
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        count_base: u32,
    }
}

fn keys_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_keys",
        params: &SortKeysParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_keys.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::write("keys", "u32"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

fn count_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_count",
        params: &SortCountParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_count.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("keys", "u32"), Slot::write("counts", "u32")],
    }
}

fn scan_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_scan",
        params: &SortScanParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_scan.wgsl")],
        constants: vec![],
        slots: vec![Slot::write("counts", "u32"), Slot::write("totals", "u32")],
    }
}

fn scatter_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_scatter",
        params: &SortScatterParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_scatter.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("from_keys", "u32"),
            Slot::plain("from_positions", "u32"),
            Slot::plain("counts", "u32"),
            Slot::plain("totals", "u32"),
            Slot::write("to_keys", "u32"),
            Slot::write("to_positions", "u32"),
        ],
    }
}

fn heads_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_heads",
        params: &SortHeadsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_heads.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("keys", "u32"), Slot::write("counts", "u32")],
    }
}

fn runs_kernel() -> Kernel {
    Kernel {
        name: "lookup/sort_runs",
        params: &SortRunsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/sort_runs.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("keys", "u32"),
            Slot::plain("from_positions", "u32"),
            Slot::plain("counts", "u32"),
            Slot::plain("totals", "u32"),
            Slot::write("ids", "u32"),
            Slot::write("starts", "u32"),
            Slot::write("positions", "u32"),
            Slot::write("count", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![keys_kernel(), count_kernel(), scan_kernel(), scatter_kernel(), heads_kernel(), runs_kernel()]
}

/// Ids in order, as kernels bind them.
#[derive(Debug, Clone)]
pub(in crate::webgpu) struct SortedBindings {
    pub(in crate::webgpu) ids: Binding,
    pub(in crate::webgpu) starts: Binding,
    pub(in crate::webgpu) positions: Binding,
    pub(in crate::webgpu) count: Binding,
}

/// A column of ids of which one list after the other is written.
pub(in crate::webgpu) struct Sort<'a> {
    pub(in crate::webgpu) gpu: &'a Wgpu,
    pub(in crate::webgpu) operation: &'static str,
    /// Of the table.
    rows: u32,
    length: u32,
    keys: [Binding; 2],
    positions: [Binding; 2],
    counts: Binding,
    totals: Binding,
    plan: SortPlan,
}

/// One of the lists of a column.
pub(in crate::webgpu) struct IdList<'a> {
    pub(in crate::webgpu) ids: &'a Binding,
    pub(in crate::webgpu) features: usize,
    pub(in crate::webgpu) feature: usize,
    /// The positions of the list: the first, and their number.
    pub(in crate::webgpu) first: usize,
    pub(in crate::webgpu) length: usize,
    /// Where ids outside the table are reported.
    pub(in crate::webgpu) report: Option<&'a Binding>,
}

impl<'a> Sort<'a> {
    /// Scratch memory for `length` ids in a table of so many rows.
    pub(in crate::webgpu) fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        length: usize,
        rows: usize,
    ) -> Result<Self> {
        let plan = SortPlan::new(length, rows, DIGIT_BITS, BLOCK);
        let words = || gpu.scratch(operation, length as u64);
        Ok(Self {
            gpu,
            operation,
            rows: fit(operation, "rows", rows)?,
            // The last workgroup counts up to its end.
            length: fit(operation, "ids", length.saturating_add(BLOCK)).and(fit(operation, "ids", length))?,
            keys: [words()?, words()?],
            positions: [words()?, words()?],
            counts: gpu.scratch(operation, (plan.blocks * DIGITS) as u64)?,
            totals: gpu.scratch(operation, DIGITS as u64)?,
            plan,
        })
    }

    /// Writes the keys of a list.
    pub(in crate::webgpu) fn load(&self, list: &IdList<'_>) -> Result<()> {
        let Self { gpu, operation, rows, .. } = *self;
        fit(operation, "ids", list.length * list.features)?;
        let no_report = gpu.no_output(operation)?;
        let params = SortKeysParams {
            length: list.length as u32,
            ids_base: list.ids.base,
            features: list.features as u32,
            feature: list.feature as u32,
            rows,
            first: list.first as u32,
            check_ids: u32::from(list.report.is_some()),
        };
        let bindings = [list.ids, &self.keys[0], list.report.unwrap_or(&no_report)];
        gpu.dispatch(operation, &keys_kernel(), &params, &bindings, groups_of(list.length))
    }

    /// Sorts the keys, and writes ids, starts, positions and the count.
    pub(in crate::webgpu) fn finish(&self, out: &SortedBindings) -> Result<()> {
        let Self { gpu, operation, rows, length, ref counts, ref totals, .. } = *self;
        let groups = self.plan.blocks as u64;
        let blocks = self.plan.blocks as u32;
        let scan = |rows: u64| {
            gpu.dispatch(operation, &scan_kernel(), &SortScanParams { blocks }, &[counts, totals], rows)
        };
        let side = |pass: u32| (pass % 2) as usize;
        for pass in (0..self.plan.passes).filter(|_| length > 0) {
            let [keys, to_keys] = [side(pass), side(pass + 1)].map(|side| &self.keys[side]);
            let [positions, to_positions] = [side(pass), side(pass + 1)].map(|side| &self.positions[side]);
            let shift = pass * DIGIT_BITS;
            let params = SortCountParams { length, shift, blocks };
            gpu.dispatch(operation, &count_kernel(), &params, &[keys, counts], groups)?;
            scan(DIGITS as u64)?;
            let params = SortScatterParams { length, shift, blocks, is_first: u32::from(pass == 0) };
            let bindings = [keys, positions, counts, totals, to_keys, to_positions];
            gpu.dispatch(operation, &scatter_kernel(), &params, &bindings, groups)?;
        }
        let [keys, positions] = [&self.keys, &self.positions].map(|both| &both[side(self.plan.passes)]);
        let params = SortHeadsParams { length, rows };
        gpu.dispatch(operation, &heads_kernel(), &params, &[keys, counts], groups)?;
        scan(1)?;
        let SortedBindings { ids, starts, positions: out_positions, count } = out;
        let params = SortRunsParams {
            length,
            rows,
            ids_base: ids.base,
            starts_base: starts.base,
            positions_base: out_positions.base,
            count_base: count.base,
        };
        let bindings = [keys, positions, counts, totals, ids, starts, out_positions, count];
        gpu.dispatch(operation, &runs_kernel(), &params, &bindings, groups.max(1))
    }
}

/// What a kernel binds for an output of `length` elements: those without elements share a buffer, which must not be written twice.
pub(super) fn written(
    gpu: &Wgpu,
    operation: &'static str,
    output: &Output,
    length: usize,
) -> Result<Binding> {
    if length == 0 { gpu.no_output(operation) } else { Ok(output.binding.clone()) }
}

pub(super) fn sort_ids(
    gpu: &Wgpu,
    column: &IdColumn<'_, WgpuMemory>,
    out: &SortedIdsMut<'_, WgpuMemory>,
) -> Result<()> {
    let positions = column.check_outputs(out)?;
    let (features, feature) = (column.features, column.feature);
    let capacity = positions.min(column.rows);
    let regions = [Some(Region::of(column.ids)), column.more_ids.map(Region::of)];
    let read: Vec<&wgpu::Buffer> = regions.iter().flatten().map(|region| region.buffer).collect();
    let ids = gpu.output(NAME, "out.ids", &out.ids, capacity, &read, &[])?;
    let starts = gpu.output(NAME, "out.starts", &out.starts, capacity + 1, &read, &[&ids])?;
    let out_positions =
        gpu.output(NAME, "out.positions", &out.positions, positions, &read, &[&ids, &starts])?;
    let count = gpu.output(NAME, "out.count", &out.count, 1, &read, &[&ids, &starts, &out_positions])?;
    let sort = Sort::new(gpu, NAME, positions, column.rows)?;
    let mut lists = Vec::new();
    let mut first = 0;
    for (argument, region) in ["ids", "more_ids"].into_iter().zip(regions) {
        let Some(region) = region else { continue };
        let binding = gpu.bind(NAME, argument, &region)?;
        let bound = || Bound::Columns(vec![column.rows as u64; features]);
        let report = match column.policy {
            IdPolicy::Error => Some(gpu.report(NAME, argument, bound())?),
            IdPolicy::Zero | IdPolicy::Skip => None,
        };
        let length = region.length / features;
        lists.push((binding, report, first, length));
        first += length;
    }
    for (ids, report, first, length) in &lists {
        let (first, length) = (*first, *length);
        let report = report.as_ref().map(|report| &report.binding);
        sort.load(&IdList { ids, features, feature, first, length, report })?;
    }
    // Only what kernels write changes.
    [&ids, &starts, &out_positions, &count].into_iter().for_each(|output| gpu.fetch(output));
    sort.finish(&SortedBindings {
        ids: written(gpu, NAME, &ids, capacity)?,
        starts: starts.binding.clone(),
        positions: written(gpu, NAME, &out_positions, positions)?,
        count: count.binding.clone(),
    })?;
    [ids, starts, out_positions, count].into_iter().try_for_each(|output| gpu.finish(output))?;
    for (ids, report, ..) in lists {
        if let Some(report) = report {
            gpu.fetch_word(&ids, 32, report)?;
        }
    }
    Ok(())
}
