//! The gradients of target attention.
//!
//! A workgroup owns a span of one user's behaviours, and goes over all of the user's candidates: it computes weights and
//! gradients of scores again, adds up the gradients of its keys, values and bias, and a partial result of those of the queries.
//! A last pass adds those up, in the order of the spans.

mod history;
mod plan;
mod queries;
mod rows;

use std::ops::Range;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::{fit, weighting_code};
use crate::memory::ViewMut;
use crate::ops::{
    TargetAttention, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionInputs,
    TargetAttentionSaved, Weighting,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::recording::Command;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use history::{History, Written};
use plan::{BackwardPlan, Limits};
use rows::{Job, PackedRows, Saved, Window};

const NAME: &str = "target_attention_backward";

/// Bytes of partial results, and of packed rows, of the users that are computed together.
const GROUP_BYTES: u64 = 64 << 20;

pub(super) fn variants() -> Vec<Kernel> {
    [history::variants(), queries::variants(), rows::variants()].concat()
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &TargetAttention,
    batch: &WgpuBatch,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    (saved, grad_out): (&TargetAttentionSaved<'_, WgpuMemory, T>, &TargetAttentionGradOut<'_, WgpuMemory, T>),
    mut grads: TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, saved, grad_out, &grads)?;
    weighting_code(NAME, op.weighting)?;
    batch.check_owner(gpu, NAME)?;
    if !check_outputs(gpu, &grads)? {
        return Ok(());
    }
    let targets = batch.as_ref().targets();
    fit(NAME, "N", batch.as_ref().histories().rows())?;
    fit(NAME, "queries", targets.rows().saturating_mul(op.heads * op.width))?;
    fit(NAME, "grad_out.out", targets.rows().saturating_mul(op.heads * op.value_width))?;
    let window = window(gpu, op, inputs, &grads);
    let bytes = GROUP_BYTES.min(gpu.limits().max_storage_buffer_binding_size / 2) as usize;
    let limits = Limits { window, bytes, queries: grads.queries.is_some() };
    let groups = plan::groups(op, batch.as_ref(), limits);
    let plans: Vec<_> =
        groups.into_iter().map(|users| BackwardPlan::new(op, batch.as_ref(), users, limits)).collect();
    // All of them fit, before the first writes anything.
    for plan in &plans {
        check_room(gpu, op, plan, window, &grads)?;
    }
    for plan in &plans {
        let job = Job {
            gpu,
            operation: NAME,
            op,
            tiles: gpu.list(NAME, &plan.tile_words())?,
            pieces: gpu.list(NAME, &plan.piece_words())?,
            plan,
        };
        gpu.part(|| one_group(&job, inputs, (saved, grad_out), &mut grads, window))?;
    }
    Ok(())
}

/// Computes the gradients of the users of a plan.
fn one_group<T: Element, G: GradientOf<T>>(
    job: &Job<'_>,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    (saved, grad_out): (&TargetAttentionSaved<'_, WgpuMemory, T>, &TargetAttentionGradOut<'_, WgpuMemory, T>),
    grads: &mut TargetAttentionGradients<'_, WgpuMemory, G>,
    window: usize,
) -> Result<()> {
    let Job { gpu, op, plan, .. } = *job;
    let rows = job.pack(Region::of(inputs.queries), Region::of(grad_out.out))?;
    let windows = plan.windows(window);
    let softmax = saved.out.zip(saved.lse).filter(|_| op.weighting == Weighting::Softmax);
    if let Some((out, lse)) = softmax {
        let grad_lse = grad_out.lse.map(Region::of);
        let saved = Saved { out: Region::of(out), lse: Region::of(lse), grad_lse };
        states(job, &rows, &saved, inputs, Region::of(grad_out.out), &windows)?;
    }
    let (first_bias, words) = partial_words(op, plan, &windows, grads)?;
    let partial = gpu.scratch(NAME, words as u64)?;
    let history = History { job, rows: &rows, partial: &partial, first_bias };
    for (pieces, span) in &windows {
        gpu.part(|| one_window(&history, inputs, (pieces, span), grads))?;
    }
    match &mut grads.queries {
        Some(grad) => queries::add_up(job, &partial, grad),
        None => Ok(()),
    }
}

/// Where the gradients of the bias begin behind the partial results of a group, and where they end, in words.
fn partial_words<G: Element>(
    op: &TargetAttention,
    plan: &BackwardPlan,
    windows: &[(Range<usize>, Range<usize>)],
    grads: &TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<(u32, usize)> {
    let most_rows = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
    let parts = if grads.queries.is_some() { plan.parts.saturating_mul(op.width) } else { 0 };
    let bias = if grads.bias.is_some() { most_rows * op.heads } else { 0 };
    fit(NAME, "partial results", parts.saturating_add(bias))?;
    Ok((fit(NAME, "partial results", parts)?, parts + bias))
}

/// Checks that the device holds what a group needs.
fn check_room<G: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    plan: &BackwardPlan,
    window: usize,
    grads: &TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    let [.., packed] = rows::packed_parts(op, plan);
    gpu.scratch_size(NAME, u64::from(fit(NAME, "queries", packed)?) * 4)?;
    if op.weighting == Weighting::Softmax {
        gpu.scratch_size(NAME, (2 * plan.parts / plan.shares) as u64)?;
    }
    let (_, words) = partial_words(op, plan, &plan.windows(window), grads)?;
    gpu.scratch_size(NAME, words as u64).map(|_| ())
}

