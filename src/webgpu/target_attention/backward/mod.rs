//! The gradients of attention, for every operation that needs them.
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
use crate::gpu::fit;
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
use crate::webgpu::suspects::Access;
use crate::webgpu::target_attention::added::Added;
use crate::webgpu::target_attention::attend;
use crate::webgpu::target_attention::check_widths;
use history::{History, Written};
use plan::{BackwardPlan, Limits};
pub(in crate::webgpu) use queries::QueryGradients;
use rows::{Job, PackedRows, Saved, Window};

/// Bytes of partial results, and of packed rows, of the users that are computed together.
const GROUP_BYTES: u64 = 64 << 20;

pub(super) fn variants() -> Vec<Kernel> {
    [history::variants(), queries::variants(), rows::variants()].concat()
}

/// One backward pass as the kernels see it, whichever operation it serves. `Q` is the type of queries and of what comes in, `T` that of
/// the histories and of what was saved.
pub(in crate::webgpu) struct Pass<'a, Q: Element, T: Element> {
    pub(in crate::webgpu) operation: &'static str,
    pub(in crate::webgpu) op: &'a TargetAttention,
    pub(in crate::webgpu) queries: Region<'a, Q>,
    pub(in crate::webgpu) grad_out: Region<'a, Q>,
    pub(in crate::webgpu) grad_lse: Option<Region<'a, f32>>,
    /// Of softmax, the output and the log-sum-exp.
    pub(in crate::webgpu) saved: Option<(Region<'a, T>, Region<'a, f32>)>,
    pub(in crate::webgpu) history: &'a attend::History<'a>,
    pub(in crate::webgpu) added: Added<'a>,
    /// Whether the keys are the values.
    pub(in crate::webgpu) aliased: bool,
}

/// The gradients that are asked for.
pub(in crate::webgpu) struct Gradients<'a, G: Element> {
    pub(in crate::webgpu) queries: Option<QueryGradients<'a, G>>,
    pub(in crate::webgpu) keys: Option<ViewMut<'a, WgpuMemory, G>>,
    pub(in crate::webgpu) values: Option<ViewMut<'a, WgpuMemory, G>>,
    pub(in crate::webgpu) bias: Option<ViewMut<'a, WgpuMemory, f32>>,
    /// Takes the `f32` gradients of the keys of one span of the histories after the other.
    pub(in crate::webgpu) of_span: Option<&'a mut OfSpan<'a>>,
}

pub(in crate::webgpu) type OfSpan<'a> = dyn FnMut(&Range<usize>, &Binding) -> Result<()> + 'a;

pub(super) fn target_attention<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &TargetAttention,
    batch: &WgpuBatch,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    (saved, grad_out): (&TargetAttentionSaved<'_, WgpuMemory, T>, &TargetAttentionGradOut<'_, WgpuMemory, T>),
    grads: TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    const NAME: &str = "target_attention_backward";
    op.check_backward(batch.as_ref(), inputs, saved, grad_out, &grads)?;
    check_widths(NAME, [op.width, op.value_width])?;
    batch.check_owner(gpu, NAME)?;
    if !check_outputs(gpu, NAME, &grads)? {
        return Ok(());
    }
    let keys = Region::of(inputs.keys);
    let values = inputs.values.map_or(keys, Region::of);
    let history = |span: &Range<usize>| {
        let (first, count) = (span.start, span.len());
        Ok([
            gpu.bind(NAME, "keys", &keys.rows(first, count, op.kv_heads * op.width))?,
            gpu.bind(NAME, "values", &values.rows(first, count, op.kv_heads * op.value_width))?,
        ])
    };
    let saved = saved.out.zip(saved.lse).filter(|_| op.weighting == Weighting::Softmax);
    let pass = Pass {
        operation: NAME,
        op,
        queries: Region::of(inputs.queries),
        grad_out: Region::of(grad_out.out),
        grad_lse: grad_out.lse.map(Region::of),
        saved: saved.map(|(out, lse)| (Region::of(out), Region::of(lse))),
        history: &history,
        added: inputs.bias.map_or(Added::Nothing, |bias| Added::Bias(Region::of(bias))),
        aliased: inputs.values.is_none(),
    };
    let TargetAttentionGradients { queries, keys, values, bias } = grads;
    let queries = queries.map(QueryGradients::View);
    pass.run(gpu, batch, Gradients { queries, keys, values, bias, of_span: None })
}

