//! Target attention: plans the pieces, attends, merges.

use bytemuck::{Pod, Zeroable};

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Kernel, suffix};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::gpu::{fit, weighting_code};
use crate::jagged::Batch;
use crate::ops::{
    PartialAttention, TargetAttention, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    Weighting,
};
use crate::plan::{Cut, best_tile_rows};

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
}

const NAME: &str = "target_attention";
/// Threads of a block.
const THREADS: u32 = 128;
/// Pieces of work for each multiprocessor: a few for each of the blocks that it runs at a time.
const PIECES: usize = 16;
/// What loading a behaviour costs, in rows of output.
const LOAD: usize = 6;

/// `MergePairsParams` of target_attention.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct MergePairs {
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

/// `TargetAttentionParams` of target_attention.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Attend {
    pieces: u64,
    queries: u64,
    keys: u64,
    values: u64,
    bias: u64,
    out: u64,
    lse: u64,
    sums: u64,
    stats: u64,
    kv_heads: u32,
    group_heads: u32,
    width: u32,
    value_width: u32,
    first_column: u32,
    columns: u32,
    tile_rows: u32,
    weighting: u32,
    scale: f32,
    bias_scale: f32,
    divisor: f32,
    aliased: u32,
}

/// `MergePartsParams` of target_attention.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct MergeParts {
    merges: u64,
    sums: u64,
    stats: u64,
    out: u64,
    lse: u64,
    kv_heads: u32,
    group_heads: u32,
    value_width: u32,
    first_column: u32,
    columns: u32,
    tile_rows: u32,
    weighting: u32,
    unused: u32,
}

/// Which kernel attends, and how it cuts the work.
#[derive(Debug, Clone)]
struct Variant {
    kernel: Kernel,
    /// Rows of output of a block.
    tile_rows: usize,
    /// Behaviours it takes at a time.
    step: usize,
    /// Columns of keys or values it holds at a time.
    chunk: usize,
}

impl Variant {
    /// The kernel on matrix units, where it takes the operation. `vectors`: all rows begin at multiples of 16 bytes;
    /// `aliased`: the keys are the values.
    fn mma<T: Element>(op: &TargetAttention, batch: &Batch, vectors: bool, aliased: bool) -> Option<Self> {
        const STEP: usize = 64;
        let widest = op.width.max(op.value_width);
        // Only weights of softmax are known to stay within the range of f16.
        let in_range = op.weighting == Weighting::Softmax || T::DTYPE == DType::Bf16;
        if T::DTYPE == DType::F32 || !vectors || !in_range || widest > 128 {
            return None;
        }
        let (chunk, stages, sizes): (_, _, &[usize]) =
            if widest > 64 { (128, 2, &[8, 32]) } else { (64, 3, &[8, 32, 64]) };
        // Matrix units make rows cheap.
        let tile_rows = best_tile_rows(batch, op.heads / op.kv_heads, sizes, 4 * LOAD);
        // Of 2 bytes: tiles of keys and values, queries, weights cut in two; of 4: what else is known of a row.
        let tiles = stages * if aliased { 1 } else { 2 };
        let numbers = tiles * STEP * chunk + tile_rows * chunk + 2 * STEP * tile_rows;
        let bytes = numbers * 2 + 7 * tile_rows * 4;
        let name = format!("split_history_mma_{chunk}_rows_{tile_rows}_{}", suffix::<T>());
        let kernel = Kernel::new("target_attention_mma", name, THREADS).with_shared(bytes as u32);
        Some(Self { kernel, tile_rows, step: STEP, chunk })
    }

    /// The kernel for a few candidates, where it takes the operation.
    fn stream<T: Element>(op: &TargetAttention, batch: &Batch, vectors: bool) -> Option<Self> {
        let widest = op.width.max(op.value_width);
        let most = batch.targets().max_length().saturating_mul(op.heads / op.kv_heads);
        if T::DTYPE != DType::F32 || !vectors || widest > 128 || most > 4 {
            return None;
        }
        let chunk = widest.next_power_of_two().max(32);
        let (tile_rows, unroll) = if most == 1 { (1, 8) } else { (4, 4) };
        let name = format!("stream_history_{chunk}_rows_{tile_rows}_f32");
        let kernel = Kernel::new("target_attention_stream", name, THREADS);
        // Groups of lanes that share a behaviour, times the loads that each has in flight.
        let step = THREADS as usize / (chunk / 4) * unroll;
        Some(Self { kernel, tile_rows, step, chunk })
    }

