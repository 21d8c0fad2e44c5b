//! Gradients of attention over a selection.
//!
//! What belongs to a candidate is computed from its slots, as in the forward pass: α and products, then weights and the gradients of
//! scores, then the gradient of the query. What belongs to a behaviour adds up over the slots that keep it, which are sorted by behaviour
//! (`history.rs`), and what belongs to a row of a table over those of its id (`tables.rs`).

mod call;
mod candidates;
mod history;
mod kernels;
mod tables;

use crate::element::{Element, GradientOf};
use crate::error::{Error, Result};
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::{
    SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients, SelectedAttentionInputs,
    Selection,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::MOST_ITERATIONS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::selected::groups::Group;
use crate::webgpu::selected::inputs::Inputs;
use crate::webgpu::selected::parts::Parts;
use crate::webgpu::selection::{Given, Number};
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use crate::webgpu::sum_parts::{Mode, Rows};
use call::{Asked, Call, NAME};
use candidates::Slots;
use history::HistoryGradients;
pub(super) use tables::backward_of_tables;

/// Candidates whose parts of the gradients of `γ` one thread adds up.
const CANDIDATES: usize = 256;

/// Slots of a window: shaders/lookup/window_sums.wgsl.
const WINDOW: usize = 32;

pub(super) fn variants() -> Vec<Kernel> {
    [kernels::variants(), tables::variants()].concat()
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    (inputs, grad_out): (
        &SelectedAttentionInputs<'_, WgpuMemory, T>,
        &SelectedAttentionGradOut<'_, WgpuMemory, T>,
    ),
    grads: SelectedAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, grad_out, &grads)?;
    batch.check_owner(gpu, NAME)?;
    let asked = Asked {
        values: grads.values.is_some(),
        is_aliased: inputs.values.is_none(),
        ..asked_of(&grads, [false; 2])
    };
    let (given, parts) = given_of(gpu, (NAME, op), batch, &inputs.selection)?;
    let call = Call {
        gpu,
        operation: NAME,
        op,
        inputs: Inputs::of(inputs),
        grad_out: Region::of(grad_out.out),
        grad_lse: grad_out.lse.map(Region::of),
        asked,
        parts,
        all: None,
    };
    all_groups(&call, batch, given, grads)
}

/// What is asked for, but for gradients of values.
fn asked_of<G: Element>(grads: &SelectedAttentionGradients<'_, WgpuMemory, G>, tables: [bool; 2]) -> Asked {
    Asked {
        queries: grads.queries.is_some(),
        keys: grads.keys.is_some(),
        values: false,
        bias: grads.bias.is_some(),
        gammas: grads.gammas.is_some(),
        similarities: grads.similarities.is_some(),
        is_aliased: false,
        tables,
    }
}

/// The selection of a call, unless nobody has candidates, and the parts of its slots.
fn given_of<'a>(
    gpu: &'a Wgpu,
    (operation, op): (&'static str, &SelectedAttention),
    batch: &WgpuBatch,
    selection: &Selection<'_, WgpuMemory>,
) -> Result<(Option<Given<'a>>, Parts)> {
    fit(operation, "N", batch.as_ref().histories().rows())?;
    let candidates = batch.as_ref().targets().total();
    if candidates == 0 {
        // Sizes may be anything.
        return Ok((None, Parts::NONE));
    }
    check_heads(operation, op)?;
    let numbers = op.width.saturating_add(op.value_width);
    let given = Given::new(gpu, operation, op.top_k, batch, selection)?;
    let workgroups = candidates.saturating_mul(op.heads);
    Ok((Some(given), Parts::new(operation, op.top_k, workgroups, numbers)?))
}

/// Computes the gradients of all groups.
fn all_groups<T: Element, G: Element>(
    call: &Call<'_, T>,
    batch: &WgpuBatch,
    given: Option<Given<'_>>,
    mut grads: SelectedAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    let Call { gpu, operation, op, asked, .. } = *call;
    let (candidates, behaviours) = (batch.as_ref().targets().total(), batch.as_ref().histories().total());
    let all = if asked.gammas { candidates.saturating_mul(op.heads).saturating_mul(3) } else { 0 };
    let gamma_parts = gpu.scratch(operation, u64::from(fit(operation, "grads.gammas", all)?))?;
    let groups = match candidates + behaviours {
        0 => Vec::new(),
        _ => call.limits().groups(batch.as_ref()),
    };
    let gaps = batch.as_ref().histories().gaps();
    gpu.clear_rows(operation, "grads.keys", &mut grads.keys, &gaps, op.kv_heads * op.width)?;
    gpu.clear_rows(operation, "grads.values", &mut grads.values, &gaps, op.kv_heads * op.value_width)?;
    gpu.clear_rows(operation, "grads.bias", &mut grads.bias, &gaps, op.heads)?;
    for group in groups {
        gpu.part(|| one_group(call, &group, given.as_ref(), &gamma_parts, &mut grads))?;
    }
    if let Some(gammas) = &grads.gammas {
        sum_gammas(call, gammas, gamma_parts, candidates)?;
    }
    given.map_or(Ok(()), Given::finish)
}

