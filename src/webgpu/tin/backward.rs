//! The gradients of TIN: those of target attention over summed rows, and their sums by position.

use std::ops::Range;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{TargetAttention, Tin, TinGradients, TinInputs, TinSaved};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::backward::{Gradients, Pass, QueryGradients};
use crate::webgpu::tin::positions::{HistoryPositions, PositionSums};
use crate::webgpu::tin::rows::{Product, Rows};

const NAME: &str = "tin_backward";

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &Tin,
    batch: &WgpuBatch,
    inputs: &TinInputs<'_, WgpuMemory, T>,
    (saved, grad_out): (&TinSaved<'_, WgpuMemory, T>, View<'_, WgpuMemory, T>),
    grads: TinGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, saved, grad_out.len(), &grads)?;
    batch.check_owner(gpu, NAME)?;
    let rows = Rows::new(gpu, NAME, op, batch.as_ref(), inputs)?;
    let TinGradients { targets: grad_targets, history: grad_history, positions: grad_positions } = grads;
    if grad_targets.is_none() && grad_history.is_none() && grad_positions.is_none() {
        return Ok(());
    }
    if let Some(history) = &grad_history {
        gpu.check_device(NAME, "grads.history", &Region::of_mut(history))?;
    }
    let candidates = batch.as_ref().targets().total();
    let length = candidates * op.width;
    let used = |rows: View<'_, WgpuMemory, T>, argument| {
        gpu.bind(NAME, argument, &Region::of(rows).rows(0, candidates, op.width))
    };
    let (grad_out, pooled) = (used(grad_out, "grad_out")?, used(saved.pooled, "saved.pooled")?);
    let read = [&grad_out.buffer, &pooled.buffer];
    let output = |view| gpu.output(NAME, "grads.targets", view, length, &read, &[]);
    let targets_out = grad_targets.as_ref().map(output).transpose()?;
    let of_targets = match &targets_out {
        Some(out) => Some(out.binding.clone()),
        // The gradient of the positions is a sum of those of candidates, too.
        None => grad_positions.is_some().then(|| gpu.scratch(NAME, length as u64)).transpose()?,
    };
    let mut sums = match &grad_positions {
        Some(view) => {
            let mut read: Vec<&wgpu::Buffer> = of_targets.iter().map(|rows| &rows.buffer).collect();
            read.extend(grad_history.as_ref().map(|history| Region::of_mut(history).buffer));
            read.extend(rows.buffers(inputs));
            let history = history_positions(gpu, batch, &rows)?;
            Some(PositionSums::new(gpu, NAME, op, history, view, &read)?)
        }
        None => None,
    };
    let targets = rows.targets()?;
    let grad_means = gpu.scratch(NAME, length as u64)?;
    let second = op.multiply_target.then_some(&targets);
    Product { first: &grad_out, second, out: &grad_means, adds: false, length }.run::<T, f32>(gpu, NAME)?;
    let (queries, grad_means) = (rows.region(&targets), rows.region(&grad_means));
    let pass = Pass {
        operation: NAME,
        op: &TargetAttention::new(op.width).with_scale(op.effective_scale()),
        queries: queries.region(),
        grad_out: grad_means.region(),
        grad_lse: None,
        saved: Some((Region::of(saved.pooled), Region::of(saved.lse))),
        history: &|span| rows.bind(span),
        added: rows.added(),
        aliased: true,
    };
    let mut of_span = |span: &Range<usize>, grads: &Binding| match &mut sums {
        Some(sums) => sums.add_behaviours(span, grads),
        None => Ok(()),
    };
    let attention = Gradients {
        queries: of_targets.as_ref().map(QueryGradients::Rows),
        keys: grad_history,
        values: None,
        bias: None,
        of_span: if grad_positions.is_some() { Some(&mut of_span) } else { None },
    };
    pass.run::<G>(gpu, batch, attention)?;
    if let (Some(out), true) = (&of_targets, op.multiply_target) {
        Product { first: &grad_out, second: Some(&pooled), out, adds: true, length }
            .run::<T, T>(gpu, NAME)?;
    }
    if let (Some(mut sums), Some(grads)) = (sums, &of_targets) {
        sums.add_candidates(rows.target_positions.as_ref(), candidates, grads)?;
        sums.finish()?;
    }
    targets_out.map_or(Ok(()), |out| gpu.finish(out))
}

/// The positions of behaviours, given or to be counted.
fn history_positions<'a, T: Element>(
    gpu: &Wgpu,
    batch: &WgpuBatch,
    rows: &Rows<'a, T>,
) -> Result<HistoryPositions<'a>> {
    Ok(match rows.history_positions {
        Some(given) => HistoryPositions::Given(given),
        None => {
            let [histories, _] = batch.sides()?;
            let (edges, count) = histories.edges(gpu, NAME, "batch")?;
            HistoryPositions::Counted(edges, count)
        }
    })
}
