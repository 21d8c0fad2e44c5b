//! Gradients of tables: sums of rows of `grad_out` by id.

use crate::error::Result;
use crate::gpu::{fit, head_levels};
use crate::ops::*;
use crate::webgpu::batch::WgpuJagged;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::order::{Given, GivenRuns};
use crate::webgpu::lookup::sort::{IdList, Sort, SortedBindings, written};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "lookup_backward";

params! {
    /// Twin of the struct in shaders/lookup/bags_of_rows.wgsl.
    struct BagsOfRowsParams {
        rows: u32,
        bags: u32,
        mean: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_ids.wgsl.
    struct GradientIdsParams {
        ids_base: u32,
        out_ids_base: u32,
        out_count_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_windows.wgsl.
    struct GradientWindowsParams {
        threads: u32,
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        grad_base: u32,
        out_base: u32,
        grad_width: u32,
        first_column: u32,
        width: u32,
        dense: u32,
        has_bags: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_heads.wgsl.
    struct GradientHeadsParams {
        threads: u32,
        starts_base: u32,
        width: u32,
        windows: u32,
        level: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_long_runs.wgsl.
    struct GradientLongRunsParams {
        threads: u32,
        ids_base: u32,
        starts_base: u32,
        out_base: u32,
        width: u32,
        dense: u32,
        windows: u32,
    }
}

fn bags_kernel() -> Kernel {
    Kernel {
        name: "lookup/bags_of_rows",
        params: &BagsOfRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/bags_of_rows.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("offsets", "u32"), Slot::write("out", "vec2<u32>")],
    }
}

fn ids_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_ids",
        params: &GradientIdsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/gradient_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::write("out_ids", "u32"),
            Slot::write("out_count", "u32"),
        ],
    }
}

fn windows_kernel(grad: Format) -> Kernel {
    Kernel {
        name: "lookup/gradient_windows",
        params: &GradientWindowsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_windows.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("positions", "u32"),
            Slot::plain("bags", "vec2<u32>"),
            Slot::read("grad", grad),
            Slot::write("out", "f32"),
            Slot::write("heads", "f32"),
        ],
    }
}

fn heads_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_heads",
        params: &GradientHeadsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_heads.wgsl"),
        ],
        constants: vec![],
        slots: vec![Slot::plain("live", "u32"), Slot::plain("starts", "u32"), Slot::write("heads", "f32")],
    }
}

fn long_runs_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_long_runs",
        params: &GradientLongRunsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_long_runs.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("heads", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let windows = [true, false].map(|vectors| windows_kernel(Format::f32(vectors)));
    let others = [bags_kernel(), ids_kernel(), heads_kernel(), long_runs_kernel()];
    windows.into_iter().chain(others).collect()
}

/// Where the gradient of a table goes, and what it is a sum of.
struct Job {
    grad: Binding,
    grad_width: usize,
    first_column: usize,
    width: usize,
    /// Numbers of the rows.
    length: usize,
    rows: Output,
    /// Ids and count of a sparse gradient, and room for ids; `None` of a dense one.
    sparse: Option<(Output, Output, usize)>,
}

/// Ids in order that kernels read.
struct Runs {
    sorted: SortedBindings,
    /// How many ids count.
    live: Binding,
    /// The most ids and positions that there may be.
    ids: usize,
    places: usize,
}