/// Checks that the gradients are of this device, before anything is recorded; returns whether any is asked for.
fn check_outputs<G: Element>(
    gpu: &Wgpu,
    grads: &TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<bool> {
    let rows =
        [("grads.queries", &grads.queries), ("grads.keys", &grads.keys), ("grads.values", &grads.values)];
    for (argument, view) in rows {
        view.iter().try_for_each(|view| gpu.check_device(NAME, argument, &Region::of_mut(view)))?;
    }
    grads.bias.iter().try_for_each(|view| gpu.check_device(NAME, "grads.bias", &Region::of_mut(view)))?;
    Ok(grads.bias.is_some() || rows.iter().any(|(_, view)| view.is_some()))
}

/// The rows of histories that are bound at a time: as many as fit a binding of every input and output.
fn window<T: Element, G: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    grads: &TargetAttentionGradients<'_, WgpuMemory, G>,
) -> usize {
    let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let mut window = gpu.rows_per_binding::<T>(key_row.max(value_row));
    if inputs.bias.is_some() {
        window = window.min(gpu.rows_per_binding::<f32>(op.heads));
    }
    for (asked, width) in [
        (grads.keys.is_some(), key_row),
        (grads.values.is_some(), value_row),
        // They share a binding with the partial results.
        (grads.bias.is_some(), 4 * op.heads),
    ] {
        if asked {
            window = window.min(gpu.rows_per_binding::<f32>(width));
        }
    }
    window
}

/// Binds a part of the histories: keys, values, bias.
fn bind_history<T: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    span: &Range<usize>,
) -> Result<(Binding, Binding, Option<Binding>)> {
    let keys = Region::of(inputs.keys);
    let values = inputs.values.map_or(keys, Region::of);
    let (first, count) = (span.start, span.len());
    let keys = gpu.bind(NAME, "keys", &keys.rows(first, count, op.kv_heads * op.width))?;
    let values = gpu.bind(NAME, "values", &values.rows(first, count, op.kv_heads * op.value_width))?;
    let bias = |bias| gpu.bind(NAME, "bias", &Region::of(bias).rows(first, count, op.heads));
    Ok((keys, values, inputs.bias.map(bias).transpose()?))
}

/// Computes the softmax states of all rows.
fn states<T: Element>(
    job: &Job<'_>,
    rows: &PackedRows,
    saved: &Saved<'_, T>,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    grad_out: Region<'_, T>,
    windows: &[(Range<usize>, Range<usize>)],
) -> Result<()> {
    let Job { gpu, plan, .. } = *job;
    let lse = gpu.bind(NAME, "saved.lse", &saved.lse)?;
    let span_states = gpu.scratch(NAME, (2 * plan.parts / plan.shares) as u64)?;
    for (pieces, span) in windows {
        let (keys, _, bias) = bind_history(gpu, job.op, inputs, span)?;
        let window = Window { pieces, span, keys, bias };
        job.span_states::<T>(rows, &lse, &span_states, &window)?;
    }
    job.row_states(rows, saved, grad_out, &span_states)
}

/// Computes the gradients of the histories of one window, and their part of those of the queries.
fn one_window<T: Element, G: Element>(
    history: &History<'_>,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    (pieces, span): (&Range<usize>, &Range<usize>),
    grads: &mut TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    let Job { gpu, op, .. } = *history.job;
    let (keys, values, bias) = bind_history(gpu, op, inputs, span)?;
    let mut read = vec![&keys.buffer, &values.buffer];
    read.extend(bias.as_ref().map(|bias| &bias.buffer));
    let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let grad_keys = output(gpu, "grads.keys", &mut grads.keys, (span, key_row), &read, None)?;
    let grad_values =
        output(gpu, "grads.values", &mut grads.values, (span, value_row), &read, grad_keys.as_ref())?;
    let written = Written {
        queries: grads.queries.is_some(),
        keys: grad_keys.as_ref().map(|grads| &grads.binding),
        values: grad_values.as_ref().map(|grads| &grads.binding),
        aliased: inputs.values.is_none(),
        bias: grads.bias.is_some(),
    };
    let window = Window { pieces, span, keys: keys.clone(), bias: bias.clone() };
    history.gradients::<T>(&window, &values, &written)?;
    grad_keys.map_or(Ok(()), |grads| gpu.finish(grads))?;
    grad_values.map_or(Ok(()), |grads| gpu.finish(grads))?;
    if let Some(grads) = &grads.bias {
        let view = Region::of_mut(grads).rows(span.start, span.len(), op.heads);
        let to = gpu.bind(NAME, "grads.bias", &view)?;
        let (from, from_offset) = (history.partial.buffer.clone(), u64::from(history.first_bias) * 4);
        let (to_offset, bytes) = (to.offset + u64::from(to.base) * 4, view.bytes());
        gpu.record(NAME, Command::Copy { from, from_offset, to: to.buffer, to_offset, bytes });
    }
    Ok(())
}

/// Prepares the rows of a window of one gradient, if it is asked for.
fn output<G: Element>(
    gpu: &Wgpu,
    argument: &'static str,
    view: &mut Option<ViewMut<'_, WgpuMemory, G>>,
    (span, row): (&Range<usize>, usize),
    read: &[&wgpu::Buffer],
    other: Option<&Output>,
) -> Result<Option<Output>> {
    let Some(view) = view else { return Ok(None) };
    let rows = view.reborrow().slice(span.start * row, span.len() * row)?;
    let others: Vec<&Output> = other.into_iter().collect();
    Ok(Some(gpu.output(NAME, argument, &rows, rows.len(), read, &others)?))
}
