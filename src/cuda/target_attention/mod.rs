//! Target attention: plans the pieces, attends, combines; merges results of disjoint histories.

pub(in crate::cuda) mod backward;
pub(in crate::cuda) mod variants;

use crate::cuda::batch::{CudaBatch, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::cuda::target_attention::variants::{COMBINE, MERGE, THREADS, Variant};
use crate::cuda::twin::twins;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::{fit, weighting_of};
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionGradients, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    TargetAttentionSaved, Weighting,
};
use crate::plan::Cut;

impl TargetAttentionOps for Cuda {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &CudaBatch,
        inputs: TargetAttentionInputs<'_, CudaMemory, T>,
        outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, outputs)
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, CudaMemory, T>,
        second: PartialAttention<'_, CudaMemory, T>,
        outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        merge(self, op, first, second, outputs)
    }

    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &CudaBatch,
        inputs: TargetAttentionInputs<'_, CudaMemory, T>,
        saved: TargetAttentionSaved<'_, CudaMemory, T>,
        grad_out: TargetAttentionGradOut<'_, CudaMemory, T>,
        grads: TargetAttentionGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::backward(self, op, batch, &inputs, (saved, grad_out), &grads)
    }

    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, CudaMemory, T>,
        second: PartialAttention<'_, CudaMemory, T>,
        grad_out: TargetAttentionGradOut<'_, CudaMemory, T>,
        first_grads: PartialAttentionGradients<'_, CudaMemory, G>,
        second_grads: PartialAttentionGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::merge_backward(self, op, [first, second], grad_out, [&first_grads, &second_grads])
    }
}

const NAME: &str = "target_attention";