/// Checks that the gradients are of this device, before anything is recorded; returns whether any is asked for.
fn check_outputs<G: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    grads: &TargetAttentionGradients<'_, WgpuMemory, G>,
) -> Result<bool> {
    let rows =
        [("grads.queries", &grads.queries), ("grads.keys", &grads.keys), ("grads.values", &grads.values)];
    for (argument, view) in rows {
        view.iter().try_for_each(|view| gpu.check_device(operation, argument, &Region::of_mut(view)))?;
    }
    grads
        .bias
        .iter()
        .try_for_each(|view| gpu.check_device(operation, "grads.bias", &Region::of_mut(view)))?;
    Ok(grads.bias.is_some() || rows.iter().any(|(_, view)| view.is_some()))
}

impl<G: Element> Gradients<'_, G> {
    /// Whether the gradients of the keys are computed.
    fn has_keys(&self) -> bool {
        self.keys.is_some() || self.of_span.is_some()
    }
}

impl<Q: Element, T: Element> Pass<'_, Q, T> {
    pub(in crate::webgpu) fn run<G: Element>(
        &self,
        gpu: &Wgpu,
        batch: &WgpuBatch,
        mut grads: Gradients<'_, G>,
    ) -> Result<()> {
        let Self { operation, op, .. } = *self;
        let targets = batch.as_ref().targets();
        fit(operation, "N", batch.as_ref().histories().rows())?;
        fit(operation, "queries", targets.rows().saturating_mul(op.heads * op.width))?;
        fit(operation, "grad_out.out", targets.rows().saturating_mul(op.heads * op.value_width))?;
        let window = self.window(gpu, &grads);
        let bytes = GROUP_BYTES.min(gpu.limits().max_storage_buffer_binding_size / 2) as usize;
        let limits = Limits { window, bytes, queries: grads.queries.is_some() };
        let groups = plan::groups(op, batch.as_ref(), limits);
        let plans: Vec<_> =
            groups.into_iter().map(|users| BackwardPlan::new(op, batch.as_ref(), users, limits)).collect();
        // All of them fit, before the first writes anything.
        for plan in &plans {
            self.check_room(gpu, plan, window, &grads)?;
        }
        let gaps = batch.as_ref().histories().gaps();
        gpu.clear_rows(operation, "grads.keys", &mut grads.keys, &gaps, op.kv_heads * op.width)?;
        gpu.clear_rows(operation, "grads.values", &mut grads.values, &gaps, op.kv_heads * op.value_width)?;
        gpu.clear_rows(operation, "grads.bias", &mut grads.bias, &gaps, op.heads)?;
        for plan in &plans {
            let job = Job {
                gpu,
                operation,
                op,
                added: self.added,
                aliased: self.aliased,
                tiles: gpu.list(operation, &plan.tile_words())?,
                pieces: gpu.list(operation, &plan.piece_words())?,
                plan,
            };
            gpu.part(|| self.group(&job, &mut grads, window))?;
        }
        Ok(())
    }

    /// The rows of histories that are bound at a time: as many as fit a binding of every input and output.
    fn window<G: Element>(&self, gpu: &Wgpu, grads: &Gradients<'_, G>) -> usize {
        let op = self.op;
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let mut window = gpu.rows_per_binding::<T>(key_row.max(value_row));
        window = self.added.window(gpu, op.heads, window);
        for (asked, width) in [
            (grads.has_keys(), key_row),
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

    /// Checks that the device holds what a group needs.
    fn check_room<G: Element>(
        &self,
        gpu: &Wgpu,
        plan: &BackwardPlan,
        window: usize,
        grads: &Gradients<'_, G>,
    ) -> Result<()> {
        let Self { operation, op, .. } = *self;
        let [.., packed] = rows::packed_parts(op, plan);
        gpu.scratch_size(operation, u64::from(fit(operation, "queries", packed)?) * 4)?;
        if op.weighting == Weighting::Softmax {
            gpu.scratch_size(operation, (2 * plan.parts / plan.shares) as u64)?;
        }
        let (_, words) = self.partial_words(plan, &plan.windows(window), grads)?;
        gpu.scratch_size(operation, words as u64).map(|_| ())
    }

    /// Where the gradients of the bias begin behind the partial results of a group, and where they end, in words.
    fn partial_words<G: Element>(
        &self,
        plan: &BackwardPlan,
        windows: &[(Range<usize>, Range<usize>)],
        grads: &Gradients<'_, G>,
    ) -> Result<(u32, usize)> {
        let Self { operation, op, .. } = *self;
        let most_rows = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
        let parts = if grads.queries.is_some() { plan.parts.saturating_mul(op.width) } else { 0 };
        let bias = if grads.bias.is_some() { most_rows * op.heads } else { 0 };
        fit(operation, "partial results", parts.saturating_add(bias))?;
        Ok((fit(operation, "partial results", parts)?, parts + bias))
    }

    /// Computes the gradients of the users of a plan.
    fn group<G: Element>(&self, job: &Job<'_>, grads: &mut Gradients<'_, G>, window: usize) -> Result<()> {
        let Job { gpu, plan, .. } = *job;
        let rows = job.pack(self.queries, self.grad_out)?;
        let windows = plan.windows(window);
        if let Some((out, lse)) = self.saved {
            let saved = Saved { out, lse, grad_out: self.grad_out, grad_lse: self.grad_lse };
            self.states(job, &rows, &saved, &windows)?;
        }
        let (first_bias, words) = self.partial_words(plan, &windows, grads)?;
        let partial = gpu.scratch(self.operation, words as u64)?;
        let history = History { job, rows: &rows, partial: &partial, first_bias };
        for (pieces, span) in &windows {
            gpu.part(|| self.one_window(&history, (pieces, span), grads))?;
        }
        match &mut grads.queries {
            Some(grad) => queries::add_up(job, &partial, grad),
            None => Ok(()),
        }
    }

    /// Binds a part of the histories.
    fn bind<'a>(
        &self,
        job: &Job<'_>,
        (pieces, span): (&'a Range<usize>, &'a Range<usize>),
    ) -> Result<Window<'a>> {
        let [keys, values] = (self.history)(span)?;
        let added = self.added.bind(job.gpu, self.operation, self.op.heads, span, &job.tiles)?;
        Ok(Window { pieces, span, keys, values, added })
    }

    /// Computes the softmax states of all rows.
    fn states(
        &self,
        job: &Job<'_>,
        rows: &PackedRows,
        saved: &Saved<'_, Q, T>,
        windows: &[(Range<usize>, Range<usize>)],
    ) -> Result<()> {
        let Job { gpu, plan, .. } = *job;
        let lse = gpu.bind(self.operation, "saved.lse", &saved.lse)?;
        let span_states = gpu.scratch(self.operation, (2 * plan.parts / plan.shares) as u64)?;
        for (pieces, span) in windows {
            let window = self.bind(job, (pieces, span))?;
            job.span_states::<T>(rows, &lse, &span_states, &window)?;
        }
        job.row_states(rows, saved, &span_states)
    }

    /// Computes the gradients of the histories of one window, and their part of those of the queries.
    fn one_window<G: Element>(
        &self,
        history: &History<'_>,
        (pieces, span): (&Range<usize>, &Range<usize>),
        grads: &mut Gradients<'_, G>,
    ) -> Result<()> {
        let Job { gpu, operation, op, .. } = *history.job;
        let window = self.bind(history.job, (pieces, span))?;
        let read = [&window.keys.buffer, &window.values.buffer, &window.added.buffer];
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let grad_keys =
            gpu.output_of_rows(operation, "grads.keys", &mut grads.keys, (span, key_row), &read, &[])?;
        let others: Vec<&Output> = grad_keys.iter().collect();
        let grad_values = gpu.output_of_rows(
            operation,
            "grads.values",
            &mut grads.values,
            (span, value_row),
            &read,
            &others,
        )?;
        // Gradients that only the caller's own pass takes.
        let passed = match (&grad_keys, &grads.of_span) {
            (None, Some(_)) => Some(gpu.scratch(operation, (span.len() * key_row) as u64)?),
            _ => None,
        };
        let keys = grad_keys.as_ref().map(|grads| &grads.binding).or(passed.as_ref());
        let written = Written {
            queries: grads.queries.is_some(),
            keys,
            values: grad_values.as_ref().map(|grads| &grads.binding),
            bias: grads.bias.is_some(),
        };
        history.gradients::<T>(&window, &written)?;
        if let (Some(of_span), Some(keys)) = (&mut grads.of_span, keys) {
            (*of_span)(span, keys)?;
        }
        grad_keys.map_or(Ok(()), |grads| gpu.finish(grads))?;
        grad_values.map_or(Ok(()), |grads| gpu.finish(grads))?;
        if let Some(grads) = &grads.bias {
            let view = Region::of_mut(grads).rows(span.start, span.len(), op.heads);
            let to = gpu.bind(operation, "grads.bias", &view)?;
            let (from, from_offset) = (history.partial.buffer.clone(), u64::from(history.first_bias) * 4);
            let (to_offset, bytes) = (to.offset + u64::from(to.base) * 4, view.bytes());
            let accesses = Access::write(&to.buffer, to.bytes).collect();
            gpu.record(
                operation,
                Command::Copy { from, from_offset, to: to.buffer, to_offset, bytes, accesses },
            );
        }
        Ok(())
    }
}
