//! Optimisers on rows of a table.

use crate::element::{DType, Element, Scalar};
use crate::error::Result;
use crate::gpu::{Step, fit};
use crate::memory::ViewMut;
use crate::ops::{Optimiser, OptimiserState, SparseGradient, TableMut};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::order::Given;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::recording::Command;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::suspects::Access;

const NAME: &str = "update_rows";

params! {
    /// Twin of the struct in shaders/lookup/update_sums.wgsl.
    struct UpdateSumsParams {
        ids_base: u32,
        gradient_base: u32,
        sums_base: u32,
        width: u32,
        lanes: u32,
        rate: f32,
        eps: f32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/update_rows.wgsl.
    struct UpdateRowsParams {
        threads: u32,
        words: u32,
        ids_base: u32,
        gradient_base: u32,
        table_base: u32,
        first_base: u32,
        second_base: u32,
        rows: u32,
        width: u32,
        method: u32,
        rate: f32,
        kept: f32,
        eps: f32,
        beta1: f32,
        beta2: f32,
        new1: f32,
        new2: f32,
        mean: f32,
        square: f32,
    }
}

fn sums_kernel() -> Kernel {
    Kernel {
        name: "lookup/update_sums",
        params: &UpdateSumsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/update_sums.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("gradient", "f32"),
            Slot::write("sums", "f32"),
            Slot::write("factors", "f32"),
        ],
    }
}

/// `stored`: 0 for f32, 1 for f16, 2 for bf16.
fn rows_kernel(stored: u32) -> Kernel {
    Kernel {
        name: "lookup/update_rows",
        params: &UpdateRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/update_rows.wgsl")],
        constants: vec![("STORED", stored), ("LANES", lanes_of(stored))],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("gradient", "f32"),
            Slot::plain("factors", "f32"),
            Slot::write("table", "u32"),
            Slot::write("first", "f32"),
            Slot::write("second", "f32"),
        ],
    }
}

/// Numbers per word.
fn lanes_of(stored: u32) -> u32 {
    if stored == 0 { 1 } else { 2 }
}

pub(super) fn variants() -> Vec<Kernel> {
    [0, 1, 2].map(rows_kernel).into_iter().chain([sums_kernel()]).collect()
}

/// What a call reads, in buffers that it does not write.
struct Inputs {
    ids: Binding,
    rows: Binding,
    count: Binding,
}

/// What a call changes besides the table.
struct States {
    /// Sums or first moments, and second moments.
    outputs: Vec<Output>,
    first: Binding,
    second: Binding,
}

pub(super) fn update_rows<T: Element>(
    gpu: &Wgpu,
    op: &Optimiser,
    table: &TableMut<'_, WgpuMemory, T>,
    state: &OptimiserState<'_, WgpuMemory>,
    gradient: &SparseGradient<'_, WgpuMemory>,
) -> Result<()> {
    op.check_update(table, state, gradient)?;
    let (width, rows, capacity) = (table.width, table.rows, gradient.ids.len());
    // Kernels count up to the end of a row's last word and of the last workgroup.
    let most = rows.saturating_add(1).saturating_mul(width).saturating_add(1 << 10);
    fit(NAME, "table", most)?;
    let stored = match T::DTYPE {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    };
    let words = width / lanes_of(stored) as usize + 1;
    let threads = capacity.saturating_mul(words);
    fit(NAME, "gradient.rows", threads.saturating_add(1 << 10))?;
    let data = match rows {
        0 => gpu.no_output(NAME)?,
        _ => Binding { keeps: true, ..gpu.bind(NAME, "table", &Region::of_mut(&table.data))? },
    };
    let states = States::new(gpu, state, &data)?;
    let inputs = Inputs::new(gpu, gradient, &[&data, &states.first, &states.second])?;
    let given = Given { ids: &inputs.ids, count: &inputs.count, capacity, rows };
    let live = given.check_gradient(gpu, NAME)?;
    if capacity == 0 || rows == 0 {
        return Ok(());
    }
    states.outputs.iter().for_each(|output| gpu.fetch(output));
    let step = Step::of(op);
    let (factors, [first, second]) = if step.method == Step::ROW_WISE_ADAGRAD {
        // Before the sums change.
        let none = [gpu.no_output(NAME)?, gpu.no_output(NAME)?];
        let factors = factors(gpu, &step, &inputs, [&live, &states.first], [capacity, width])?;
        (factors, none)
    } else {
        (gpu.nothing(), [states.first, states.second])
    };
    let Step { method, rate, kept, eps, betas, new, corrections } = step;
    let params = UpdateRowsParams {
        threads: threads as u32,
        words: words as u32,
        ids_base: inputs.ids.base,
        gradient_base: inputs.rows.base,
        table_base: data.base,
        first_base: first.base,
        second_base: second.base,
        rows: rows as u32,
        width: width as u32,
        method,
        rate,
        kept,
        eps,
        beta1: betas[0],
        beta2: betas[1],
        new1: new[0],
        new2: new[1],
        mean: corrections[0],
        square: corrections[1],
    };
    let bindings = [&live, &inputs.ids, &inputs.rows, &factors, &data, &first, &second];
    gpu.dispatch(NAME, &rows_kernel(stored), &params, &bindings, groups_of(threads))?;
    states.outputs.into_iter().try_for_each(|output| gpu.finish(output))
}