twins! {
    /// `kernels/target_attention/attend.cuh`
    pub(in crate::cuda) struct TargetAttentionParams {
        pub(in crate::cuda) pieces: u64,
        pub(in crate::cuda) tiles: u64,
        pub(in crate::cuda) queries: u64,
        pub(in crate::cuda) keys: u64,
        pub(in crate::cuda) values: u64,
        pub(in crate::cuda) bias: u64,
        pub(in crate::cuda) out: u64,
        pub(in crate::cuda) lse: u64,
        pub(in crate::cuda) partial: u64,
        pub(in crate::cuda) stats: u64,
        pub(in crate::cuda) kv_heads: u32,
        pub(in crate::cuda) group_heads: u32,
        pub(in crate::cuda) width: u32,
        pub(in crate::cuda) value_width: u32,
        pub(in crate::cuda) first_column: u32,
        pub(in crate::cuda) columns: u32,
        pub(in crate::cuda) tile_rows: u32,
        pub(in crate::cuda) weighting: u32,
        pub(in crate::cuda) scale: f32,
        pub(in crate::cuda) unit: f32,
        pub(in crate::cuda) divisor: f32,
        pub(in crate::cuda) aliased: u32,
        pub(in crate::cuda) plain_scale: f32,
        pub(in crate::cuda) exact: u32,
    }

    /// `kernels/target_attention/target_attention.cu`
    pub(in crate::cuda) struct CombinePiecesParams {
        pub(in crate::cuda) tiles: u64,
        pub(in crate::cuda) partial: u64,
        pub(in crate::cuda) stats: u64,
        pub(in crate::cuda) out: u64,
        pub(in crate::cuda) lse: u64,
        pub(in crate::cuda) kv_heads: u32,
        pub(in crate::cuda) group_heads: u32,
        pub(in crate::cuda) value_width: u32,
        pub(in crate::cuda) first_column: u32,
        pub(in crate::cuda) columns: u32,
        pub(in crate::cuda) tile_rows: u32,
        pub(in crate::cuda) weighting: u32,
        pub(in crate::cuda) unused: u32,
    }

    /// `kernels/target_attention/target_attention.cu`
    pub(super) struct MergePairsParams {
        first: u64,
        second: u64,
        first_lse: u64,
        second_lse: u64,
        out: u64,
        lse: u64,
        length: u64,
        width: u32,
        unused: u32,
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &TargetAttention,
    batch: &CudaBatch,
    inputs: &TargetAttentionInputs<'_, CudaMemory, T>,
    outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    let (weighting, divisor) = weighting_of(op.weighting);
    let group_heads = op.heads / op.kv_heads;
    let queries = gpu.region(NAME, &inputs.queries)?;
    let keys = gpu.region(NAME, &inputs.keys)?;
    let values = inputs.values.map_or(Ok(keys), |values| gpu.region(NAME, &values))?;
    let bias = inputs.bias.map(|bias| gpu.region(NAME, &bias)).transpose()?;
    let out = gpu.region_mut(NAME, &outputs.out)?;
    let lse = outputs.lse.as_ref().map(|lse| gpu.region_mut(NAME, lse)).transpose()?;
    let vectors = [(&queries, op.width), (&keys, op.width), (&values, op.value_width)]
        .into_iter()
        .all(|(region, width)| region.vectors(width, 16));
    let variant = Variant::choose::<T>(op, batch.as_ref(), vectors);
    let Variant { tile_rows, step, chunk, .. } = *variant;
    let shared = variant.dynamic_shared(op.width, inputs.values.is_none());
    let resident = gpu.busy(&variant.kernel, THREADS as usize, shared) / op.kv_heads;
    let cut = Cut {
        rows_per_target: group_heads,
        tile_rows,
        step,
        longest: variant.longest(),
        pace: variant.pace().on(resident),
    };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let unit = if op.weighting == Weighting::Softmax { std::f32::consts::LOG2_E } else { 1.0 };
    let plain_scale = op.effective_scale();
    let scale = if bias.is_some() { plain_scale } else { plain_scale * unit };
    let heads = [("kv_heads", op.kv_heads), ("heads", group_heads)];
    let widths = [("width", op.width), ("value_width", op.value_width)];
    let [kv_heads, group_heads] = fit_all(heads)?;
    let [width, value_width] = fit_all(widths)?;
    let rows = plan.plan.slots * op.kv_heads * tile_rows;
    let mut call = gpu.begin(NAME);
    let stats = call.scratch(rows.saturating_mul(2 * size_of::<f32>()))?;
    let partial = call.scratch(rows.saturating_mul(chunk.min(op.value_width) * size_of::<f32>()))?;
    for first_column in (0..op.value_width).step_by(chunk) {
        let columns = chunk.min(op.value_width - first_column) as u32;
        let params = TargetAttentionParams {
            pieces: plan.pieces.pointer(),
            tiles: if divisor.is_none() { plan.tiles.pointer() } else { 0 },
            queries: queries.pointer,
            keys: keys.pointer,
            values: values.pointer,
            bias: bias.map_or(0, |bias| bias.pointer),
            out: out.pointer,
            lse: lse.map_or(0, |lse| lse.pointer),
            partial,
            stats,
            kv_heads,
            group_heads,
            width,
            value_width,
            first_column: first_column as u32,
            columns,
            tile_rows: tile_rows as u32,
            weighting,
            scale,
            unit,
            divisor: divisor.unwrap_or(1.0),
            aliased: u32::from(inputs.values.is_none() && op.width <= chunk),
            plain_scale,
            exact: u32::from(!scale.is_finite()),
        };
        let blocks = plan.plan.pieces.len().saturating_mul(op.kv_heads);
        call.launch(&variant.kernel.blocks(blocks).with_shared(shared), &params)?;
        combine::<T>(&call, &plan, &params)?;
    }
    call.finish()
}

/// Combines the partial results of the columns that a launch attended to.
fn combine<T: Element>(call: &Call<'_>, plan: &DevicePlan, attended: &TargetAttentionParams) -> Result<()> {
    let &TargetAttentionParams { partial, stats, out, lse, kv_heads, group_heads, value_width, .. } =
        attended;
    let &TargetAttentionParams { first_column, columns, tile_rows, weighting, .. } = attended;
    let params = CombinePiecesParams {
        tiles: plan.split_tiles.pointer(),
        partial,
        stats,
        out,
        lse,
        kv_heads,
        group_heads,
        value_width,
        first_column,
        columns,
        tile_rows,
        weighting,
        unused: 0,
    };
    let blocks = plan.split_count.saturating_mul(kv_heads as usize).saturating_mul(tile_rows as usize);
    call.launch(&COMBINE.of::<T>().blocks(blocks), &params)
}

fn fit_all(sizes: [(&'static str, usize); 2]) -> Result<[u32; 2]> {
    let [(first, a), (second, b)] = sizes;
    Ok([fit(NAME, first, a)?, fit(NAME, second, b)?])
}

pub(super) fn merge<T: Element>(
    gpu: &Cuda,
    op: &TargetAttention,
    first: PartialAttention<'_, CudaMemory, T>,
    second: PartialAttention<'_, CudaMemory, T>,
    outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    const NAME: &str = "merge_attention";
    let rows = op.check_merge(&first, &second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?;
    let lse = match &outputs.lse {
        Some(lse) => gpu.region_mut(NAME, lse)?.pointer,
        None => 0,
    };
    let params = MergePairsParams {
        first: gpu.region(NAME, &first.out)?.pointer,
        second: gpu.region(NAME, &second.out)?.pointer,
        first_lse: gpu.region(NAME, &first.lse)?.pointer,
        second_lse: gpu.region(NAME, &second.lse)?.pointer,
        out: out.pointer,
        lse,
        length: out.length as u64,
        width: fit(NAME, "value_width", op.value_width)?,
        unused: 0,
    };
    let kernel = MERGE.of::<T>();
    let blocks = out.length.div_ceil(kernel.threads as usize);
    let call = gpu.begin(NAME);
    call.launch(&kernel.blocks(blocks), &params)?;
    call.finish()
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [variants::table(), backward::variants::table()].concat()
}