/// Fails for more heads than the loops of a thread go over: those of a key for each of a window's slots and of four columns, and all of
/// them.
fn check_heads(operation: &'static str, op: &SelectedAttention) -> Result<()> {
    let most_of_a_key = MOST_ITERATIONS / (4 * WINDOW) - 1;
    let limit = MOST_ITERATIONS.min(most_of_a_key.saturating_mul(op.kv_heads));
    if op.heads <= limit {
        return Ok(());
    }
    Err(Error::Limit { operation, argument: "heads", needed: op.heads as u64, limit: limit as u64 })
}

/// Computes the gradients of a group, and what its candidates add to those of `γ`.
fn one_group<T: Element, G: Element>(
    call: &Call<'_, T>,
    group: &Group,
    given: Option<&Given<'_>>,
    gamma_parts: &Binding,
    grads: &mut SelectedAttentionGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    let Call { gpu, operation, op, asked, .. } = *call;
    let read = call.buffers();
    let (targets, rows) = (&group.targets, &group.history);
    let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let query_row = op.heads.saturating_mul(op.width);
    let queries =
        gpu.output_of_rows(operation, "grads.queries", &mut grads.queries, (targets, query_row), &read, &[])?;
    let similarities = {
        let (view, part) = (&mut grads.similarities, (targets, op.top_k));
        gpu.output_of_rows(operation, "grads.similarities", view, part, &read, &[])?
    };
    let keys = gpu.output_of_rows(operation, "grads.keys", &mut grads.keys, (rows, key_row), &read, &[])?;
    let values =
        gpu.output_of_rows(operation, "grads.values", &mut grads.values, (rows, value_row), &read, &[])?;
    let bias = gpu.output_of_rows(operation, "grads.bias", &mut grads.bias, (rows, op.heads), &read, &[])?;
    for (output, numbers) in [(&keys, key_row), (&values, value_row), (&bias, op.heads)] {
        if let Some(output) = output {
            gpu.clear(operation, &output.binding, rows.len() * numbers);
        }
    }
    if let Some(given) = given.filter(|_| !targets.is_empty()) {
        let kept = given.keep(targets.clone(), rows.start, Number::Score)?;
        if asked.is_any() {
            let slots = Slots::new(call, group, kept, gamma_parts)?;
            let out = |output: &Option<Output>| output.as_ref().map(|output| output.binding.clone());
            if let Some(out) = out(&queries) {
                slots.queries(&out)?;
            }
            if let Some(out) = out(&similarities) {
                slots.similarities(&out)?;
            }
            let history = [out(&keys), out(&values), out(&bias)];
            if asked.history() && !rows.is_empty() {
                HistoryGradients::new(&slots)?.write(history)?;
            }
        }
    }
    [queries, similarities, keys, values, bias]
        .into_iter()
        .flatten()
        .try_for_each(|output| gpu.finish(output))
}

/// Adds up what candidates add to the gradients of `γ`, in order.
fn sum_gammas<T: Element>(
    call: &Call<'_, T>,
    out: &ViewMut<'_, WgpuMemory, f32>,
    parts: Binding,
    candidates: usize,
) -> Result<()> {
    let (Call { gpu, operation, .. }, width) = (*call, 3 * call.op.heads);
    let out = gpu.output(operation, "grads.gammas", out, width, &call.buffers(), &[])?;
    let (mut parts, mut count) = (parts, candidates);
    loop {
        let rows = count.div_ceil(CANDIDATES).max(1);
        let range = |row: usize| [row * CANDIDATES, count.min((row + 1) * CANDIDATES)];
        let ranges: Vec<u32> = (0..rows).flat_map(range).map(|edge| edge as u32).collect();
        let ranges = gpu.list(operation, &ranges)?;
        let sums = match rows {
            1 => out.binding.clone(),
            rows => gpu.scratch(operation, (rows * width) as u64)?,
        };
        let to = Rows { out: &sums, rows, width, out_width: width, first_column: 0 };
        to.sum_parts(gpu, operation, &ranges, &parts, Mode::Sum)?;
        if rows == 1 {
            return gpu.finish(out);
        }
        (parts, count) = (sums, rows);
    }
}