pub(super) fn backward(
    gpu: &Wgpu,
    op: &Lookup,
    bags: Bags<'_, WgpuJagged>,
    inputs: &LookupInputs<'_, WgpuMemory>,
    (saved, grad_out): (&LookupSaved<'_, WgpuMemory>, &LookupGradOut<'_, WgpuMemory>),
    grads: &LookupGradients<'_, WgpuMemory>,
) -> Result<()> {
    let used = op.check_backward(&bags, inputs, saved, grad_out, grads)?;
    let features = inputs.tables.len();
    fit(NAME, "ids", used.saturating_mul(features))?;
    let ids = Region::of(inputs.ids);
    let ids_binding = gpu.bind(NAME, "ids", &ids.rows(0, used * features, 1))?;
    let given = saved.sorted.iter().map(|sorted| bind_sorted(gpu, sorted)).collect::<Result<Vec<_>>>()?;
    let bags = match bags {
        Bags::Each => None,
        Bags::Sum(bags) => Some((bags.offsets(gpu, NAME, "bags")?, bags.as_ref().users(), false)),
        Bags::Mean(bags) => Some((bags.offsets(gpu, NAME, "bags")?, bags.as_ref().users(), true)),
    };
    let grad = Region::of(grad_out.out);
    let grad_second = grad_out.second.map(Region::of);
    let mut read = vec![grad.buffer, ids.buffer];
    read.extend(grad_second.map(|grad| grad.buffer));
    for sorted in saved.sorted {
        read.extend(
            [sorted.ids, sorted.starts, sorted.positions, sorted.count].map(|list| Region::of(list).buffer),
        );
    }
    let mut first = jobs(gpu, inputs.tables, (grad, used), &grads.tables, &read)?;
    let mut second = match grad_second {
        Some(grad) => jobs(gpu, inputs.second_tables, (grad, used), &grads.second_tables, &read)?,
        None => Vec::new(),
    };
    if given.is_empty() {
        gpu.check_ids(NAME, "ids", op.ids, ids, used, inputs.tables)?;
    }
    let mut given_runs = Vec::new();
    for (sorted, (list, table)) in given.into_iter().zip(saved.sorted.iter().zip(inputs.tables)) {
        given_runs.push(check_sorted(gpu, sorted, list, (used, table.rows))?);
    }
    if first.iter().chain(&second).all(Option::is_none) {
        return Ok(());
    }
    let bags = match bags {
        Some((offsets, bags, mean)) => Some(bags_of_rows(gpu, &offsets, (bags, mean), used)?),
        None => None,
    };
    for (feature, table) in inputs.tables.iter().enumerate() {
        let jobs = [&mut first, &mut second].map(|jobs| jobs.get_mut(feature).and_then(Option::take));
        if jobs.iter().all(Option::is_none) {
            continue;
        }
        let own;
        let runs = match given_runs.get(feature) {
            Some(runs) => runs,
            None => {
                own = sorted_here(gpu, &ids_binding, [features, feature], [used, table.rows])?;
                &own
            }
        };
        for job in jobs.into_iter().flatten() {
            job.run(gpu, runs, bags.as_ref())?;
        }
    }
    Ok(())
}

