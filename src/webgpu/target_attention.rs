//! Target attention: plans the pieces, packs the queries, attends, merges.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{fit, weighting_code};
use crate::ops::{
    PartialAttention, TargetAttention, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    Weighting,
};
use crate::plan::{Cut, best_tile_rows};
use crate::webgpu::Wgpu;
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::shader::{Format, Kernel, Slot};

impl TargetAttentionOps for Wgpu {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &WgpuBatch,
        inputs: TargetAttentionInputs<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, outputs)
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, WgpuMemory, T>,
        second: PartialAttention<'_, WgpuMemory, T>,
        outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        merge(self, op, first, second, outputs)
    }
}

const NAME: &str = "target_attention";

/// Pieces that keep a large GPU busy: some for each of a few hundred workgroups at a time.
pub(super) const PIECES: usize = 1024;
/// The widest value one dispatch sums; wider ones take several.
pub(super) const MAX_COLUMNS: usize = 256;
/// What loading a behaviour costs, in rows of output.
const LOAD: usize = 6;

/// Groups of four columns for values of `width`, as target_attention/attend.wgsl counts them.
pub(super) fn columns_of(width: usize) -> usize {
    width.div_ceil(4).next_power_of_two()
}

/// The tiles that fit beside that many groups of columns.
fn tiles_beside(columns: usize) -> &'static [usize] {
    match columns {
        0..=16 => &[4, 8, 16, 32],
        17..=32 => &[4, 8, 16],
        _ => &[4, 8],
    }
}

/// Behaviours that a workgroup takes at a time.
fn step_of(tile: usize) -> usize {
    256 / tile.div_ceil(8)
}

/// `group4`: fours of rows a thread; 1 for a tile of 4 rows, 2 for the others. `quads`: whether quads pass on what
/// they share; they have the same share of the columns only where there are four groups of columns.
fn attend_kernel(group4: u32, quads: bool, history: Format) -> Kernel {
    const SCORE: &str = include_str!("../../shaders/target_attention/score_dot.wgsl");
    const ATTEND: &str = include_str!("../../shaders/target_attention/attend.wgsl");
    Kernel {
        name: "target_attention",
        sources: if quads {
            &[SCORE, ATTEND, include_str!("../../shaders/target_attention/blocks_by_quad.wgsl")]
        } else {
            &[SCORE, ATTEND, include_str!("../../shaders/target_attention/blocks_alone.wgsl")]
        },
        constants: vec![("GROUP4", group4), ("QUADS", u32::from(quads))],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("queries", "vec4<f32>"),
            Slot::read("keys", history),
            Slot::read("values", history),
            Slot::read("bias", Format::f32(false)),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
            Slot::write("partial", "f32"),
        ],
    }
}

