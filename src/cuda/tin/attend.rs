//! The forward pass of TIN: the plan, the candidates' sums, the launches.

use bytemuck::Zeroable;

use crate::cuda::batch::{CudaBatch, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::cuda::target_attention::backward::storage_code;
use crate::cuda::target_attention::variants::{THREADS, Variant};
use crate::cuda::target_attention::{CombinePiecesParams, TargetAttentionParams};
use crate::cuda::tin::rows::{Rows, TinPositions, target_bytes};
use crate::cuda::tin::variants::{COMBINE, choose};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{Tin, TinInputs, TinOutputs};
use crate::plan::Cut;

const NAME: &str = "tin";

twins! {
    /// `kernels/tin/rows.cuh`
    pub(in crate::cuda) struct TinOutputPointers {
        out: u64,
        pooled: u64,
        sums: u64,
        multiply_target: u32,
        storage: u32,
    }

    /// `kernels/tin/rows.cuh`
    pub(in crate::cuda) struct TinParams {
        attention: TargetAttentionParams,
        positions: TinPositions,
        outputs: TinOutputPointers,
    }

    /// `kernels/tin/tin.cu`
    pub(in crate::cuda) struct TinCombineParams {
        pieces: CombinePiecesParams,
        outputs: TinOutputPointers,
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &Tin,
    batch: &CudaBatch,
    inputs: &TinInputs<'_, CudaMemory, T>,
    outputs: &TinOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), outputs)?;
    let rows = Rows::new(gpu, NAME, inputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?.pointer;
    let pooled = gpu.asked(NAME, outputs.pooled.as_ref())?.pointer;
    let lse = gpu.asked(NAME, outputs.lse.as_ref())?.pointer;
    let variant = choose(op.width, batch.as_ref(), rows.vectors(op.width, 4 * size_of::<T>()));
    let resident = gpu.busy(&variant.kernel, THREADS as usize, variant.dynamic_shared(op.width, false));
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: variant.tile_rows,
        step: variant.step,
        longest: variant.longest(),
        pace: variant.pace().on(resident),
    };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let ends = batch.history_ends(gpu, NAME)?;
    let positions = rows.device_positions(NAME, op, ends.pointer())?;
    let mut call = gpu.begin(NAME);
    let sums = call.scratch(target_bytes(op, batch))?;
    rows.prepare(&call, op, batch, (positions, sums), Zeroable::zeroed())?;
    let slots = plan.plan.slots * variant.tile_rows;
    let stats = call.scratch(slots.saturating_mul(2 * size_of::<f32>()))?;
    let partial = call.scratch(slots.saturating_mul(variant.chunk.min(op.width) * size_of::<f32>()))?;
    let (multiply_target, storage) = (u32::from(op.multiply_target), storage_code::<T>());
    let outputs = TinOutputPointers { out, pooled, sums, multiply_target, storage };
    let plain_scale = op.effective_scale();
    let scale = plain_scale * std::f32::consts::LOG2_E;
    let width = fit(NAME, "width", op.width)?;
    for first_column in (0..op.width).step_by(variant.chunk) {
        let attention = TargetAttentionParams {
            pieces: plan.pieces.pointer(),
            tiles: 0,
            queries: sums,
            keys: rows.history.pointer,
            values: rows.history.pointer,
            bias: 0,
            out,
            lse,
            partial,
            stats,
            kv_heads: 1,
            group_heads: 1,
            width,
            value_width: width,
            first_column: first_column as u32,
            columns: variant.chunk.min(op.width - first_column) as u32,
            tile_rows: variant.tile_rows as u32,
            weighting: 0,
            scale,
            unit: std::f32::consts::LOG2_E,
            divisor: 1.0,
            aliased: u32::from(op.width <= variant.chunk),
            plain_scale,
            exact: u32::from(!scale.is_finite()),
        };
        launch(&call, &plan, variant, &TinParams { attention, positions, outputs })?;
    }
    call.finish()
}

/// Attends to the columns of a launch, and combines partial results.
fn launch(call: &Call<'_>, plan: &DevicePlan, variant: &Variant, params: &TinParams) -> Result<()> {
    let TargetAttentionParams { partial, stats, out, lse, width, first_column, columns, tile_rows, .. } =
        params.attention;
    let shared = variant.dynamic_shared(width as usize, true);
    call.launch(&variant.kernel.blocks(plan.plan.pieces.len()).with_shared(shared), params)?;
    let pieces = CombinePiecesParams {
        tiles: plan.split_tiles.pointer(),
        partial,
        stats,
        out,
        lse,
        kv_heads: 1,
        group_heads: 1,
        value_width: width,
        first_column,
        columns,
        tile_rows,
        weighting: 0,
        unused: 0,
    };
    let blocks = plan.split_count.saturating_mul(variant.tile_rows);
    call.launch(&COMBINE.blocks(blocks), &TinCombineParams { pieces, outputs: params.outputs })
}