/// The gradients asked for of some tables, one place for each table.
fn jobs(
    gpu: &Wgpu,
    tables: &[Table<'_, WgpuMemory>],
    (grad, used): (Region<'_, f32>, usize),
    grads: &[Option<TableGradient<'_, WgpuMemory>>],
    read: &[&wgpu::Buffer],
) -> Result<Vec<Option<Job>>> {
    let (grad, grad_width) = (gpu.bind(NAME, "grad_out", &grad)?, total_width(tables));
    let mut first_column = 0;
    let mut jobs = Vec::with_capacity(tables.len());
    for (table, gradient) in tables.iter().zip(grads) {
        let width = table.width;
        let output = |rows: &_, count: usize, others: &[&Output]| {
            let length = count.saturating_mul(width);
            fit(NAME, "grads", length)?;
            Ok((length, gpu.output(NAME, "grads", rows, length, read, others)?))
        };
        let (length, rows, sparse) = match gradient {
            None => {
                jobs.push(None);
                first_column += width;
                continue;
            }
            Some(TableGradient::Dense(rows)) => {
                let (length, rows) = output(rows, table.rows, &[])?;
                (length, rows, None)
            }
            Some(TableGradient::Sparse(gradient)) => {
                let capacity = used.min(table.rows);
                let ids = gpu.output(NAME, "grads", &gradient.ids, capacity, read, &[])?;
                let count = gpu.output(NAME, "grads", &gradient.count, 1, read, &[&ids])?;
                let (length, rows) = output(&gradient.rows, capacity, &[&ids, &count])?;
                (length, rows, Some((ids, count, capacity)))
            }
        };
        let grad = grad.clone();
        jobs.push(Some(Job { grad, grad_width, first_column, width, length, rows, sparse }));
        first_column += width;
    }
    Ok(jobs)
}

fn bind_sorted(gpu: &Wgpu, sorted: &SortedIds<'_, WgpuMemory>) -> Result<SortedBindings> {
    let bind = |list| gpu.bind(NAME, "sorted", &Region::of(list));
    Ok(SortedBindings {
        ids: bind(sorted.ids)?,
        starts: bind(sorted.starts)?,
        positions: bind(sorted.positions)?,
        count: bind(sorted.count)?,
    })
}

/// Checks ids in order that the caller gave.
fn check_sorted(
    gpu: &Wgpu,
    sorted: SortedBindings,
    list: &SortedIds<'_, WgpuMemory>,
    (used, rows): (usize, usize),
) -> Result<Runs> {
    // Gradients have room for no more ids than there are positions.
    let (capacity, places) = (list.ids.len().min(used), list.positions.len());
    let SortedBindings { ids, starts, positions, count } = &sorted;
    let live = Given { ids, count, capacity, rows }.check_sorted(
        gpu,
        NAME,
        &GivenRuns { starts, positions, places, end: used },
    )?;
    Ok(Runs { sorted, live, ids: capacity, places })
}

/// Sorts the ids of a feature.
fn sorted_here(
    gpu: &Wgpu,
    ids: &Binding,
    [features, feature]: [usize; 2],
    [used, rows]: [usize; 2],
) -> Result<Runs> {
    let sort = Sort::new(gpu, NAME, used, rows)?;
    let capacity = used.min(rows);
    let sorted = SortedBindings {
        ids: gpu.scratch(NAME, capacity as u64)?,
        starts: gpu.scratch(NAME, capacity as u64 + 1)?,
        positions: gpu.scratch(NAME, used as u64)?,
        count: gpu.scratch(NAME, 1)?,
    };
    sort.load(&IdList { ids, features, feature, first: 0, length: used, report: None })?;
    sort.finish(&sorted)?;
    let live = sorted.count.clone();
    Ok(Runs { sorted, live, ids: capacity, places: used })
}

/// The bag of each row of ids, and its weight.
fn bags_of_rows(gpu: &Wgpu, offsets: &Binding, (bags, mean): (usize, bool), used: usize) -> Result<Binding> {
    let out = gpu.scratch(NAME, 2 * used as u64)?;
    let params =
        BagsOfRowsParams { rows: used as u32, bags: fit(NAME, "bags", bags)?, mean: u32::from(mean) };
    gpu.dispatch(NAME, &bags_kernel(), &params, &[offsets, &out], groups_of(used))?;
    Ok(out)
}

impl Job {
    /// Sums the rows of the gradient that comes in by id.
    fn run(self, gpu: &Wgpu, runs: &Runs, bags: Option<&Binding>) -> Result<()> {
        let SortedBindings { ids, starts, positions, .. } = &runs.sorted;
        let live = &runs.live;
        gpu.fetch(&self.rows);
        if let Some((out_ids, out_count, capacity)) = &self.sparse {
            gpu.fetch(out_ids);
            let out_ids = written(gpu, NAME, out_ids, *capacity)?;
            let out_count = &out_count.binding;
            let params = GradientIdsParams {
                ids_base: ids.base,
                out_ids_base: out_ids.base,
                out_count_base: out_count.base,
            };
            let groups = groups_of(runs.ids).max(1);
            gpu.dispatch(NAME, &ids_kernel(), &params, &[live, ids, &out_ids, out_count], groups)?;
        } else if self.length > 0 {
            gpu.clear(NAME, &self.rows.binding, self.length);
        }
        if self.length > 0 {
            self.sums(gpu, runs, [live, ids, starts, positions], bags)?;
        }
        gpu.finish(self.rows)?;
        if let Some((ids, count, _)) = self.sparse {
            gpu.finish(ids)?;
            gpu.finish(count)?;
        }
        Ok(())
    }

    fn sums(
        &self,
        gpu: &Wgpu,
        runs: &Runs,
        [live, ids, starts, positions]: [&Binding; 4],
        bags: Option<&Binding>,
    ) -> Result<()> {
        let Self { ref grad, grad_width, first_column, width, ref rows, .. } = *self;
        let levels = head_levels(runs.places);
        let nodes: usize = levels.iter().map(|level| level.nodes).sum();
        fit(NAME, "sorted", runs.places.saturating_add(1 << 15))?;
        let words = nodes.saturating_mul(width);
        fit(NAME, "partial results", words.saturating_add(1 << 15))?;
        let heads = gpu.scratch(NAME, words as u64)?;
        fit(NAME, "grad_out", (grad.size / 4) as usize)?;
        let out = &rows.binding;
        let whole = [grad_width, first_column, width].iter().all(|columns| columns.is_multiple_of(4));
        let kernel = windows_kernel(Format::f32(whole && grad.base.is_multiple_of(4)));
        let nothing = gpu.nothing();
        let bindings = [live, ids, starts, positions, bags.unwrap_or(&nothing), grad, out, &heads];
        let (windows, dense) = (levels[0].nodes, u32::from(self.sparse.is_none()));
        let threads = windows * width.div_ceil(4);
        let params = GradientWindowsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            positions_base: positions.base,
            grad_base: grad.base,
            out_base: out.base,
            grad_width: grad_width as u32,
            first_column: first_column as u32,
            width: width as u32,
            dense,
            has_bags: u32::from(bags.is_some()),
        };
        gpu.dispatch(NAME, &kernel, &params, &bindings, groups_of(threads))?;
        for (level, next) in levels[1..].iter().enumerate() {
            let threads = next.nodes * width;
            let params = GradientHeadsParams {
                threads: threads as u32,
                starts_base: starts.base,
                width: width as u32,
                windows: windows as u32,
                level: level as u32,
            };
            gpu.dispatch(NAME, &heads_kernel(), &params, &[live, starts, &heads], groups_of(threads))?;
        }
        let threads = (windows - 1) * width;
        let params = GradientLongRunsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            out_base: out.base,
            width: width as u32,
            dense,
            windows: windows as u32,
        };
        let bindings = [live, ids, starts, &heads, out];
        gpu.dispatch(NAME, &long_runs_kernel(), &params, &bindings, groups_of(threads))
    }
}