fn pack_kernel(queries: Format) -> Kernel {
    Kernel {
        name: "pack_queries",
        sources: &[include_str!("../../shaders/target_attention/pack_queries.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::read("queries", queries),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

/// For partial results of `columns` columns.
pub(super) fn merge_kernel(columns: usize) -> Kernel {
    Kernel {
        name: "merge_attention",
        sources: &[include_str!("../../shaders/target_attention/combine.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("merges", "vec4<u32>"),
            Slot::read("partial", Format::f32(columns.is_multiple_of(4))),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
        ],
    }
}

/// The workgroups that it takes for so many rows.
pub(super) fn merge_groups(rows: usize, columns: usize) -> u64 {
    (rows * columns.div_ceil(4)).div_ceil(64) as u64
}

fn merge_pairs_kernel(values: Format) -> Kernel {
    Kernel {
        name: "merge_pairs",
        sources: &[include_str!("../../shaders/target_attention/merge.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("first", values),
            Slot::read("second", values),
            Slot::plain("first_lse", "u32"),
            Slot::plain("second_lse", "u32"),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
        ],
    }
}

/// Every kernel of this file.
pub(super) fn variants() -> Vec<Kernel> {
    let attend = |format| {
        [(1, false), (1, true), (2, false), (2, true)]
            .map(|(group4, quads)| attend_kernel(group4, quads, format))
    };
    let each = |format| attend(format).into_iter().chain([pack_kernel(format)]);
    let pairs = Format::ALL.iter().filter(|format| !format.vectors).copied().map(merge_pairs_kernel);
    Format::ALL.into_iter().flat_map(each).chain(pairs).chain([merge_kernel(1), merge_kernel(4)]).collect()
}

/// One attention as the kernels see it, whatever operation it serves.
pub(super) struct Attention {
    pub(super) operation: &'static str,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) width: usize,
    pub(super) value_width: usize,
    pub(super) scale: f32,
    pub(super) weighting: Weighting,
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    batch: &WgpuBatch,
    inputs: &TargetAttentionInputs<'_, WgpuMemory, T>,
    outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    let attention = Attention {
        operation: NAME,
        heads: op.heads,
        kv_heads: op.kv_heads,
        width: op.width,
        value_width: op.value_width,
        scale: op.effective_scale(),
        weighting: op.weighting,
    };
    let [queries, keys] = [inputs.queries, inputs.keys].map(Region::of);
    let values = inputs.values.map_or(keys, Region::of);
    let bias = inputs.bias.map(Region::of);
    let rows = batch.as_ref().targets().total() * op.heads;
    let read = [queries.buffer, keys.buffer, values.buffer, bias.map_or(keys.buffer, |bias| bias.buffer)];
    let out = gpu.output(NAME, "out", &outputs.out, rows * op.value_width, &read)?;
    let lse = match &outputs.lse {
        Some(lse) => Some(gpu.output(NAME, "lse", lse, rows, &read)?),
        None => None,
    };
    let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let window = rows_per_binding::<T>(gpu, key_row.max(value_row));
    let history = |span: &Range<usize>| {
        Ok([
            gpu.bind(NAME, "keys", &keys.rows(span.start, span.len(), key_row))?,
            gpu.bind(NAME, "values", &values.rows(span.start, span.len(), value_row))?,
        ])
    };
    attention.run::<T, T>(gpu, batch, queries, window, &history, bias, &out, lse.as_ref())?;
    gpu.finish(out)?;
    lse.map_or(Ok(()), |lse| gpu.finish(lse))
}

/// Whether rows of `width` elements in `view` can be read four at a time.
pub(super) fn vectors<T: Element>(binding: &Binding, width: usize) -> Format {
    Format::of::<T>(binding.base.is_multiple_of(4) && width.is_multiple_of(4))
}

/// How many history rows of `width` elements the device binds at a time, with room for an unaligned start.
pub(super) fn rows_per_binding<T: Element>(gpu: &Wgpu, width: usize) -> usize {
    let limits = gpu.limits();
    let bytes =
        limits.max_storage_buffer_binding_size - u64::from(limits.min_storage_buffer_offset_alignment);
    // Elements are counted in 32 bits.
    (bytes / (width * size_of::<T>()) as u64).min(u64::from(u32::MAX) / width as u64) as usize
}

/// Binds keys and values of some rows of the histories.
pub(super) type History<'a> = dyn Fn(&Range<usize>) -> Result<[Binding; 2]> + 'a;

impl Attention {
    /// `history` is asked for windows of at most `window` rows, one after the other; their dispatches run in that order.
    #[expect(clippy::too_many_arguments, reason = "the operation's inputs and outputs, one each")]
    pub(super) fn run<Q: Element, K: Element>(
        &self,
        gpu: &Wgpu,
        batch: &WgpuBatch,
        queries: Region<'_, Q>,
        window: usize,
        history: &History<'_>,
        bias: Option<Region<'_, f32>>,
        out: &Output,
        lse: Option<&Output>,
    ) -> Result<()> {
        let operation = self.operation;
        let group_heads = self.heads / self.kv_heads;
        let value_width = self.value_width;
        let columns = columns_of(value_width.min(MAX_COLUMNS));
        let quads = gpu.uses_subgroups() && columns >= 4;
        let tile_rows = best_tile_rows(batch.as_ref(), group_heads, tiles_beside(columns), LOAD);
        let (weighting, divisor) = weighting_code(self.weighting);
        let value_row = self.kv_heads * value_width;
        let window = match bias {
            Some(_) => window.min(rows_per_binding::<f32>(gpu, self.heads)),
            None => window,
        };
        let cut = Cut {
            rows_per_target: group_heads,
            tile_rows,
            step: step_of(tile_rows),
            wanted: PIECES.div_ceil(self.kv_heads),
            longest: window,
        };
        let plan = batch.plan(gpu, operation, &cut)?;
        if plan.plan.tiles.is_empty() {
            return Ok(());
        }
        fit(operation, "out", batch.as_ref().targets().total().saturating_mul(self.heads * value_width))?;
        let sizes = [self.heads, self.kv_heads, self.width, tile_rows];
        let packed = pack_queries(gpu, operation, &plan, sizes, self.scale, queries)?;
        let u = |value: usize| value as u32;
        let (bias_given, lse_given) = (u32::from(bias.is_some()), u32::from(lse.is_some()));
        for first_column in (0..value_width).step_by(MAX_COLUMNS) {
            let value_columns = MAX_COLUMNS.min(value_width - first_column);
            let sums = plan.plan.slots * self.kv_heads * tile_rows;
            let first_stats = fit(operation, "partial results", sums * value_columns)?;
            let partial = gpu.scratch(operation, (sums * (value_columns + 2)) as u64)?;
            let no_lse = gpu.no_output(operation)?;
            let lse_binding = lse.map_or(&no_lse, |lse| &lse.binding);
            for (pieces, span) in plan.plan.windows(window) {
                let [keys, values] = history(&span)?;
                let bias = match &bias {
                    Some(bias) => {
                        gpu.bind(operation, "bias", &bias.rows(span.start, span.len(), self.heads))?
                    }
                    None => gpu.nothing(),
                };
                let by_four = [vectors::<K>(&keys, self.width), vectors::<K>(&values, value_width)];
                // Both one by one where one must be: fewer variants.
                let format = Format::of::<K>(by_four.iter().all(|format| format.vectors));
                let kernel = attend_kernel(if tile_rows == 4 { 1 } else { 2 }, quads, format);
                let params = Params::default()
                    .u32s(&[u(pieces.start), u(self.kv_heads), u(group_heads), u(self.width)])
                    .u32s(&[u(value_width), u(value_row), u(first_column), u(value_columns)])
                    .u32s(&[u(span.start), keys.base, values.base, bias.base])
                    .u32s(&[out.binding.base, lse_binding.base, first_stats])
                    .f32s(&[divisor])
                    .u32s(&[u(tile_rows), u(columns), weighting, bias_given, lse_given]);
                let bindings =
                    [&plan.pieces, &packed, &keys, &values, &bias, &out.binding, lse_binding, &partial];
                gpu.dispatch(&kernel, params, &bindings, (pieces.len() * self.kv_heads) as u64)?;
            }
            let params = Params::default()
                .u32s(&[u(self.kv_heads), u(group_heads), u(value_width), u(first_column)])
                .u32s(&[u(value_columns), out.binding.base, lse_binding.base, first_stats])
                .u32s(&[u(tile_rows), weighting, lse_given]);
            let rows = plan.merge_count * self.kv_heads * tile_rows;
            let bindings = [&plan.merges, &partial, &out.binding, lse_binding];
            gpu.dispatch(&merge_kernel(value_columns), params, &bindings, merge_groups(rows, value_columns))?;
        }
        Ok(())
    }
}

/// The queries as target_attention/score_dot.wgsl reads them; the sizes are heads, key/value heads, width, and rows of a tile.
pub(super) fn pack_queries<Q: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    plan: &DevicePlan,
    [heads, kv_heads, width, tile]: [usize; 4],
    scale: f32,
    queries: Region<'_, Q>,
) -> Result<Binding> {
    let queries = gpu.bind(operation, "queries", &queries)?;
    let fours = plan.plan.tiles.len() * kv_heads * width.div_ceil(4) * tile;
    let packed = gpu.scratch(operation, fours as u64 * 4)?;
    let u = |value: usize| value as u32;
    let params = Params::default()
        .u32s(&[fit(operation, "queries", fours)?, u(kv_heads), u(heads / kv_heads), u(width)])
        .u32s(&[queries.base])
        .f32s(&[scale])
        .u32s(&[u(tile)]);
    let kernel = pack_kernel(vectors::<Q>(&queries, width));
    gpu.dispatch(&kernel, params, &[&plan.tiles, &queries, &packed], fours.div_ceil(64) as u64)?;
    Ok(packed)
}

pub(super) fn merge<T: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    first: PartialAttention<'_, WgpuMemory, T>,
    second: PartialAttention<'_, WgpuMemory, T>,
    outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    const NAME: &str = "merge_attention";
    let rows = op.check_merge(&first, &second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let width = op.value_width;
    let inputs = [
        gpu.bind(NAME, "first.out", &Region::of(first.out))?,
        gpu.bind(NAME, "second.out", &Region::of(second.out))?,
        gpu.bind(NAME, "first.lse", &Region::of(first.lse))?,
        gpu.bind(NAME, "second.lse", &Region::of(second.lse))?,
    ];
    let [a, b, a_lse, b_lse] = &inputs;
    let read = inputs.each_ref().map(|input| &input.buffer);
    let out = gpu.output(NAME, "out", &outputs.out, outputs.out.len(), &read)?;
    let lse = match &outputs.lse {
        Some(lse) => Some(gpu.output(NAME, "lse", lse, rows, &read)?),
        None => None,
    };
    let no_lse = gpu.no_output(NAME)?;
    let lse_binding = lse.as_ref().map_or(&no_lse, |lse| &lse.binding);
    let threads = fit(NAME, "out", outputs.out.len())?;
    let params = Params::default()
        .u32s(&[threads, width as u32, a.base, b.base, a_lse.base, b_lse.base])
        .u32s(&[out.binding.base, lse_binding.base, u32::from(lse.is_some())]);
    let kernel = merge_pairs_kernel(Format::of::<T>(false));
    let bindings = [a, b, a_lse, b_lse, &out.binding, lse_binding];
    gpu.dispatch(&kernel, params, &bindings, u64::from(threads).div_ceil(64))?;
    gpu.finish(out)?;
    lse.map_or(Ok(()), |lse| gpu.finish(lse))
}
