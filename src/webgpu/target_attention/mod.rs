//! Target attention: packs the queries, attends, combines; merges results; and the gradients of both.

pub(super) mod added;
pub(super) mod attend;
pub(super) mod backward;
pub(super) mod combine;
mod merge;
mod merge_backward;
mod pack_queries;

use std::ops::Range;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionGradients, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    TargetAttentionSaved,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, check_width};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use added::Added;
use attend::Attention;

impl TargetAttentionOps for Wgpu {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &WgpuBatch,
        inputs: TargetAttentionInputs<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend(gpu, op, batch, &inputs, outputs))
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, WgpuMemory, T>,
        second: PartialAttention<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| merge::merge(gpu, op, first, second, outputs))
    }

    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &WgpuBatch,
        inputs: TargetAttentionInputs<'_, WgpuMemory, T>,
        saved: TargetAttentionSaved<'_, WgpuMemory, T>,
        grad_out: TargetAttentionGradOut<'_, WgpuMemory, T>,
        grads: TargetAttentionGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::target_attention(gpu, op, batch, &inputs, (&saved, &grad_out), grads))
    }

    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, WgpuMemory, T>,
        second: PartialAttention<'_, WgpuMemory, T>,
        grad_out: TargetAttentionGradOut<'_, WgpuMemory, T>,
        first_grads: PartialAttentionGradients<'_, WgpuMemory, G>,
        second_grads: PartialAttentionGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| {
            merge_backward::backward(gpu, op, [first, second], &grad_out, [first_grads, second_grads])
        })
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [
        attend::variants(),
        combine::variants(),
        merge::variants(),
        pack_queries::variants(),
        backward::variants(),
        merge_backward::variants(),
    ]
    .concat()
}

/// Fails for rows of keys or values too wide for a thread's loops.
pub(super) fn check_widths(operation: &'static str, widths: [usize; 2]) -> Result<()> {
    widths.into_iter().try_for_each(|width| check_width(operation, width, 4 * MOST_STEPS_OF_ROW))
}

fn attend<T: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    batch: &WgpuBatch,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    const NAME: &str = "target_attention";
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    check_widths(NAME, [op.width, op.value_width])?;
    let attention = Attention {
        operation: NAME,
        heads: op.heads,
        kv_heads: op.kv_heads,
        width: op.width,
        value_width: op.value_width,
        scale: op.effective_scale(),
        weighting: op.weighting,
        computes_rows: false,
    };
    let [queries, keys] = [inputs.queries, inputs.keys].map(Region::of);
    let values = inputs.values.map_or(keys, Region::of);
    let bias = inputs.bias.map(Region::of);
    let added = bias.map_or(Added::Nothing, Added::Bias);
    let rows = batch.as_ref().targets().total() * op.heads;
    let read = [queries.buffer, keys.buffer, values.buffer, bias.map_or(keys.buffer, |bias| bias.buffer)];
    let out = gpu.output(NAME, "out", &outputs.out, rows * op.value_width, &read, &[])?;
    let lse = match &outputs.lse {
        Some(lse) => Some(gpu.output(NAME, "lse", lse, rows, &read, &[&out])?),
        None => None,
    };
    let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let window = gpu.rows_per_binding::<T>(key_row.max(value_row));
    let history = |span: &Range<usize>| {
        Ok([
            gpu.bind(NAME, "keys", &keys.rows(span.start, span.len(), key_row))?,
            gpu.bind(NAME, "values", &values.rows(span.start, span.len(), value_row))?,
        ])
    };
    let lse_binding = lse.as_ref().map(|lse| &lse.binding);
    attention.run::<T, T>(gpu, batch, queries, window, &history, &added, &out.binding, lse_binding)?;
    gpu.finish(out)?;
    lse.map_or(Ok(()), |lse| gpu.finish(lse))
}