    /// The kernel on multiply-adds. `vectors`: all rows begin at multiples of 16 bytes.
    fn fma<T: Element>(op: &TargetAttention, batch: &Batch, vectors: bool) -> Self {
        const CUSHION: usize = 4;
        let group_heads = op.heads / op.kv_heads;
        let tile_rows = best_tile_rows(batch, group_heads, &[8, 32], LOAD);
        let wide = vectors && T::DTYPE == DType::F32;
        let chunk = match op.width.max(op.value_width) {
            ..=32 if wide => 32,
            65.. if wide => 128,
            _ => 64,
        };
        let step = if chunk == 128 { 32 } else { 64 } * if tile_rows == 8 { 2 } else { 1 };
        let (parts, pitch) = (32 / tile_rows, chunk + CUSHION);
        // Two tiles of the history, the queries beside each or once, and each warp's weights.
        let queries = if op.width > chunk { 2 } else { 1 } * tile_rows * pitch;
        let floats = 2 * step * pitch + queries + 4 * 8 * (step / parts + CUSHION);
        let load = if wide { "wide" } else { "any" };
        let name = format!("split_history_fma_{load}_{chunk}_rows_{tile_rows}_{}", suffix::<T>());
        let kernel = Kernel::new("target_attention_fma", name, THREADS).with_shared((floats * 4) as u32);
        Self { kernel, tile_rows, step, chunk }
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
    let Variant { kernel, tile_rows, step, chunk } =
        Variant::mma::<T>(op, batch.as_ref(), vectors, inputs.values.is_none())
            .or_else(|| Variant::stream::<T>(op, batch.as_ref(), vectors))
            .unwrap_or_else(|| Variant::fma::<T>(op, batch.as_ref(), vectors));
    let cut = Cut {
        rows_per_target: group_heads,
        tile_rows,
        step,
        wanted: (PIECES * gpu.multiprocessors()).div_ceil(op.kv_heads),
        // Kernels count a piece's behaviours in 32 bits.
        longest: 1 << 30,
    };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let (weighting, divisor) = weighting_code(op.weighting);
    let unit = if op.weighting == Weighting::Softmax { std::f32::consts::LOG2_E } else { 1.0 };
    let heads = [("kv_heads", op.kv_heads), ("heads", group_heads)];
    let widths = [("width", op.width), ("value_width", op.value_width)];
    let [kv_heads, group_heads] = fit_all(heads)?;
    let [width, value_width] = fit_all(widths)?;
    let rows = plan.plan.slots * op.kv_heads * tile_rows;
    let mut call = gpu.call(NAME);
    let stats = call.scratch(rows.saturating_mul(2 * size_of::<f32>()))?;
    let sums = call.scratch(rows.saturating_mul(chunk.min(op.value_width) * size_of::<f32>()))?;
    for first_column in (0..op.value_width).step_by(chunk) {
        let columns = chunk.min(op.value_width - first_column) as u32;
        let params = Attend {
            pieces: plan.pieces.pointer(),
            queries: queries.pointer,
            keys: keys.pointer,
            values: values.pointer,
            bias: bias.map_or(0, |bias| bias.pointer),
            out: out.pointer,
            lse: lse.map_or(0, |lse| lse.pointer),
            sums,
            stats,
            kv_heads,
            group_heads,
            width,
            value_width,
            first_column: first_column as u32,
            columns,
            tile_rows: tile_rows as u32,
            weighting,
            scale: op.effective_scale() * unit,
            bias_scale: unit,
            divisor,
            aliased: u32::from(inputs.values.is_none() && op.width <= chunk),
        };
        call.launch(&kernel, plan.plan.pieces.len().saturating_mul(op.kv_heads), &params)?;
        let params = MergeParts {
            merges: plan.merges.pointer(),
            sums,
            stats,
            out: out.pointer,
            lse: params.lse,
            kv_heads,
            group_heads,
            value_width,
            first_column: params.first_column,
            columns,
            tile_rows: params.tile_rows,
            weighting,
            unused: 0,
        };
        let merge = Kernel::new("target_attention", format!("merge_parts_{}", suffix::<T>()), THREADS);
        let blocks = plan.merge_count.saturating_mul(op.kv_heads).saturating_mul(tile_rows);
        call.launch(&merge, blocks, &params)?;
    }
    Ok(())
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
    const THREADS: u32 = 256;
    let rows = op.check_merge(&first, &second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?;
    let lse = match &outputs.lse {
        Some(lse) => gpu.region_mut(NAME, lse)?.pointer,
        None => 0,
    };
    let params = MergePairs {
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
    let kernel = Kernel::new("target_attention", format!("merge_pairs_{}", suffix::<T>()), THREADS);
    gpu.call(NAME).launch(&kernel, out.length.div_ceil(THREADS as usize), &params)
}