/// Updates the sums of row-wise Adagrad. Returns the factor of each row's gradient.
fn factors(
    gpu: &Wgpu,
    step: &Step,
    inputs: &Inputs,
    [live, sums]: [&Binding; 2],
    [capacity, width]: [usize; 2],
) -> Result<Binding> {
    let lanes = width.next_power_of_two().min(THREADS as usize);
    let factors = gpu.scratch(NAME, capacity as u64)?;
    let params = UpdateSumsParams {
        ids_base: inputs.ids.base,
        gradient_base: inputs.rows.base,
        sums_base: sums.base,
        width: width as u32,
        lanes: lanes as u32,
        rate: step.rate,
        eps: step.eps,
    };
    let bindings = [live, &inputs.ids, &inputs.rows, sums, &factors];
    let groups = capacity.div_ceil(THREADS as usize / lanes) as u64;
    gpu.dispatch(NAME, &sums_kernel(), &params, &bindings, groups)?;
    Ok(factors)
}

impl Inputs {
    /// Binds a gradient, or copies of its parts that share a buffer with what is written.
    fn new(gpu: &Wgpu, gradient: &SparseGradient<'_, WgpuMemory>, changed: &[&Binding]) -> Result<Self> {
        let SparseGradient { ids, rows, count } = *gradient;
        Ok(Self {
            ids: apart(gpu, "gradient.ids", Region::of(ids), changed)?,
            rows: apart(gpu, "gradient.rows", Region::of(rows), changed)?,
            count: apart(gpu, "gradient.count", Region::of(count), changed)?,
        })
    }
}

fn apart<T: Scalar>(
    gpu: &Wgpu,
    argument: &'static str,
    region: Region<'_, T>,
    changed: &[&Binding],
) -> Result<Binding> {
    let bound = gpu.bind(NAME, argument, &region)?;
    if region.length == 0 || changed.iter().all(|other| other.buffer != bound.buffer) {
        return Ok(bound);
    }
    let copy = gpu.scratch(NAME, region.length as u64)?;
    let from_offset = bound.offset + u64::from(bound.base) * 4;
    let (from, to, bytes) = (bound.buffer, copy.buffer.clone(), region.bytes());
    let accesses = Access::read(&from, bound.bytes).collect();
    gpu.record(NAME, Command::Copy { from, from_offset, to, to_offset: 0, bytes, accesses });
    Ok(copy)
}

impl States {
    fn new(gpu: &Wgpu, state: &OptimiserState<'_, WgpuMemory>, table: &Binding) -> Result<Self> {
        let none = || gpu.no_output(NAME);
        let (outputs, first, second) = match state {
            OptimiserState::Empty => (vec![], none()?, none()?),
            OptimiserState::Sums(sums) => {
                let sums = state_output(gpu, "state", sums, &[table])?;
                let first = sums.binding.clone();
                (vec![sums], first, none()?)
            }
            OptimiserState::Moments { first, second } => {
                let first = state_output(gpu, "state.first", first, &[table])?;
                let second = state_output(gpu, "state.second", second, &[table, &first.binding])?;
                let (a, b) = (first.binding.clone(), second.binding.clone());
                (vec![first, second], a, b)
            }
        };
        Ok(Self { outputs, first, second })
    }
}

/// A state in place, or a copy where its binding would overlap one of the others.
fn state_output(
    gpu: &Wgpu,
    argument: &'static str,
    view: &ViewMut<'_, WgpuMemory, f32>,
    others: &[&Binding],
) -> Result<Output> {
    let output = gpu.output(NAME, argument, view, view.len(), &[], &[])?.keeping();
    if view.is_empty() || others.iter().all(|other| !output.binding.overlaps(other)) {
        return Ok(output);
    }
    let buffer = output.binding.buffer.clone();
    gpu.output(NAME, argument, view, view.len(), &[&buffer], &[])
}
