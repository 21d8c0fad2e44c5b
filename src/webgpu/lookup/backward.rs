//! Gradients of tables: sums of rows of `grad_out` by id.

use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;
use crate::webgpu::batch::WgpuJagged;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::order::{Given, GivenRuns};
use crate::webgpu::lookup::runs::Runs;
use crate::webgpu::lookup::sort::{IdList, Sort, SortedBindings};
use crate::webgpu::lookup::table_gradient::{self, Job};
use crate::webgpu::lookup::weights::IdWeights;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
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

pub(super) fn variants() -> Vec<Kernel> {
    [vec![bags_kernel()], table_gradient::variants()].concat()
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
    let offsets = offsets_of(gpu, &bags)?;
    let grad = Region::of(grad_out.out);
    let grad_second = grad_out.second.map(Region::of);
    let mut read = vec![grad.buffer, ids.buffer];
    read.extend(grad_second.map(|grad| grad.buffer));
    for sorted in saved.sorted {
        read.extend(
            [sorted.ids, sorted.starts, sorted.positions, sorted.count].map(|list| Region::of(list).buffer),
        );
    }
    let grad = gpu.bind(NAME, "grad_out", &grad)?;
    let grad_second = grad_second.map(|grad| gpu.bind(NAME, "grad_out", &grad)).transpose()?;
    let mut first = jobs(gpu, NAME, inputs.tables, (grad.clone(), used), &grads.tables, &read)?;
    let mut second = match &grad_second {
        Some(grad) => {
            jobs(gpu, NAME, inputs.second_tables, (grad.clone(), used), &grads.second_tables, &read)?
        }
        None => Vec::new(),
    };
    let grad_weights = IdWeights::output(gpu, NAME, inputs, used, grads, &read)?;
    if given.is_empty() || grad_weights.is_some() {
        gpu.check_ids(NAME, "ids", op.ids, ids, used, inputs.tables)?;
    }
    let mut given_runs = Vec::new();
    for (sorted, (list, table)) in given.into_iter().zip(saved.sorted.iter().zip(inputs.tables)) {
        given_runs.push(check_sorted(gpu, sorted, list, (used, table.rows))?);
    }
    if first.iter().chain(&second).all(Option::is_none) && grad_weights.is_none() {
        return Ok(());
    }
    let id_weights = IdWeights::new(gpu, NAME, op, &bags, inputs, &ids_binding)?;
    let bags = match (&id_weights, offsets) {
        (Some(weights), _) => Some(weights.out.clone()),
        (None, Some((offsets, bags, mean))) => Some(bags_of_rows(gpu, &offsets, (bags, mean), used)?),
        (None, None) => None,
    };
    for (feature, jobs) in [&first, &second].into_iter().flat_map(|jobs| jobs.iter().enumerate()) {
        if let Some(job) = jobs {
            job.check_room(gpu, given_runs.get(feature).map_or(used, |runs| runs.places))?;
        }
    }
    if let (Some(weights), Some(out)) = (&id_weights, grad_weights) {
        weights.gradient(gpu, inputs, (&grad, grad_second.as_ref()), out)?;
    }
    for (feature, table) in inputs.tables.iter().enumerate() {
        let jobs = [&mut first, &mut second].map(|jobs| jobs.get_mut(feature).and_then(Option::take));
        if jobs.iter().all(Option::is_none) {
            continue;
        }
        gpu.part(|| {
            let own;
            let runs = match given_runs.get(feature) {
                Some(runs) => runs,
                None => {
                    own = sorted_here(gpu, &ids_binding, [features, feature], [used, table.rows])?;
                    &own
                }
            };
            if let Some(weights) = &id_weights {
                weights.weigh(gpu, feature)?;
            }
            jobs.into_iter().flatten().try_for_each(|job| job.run(gpu, runs, bags.as_ref()))
        })?;
    }
    Ok(())
}

/// The gradients asked for of some tables, one place for each table: sums of rows of `grad`, of at most `used` ids.
pub(in crate::webgpu) fn jobs(
    gpu: &Wgpu,
    operation: &'static str,
    tables: &[Table<'_, WgpuMemory>],
    (grad, used): (Binding, usize),
    grads: &[Option<TableGradient<'_, WgpuMemory>>],
    read: &[&wgpu::Buffer],
) -> Result<Vec<Option<Job>>> {
    let grad_width = total_width(tables);
    let mut first_column = 0;
    let mut jobs = Vec::with_capacity(tables.len());
    for (table, gradient) in tables.iter().zip(grads) {
        let width = table.width;
        let output = |rows: &_, count: usize, others: &[&Output]| {
            let length = count.saturating_mul(width);
            fit(operation, "grads", length)?;
            Ok((length, gpu.output(operation, "grads", rows, length, read, others)?))
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
                let ids = gpu.output(operation, "grads", &gradient.ids, capacity, read, &[])?;
                let count = gpu.output(operation, "grads", &gradient.count, 1, read, &[&ids])?;
                let (length, rows) = output(&gradient.rows, capacity, &[&ids, &count])?;
                (length, rows, Some((ids, count, capacity)))
            }
        };
        let grad = grad.clone();
        jobs.push(Some(Job { operation, grad, grad_width, first_column, width, length, rows, sparse }));
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
    // A gradient's capacity is at most the number of positions.
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
    sort.load(&IdList { ids, features, feature, first: 0, length: used, report: None })?;
    sorted_runs(&sort, [used, rows])
}

/// Sorts the keys of `used` positions in a table of so many rows, which are loaded.
pub(in crate::webgpu) fn sorted_runs(sort: &Sort<'_>, [used, rows]: [usize; 2]) -> Result<Runs> {
    let (gpu, operation, capacity) = (sort.gpu, sort.operation, used.min(rows));
    let sorted = SortedBindings {
        ids: gpu.scratch(operation, capacity as u64)?,
        starts: gpu.scratch(operation, capacity as u64 + 1)?,
        positions: gpu.scratch(operation, used as u64)?,
        count: gpu.scratch(operation, 1)?,
    };
    sort.finish(&sorted)?;
    let live = sorted.count.clone();
    Ok(Runs { sorted, live, ids: capacity, places: used })
}

/// The offsets of bags, their number, and whether they are averaged.
fn offsets_of(gpu: &Wgpu, bags: &Bags<'_, WgpuJagged>) -> Result<Option<(Binding, usize, bool)>> {
    let (bags, mean) = match bags {
        Bags::Each => return Ok(None),
        Bags::Sum(bags) => (*bags, false),
        Bags::Mean(bags) => (*bags, true),
    };
    Ok(Some((bags.offsets(gpu, NAME, "bags")?, bags.as_ref().users(), mean)))
}

/// The bag of each row of ids, and its weight.
fn bags_of_rows(gpu: &Wgpu, offsets: &Binding, (bags, mean): (usize, bool), used: usize) -> Result<Binding> {
    let out = gpu.scratch(NAME, 2 * used as u64)?;
    let params =
        BagsOfRowsParams { rows: used as u32, bags: fit(NAME, "bags", bags)?, mean: u32::from(mean) };
    gpu.dispatch(NAME, &bags_kernel(), &params, &[offsets, &out], groups_of(used))?;
    Ok(out)
}
