//! The forward pass: one workgroup for each candidate, head and part of the candidate's slots; parts are combined as those of target
//! attention are.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{fit, weighting_of};
use crate::ops::{
    SelectedAttention, SelectedAttentionInputs, SelectedAttentionOutputs, SelectedTableInputs, Selection,
    Weighting,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::groups::{Group, Limits};
use crate::webgpu::selected::inputs::{GroupInputs, Inputs, PARTS, REDUCE, SCORES, WEIGHTED_ROWS, formats};
use crate::webgpu::selected::parts::{Parts, SLOTS, lanes};
use crate::webgpu::selection::{Given, Number};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::combine::Combine;

const NAME: &str = "selected_attention";
const OF_TABLES: &str = "selected_table_attention";

params! {
    /// Twin of the struct in shaders/selected/attend.wgsl.
    struct SelectedAttendParams {
        heads: u32,
        kv_heads: u32,
        top_k: u32,
        parts: u32,
        part: u32,
        width: u32,
        key_lanes: u32,
        value_width: u32,
        value_lanes: u32,
        queries_base: u32,
        keys_base: u32,
        values_base: u32,
        bias_base: u32,
        gammas_base: u32,
        out_base: u32,
        lse_base: u32,
        first_stats: u32,
        has_bias: u32,
        has_gammas: u32,
        has_lse: u32,
        scale: f32,
    }
}

fn attend_kernel([queries, rows]: [Format; 2], slots: usize) -> Kernel {
    Kernel {
        name: "selected/attend",
        params: &SelectedAttendParams::BLOCK,
        threads: THREADS,
        sources: &[
            PARTS,
            SCORES,
            REDUCE,
            WEIGHTED_ROWS,
            include_str!("../../../shaders/selected/attend.wgsl"),
        ],
        constants: vec![("SLOTS", slots as u32)],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::read("queries", queries),
            Slot::read("keys", rows),
            Slot::read("values", rows),
            Slot::plain("bias", "f32"),
            Slot::plain("gammas", "f32"),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    formats().flat_map(|formats| SLOTS.map(|slots| attend_kernel(formats, slots))).collect()
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    inputs: &SelectedAttentionInputs<'_, WgpuMemory, T>,
    outputs: SelectedAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    batch.check_owner(gpu, NAME)?;
    attend_as(gpu, (NAME, op), batch, (Inputs::of(inputs), &inputs.selection), outputs)
}

/// The same with rows of tables.
pub(super) fn attend_to_tables<T: Element>(
    gpu: &Wgpu,
    op: &SelectedAttention,
    batch: &WgpuBatch,
    inputs: &SelectedTableInputs<'_, WgpuMemory, T>,
    outputs: SelectedAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    op.check_tables(batch.as_ref(), inputs)?;
    op.check_table_outputs(batch.as_ref(), &outputs)?;
    batch.check_owner(gpu, OF_TABLES)?;
    let (ids, behaviours) = (Region::of(inputs.history_ids), batch.as_ref().histories().total());
    gpu.check_ids(OF_TABLES, "history_ids", op.ids, ids, behaviours, inputs.values)?;
    attend_as(gpu, (OF_TABLES, op), batch, (Inputs::of_tables(inputs), &inputs.selection), outputs)
}

fn attend_as<T: Element>(
    gpu: &Wgpu,
    (operation, op): (&'static str, &SelectedAttention),
    batch: &WgpuBatch,
    (inputs, selection): (Inputs<'_, T>, &Selection<'_, WgpuMemory>),
    outputs: SelectedAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    let candidates = batch.as_ref().targets().total();
    if candidates == 0 {
        return Ok(());
    }
    let given = Given::new(gpu, operation, op.top_k, batch, selection)?;
    let numbers = op.width.saturating_add(op.value_width);
    let parts = Parts::new(operation, op.top_k, candidates.saturating_mul(op.heads), numbers)?;
    // Of the rows that are kept, and of the results of parts.
    let results = if parts.parts > 1 { parts.parts * op.heads * (op.value_width + 2) * 4 } else { 0 };
    let bytes = (8 * op.top_k).max(results).max(inputs.gathered_bytes(op));
    let largest = gpu.limits().max_storage_buffer_binding_size;
    let limits = Limits::new(inputs.rows_per_binding(gpu, op), bytes, largest, false);
    let (mut out, mut lse) = (Some(outputs.out), outputs.lse);
    for group in limits.groups(batch.as_ref()) {
        gpu.part(|| {
            let read = inputs.buffers();
            let targets = &group.targets;
            let row = op.heads * op.value_width;
            let out = gpu.output_of_rows(operation, "out", &mut out, (targets, row), &read, &[])?;
            let others: Vec<&Output> = out.iter().collect();
            let lse = gpu.output_of_rows(operation, "lse", &mut lse, (targets, op.heads), &read, &others)?;
            let call = Call { gpu, operation, op, parts, group: &group };
            let kept = given.keep(targets.clone(), group.history.start, Number::Score)?;
            let bound = inputs.bind(gpu, (operation, op), &group, &kept, None)?;
            if let Some(out) = &out {
                call.run::<T>(&bound, &out.binding, lse.as_ref())?;
            }
            [out, lse].into_iter().flatten().try_for_each(|output| gpu.finish(output))
        })?;
    }
    given.finish()
}

/// The candidates of one group.
struct Call<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    op: &'a SelectedAttention,
    parts: Parts,
    group: &'a Group,
}

impl Call<'_> {
    fn run<T: Element>(&self, inputs: &GroupInputs, out: &Binding, lse: Option<&Output>) -> Result<()> {
        let Self { gpu, operation, op, parts: Parts { slots, part, parts }, .. } = *self;
        let candidates = self.group.targets.len();
        let no_lse = gpu.no_output(operation)?;
        let lse_binding = lse.map_or(&no_lse, |lse| &lse.binding);
        let rows = candidates * parts * op.heads;
        let first_stats = fit(operation, "partial results", rows * op.value_width)?;
        fit(operation, "partial results", rows * (op.value_width + 2))?;
        let partial = match parts {
            1 => None,
            _ => Some(gpu.scratch(operation, (rows * (op.value_width + 2)) as u64)?),
        };
        let written = partial.as_ref().unwrap_or(out);
        let params = SelectedAttendParams {
            heads: op.heads as u32,
            kv_heads: op.kv_heads as u32,
            top_k: op.top_k as u32,
            parts: parts as u32,
            part: part as u32,
            width: op.width as u32,
            key_lanes: lanes(op.width, 16),
            value_width: op.value_width as u32,
            value_lanes: lanes(op.value_width, 64),
            queries_base: inputs.queries.base,
            keys_base: inputs.keys.base,
            values_base: inputs.values.base,
            bias_base: inputs.bias.base,
            gammas_base: inputs.gammas.base,
            out_base: written.base,
            lse_base: lse_binding.base,
            first_stats,
            has_bias: u32::from(inputs.has_bias),
            has_gammas: u32::from(inputs.has_gammas),
            has_lse: u32::from(lse.is_some()),
            scale: op.effective_scale(),
        };
        let GroupInputs { kept, queries, keys, values, bias, gammas, .. } = inputs;
        let bindings = [kept, queries, keys, values, bias, gammas, written, lse_binding];
        let kernel = attend_kernel(inputs.formats::<T>(inputs.has_whole_vec4s(op)), slots);
        gpu.dispatch(operation, &kernel, &params, &bindings, rows as u64)?;
        match &partial {
            Some(partial) => self.combine((partial, first_stats), out, (lse_binding, lse.is_some())),
            None => Ok(()),
        }
    }

    /// Combines the parts of each candidate.
    fn combine(
        &self,
        (partial, first_stats): (&Binding, u32),
        out: &Binding,
        (lse, has_lse): (&Binding, bool),
    ) -> Result<()> {
        let Self { gpu, operation, op, parts: Parts { parts, .. }, .. } = *self;
        let (candidates, group_heads) = (self.group.targets.len(), op.heads / op.kv_heads);
        // A tile for each candidate, whose slots are its parts.
        let tile = |m: usize| [m, 0, group_heads, 0, m * parts, parts, 0, 0].map(|word| word as u32);
        let tiles = gpu.list(operation, &(0..candidates).flat_map(tile).collect::<Vec<_>>())?;
        let combine = Combine {
            kv_heads: op.kv_heads,
            group_heads,
            value_width: op.value_width,
            first_column: 0,
            value_columns: op.value_width,
            first_stats,
            tile_rows: group_heads,
            weighting: weighting_of(Weighting::Softmax).0,
            has_lse,
        };
        combine.run(gpu, operation, (&tiles, candidates), partial, out, lse)
    }
}
