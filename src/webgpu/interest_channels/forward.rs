//! The forward pass.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::{InterestChannels, InterestChannelsInputs, InterestChannelsOutputs, SelectionMut};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::interest_channels::axes::{Axes, STATES};
use crate::webgpu::interest_channels::lists::{KeptOutputs, Lists};
use crate::webgpu::interest_channels::search::{Found, NAME, find};
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::pack::{POWERS, ROW_LENGTH};
use crate::webgpu::selected::groups::{Group, Limits};
use crate::webgpu::selected::parts::Parts;
use crate::webgpu::selection::{check_top_k, list_tiles};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/interest_channels/finish.wgsl.
    struct ChannelFinishParams {
        width: u32,
        first_list: u32,
        out_base: u32,
        normalise: u32,
    }
}

fn finish_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "interest_channels/finish",
        params: &ChannelFinishParams::BLOCK,
        threads: THREADS,
        sources: &[
            POWERS,
            ROW_LENGTH,
            STATES,
            include_str!("../../../shaders/interest_channels/finish.wgsl"),
        ],
        constants: vec![],
        slots: vec![Slot::read("rows", rows), Slot::plain("states", "vec2<u32>"), Slot::write("out", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [true, false].map(|vectors| finish_kernel(Format::f32(vectors))).to_vec()
}

/// What may be computed at a time: of a candidate the slots of its channels, the results of parts of them, and its rows are bound.
pub(super) fn limits(
    gpu: &Wgpu,
    op: &InterestChannels,
    (top_k, parts): (usize, Parts),
    rows: usize,
    whole_users: bool,
) -> Limits {
    let slots = top_k.saturating_mul(8);
    let results = parts.parts.saturating_mul(op.width).saturating_mul(4);
    let bytes = slots.max(results).saturating_mul(op.channels);
    Limits::new(rows, bytes, gpu.limits().max_storage_buffer_binding_size, whole_users)
}

pub(super) fn forward<T: Element>(
    gpu: &Wgpu,
    op: &InterestChannels,
    batch: &WgpuBatch,
    inputs: &InterestChannelsInputs<'_, WgpuMemory, T>,
    outputs: InterestChannelsOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    batch.check_owner(gpu, NAME)?;
    let candidates = batch.as_ref().targets().total();
    if candidates == 0 {
        return Ok(());
    }
    // No list is longer than a history.
    let top_k = op.top_k.min(batch.as_ref().histories().max_length()).max(1);
    check_top_k(NAME, if outputs.kept.is_some() { op.top_k } else { top_k })?;
    let kept = outputs.kept.map(|kept| kept_outputs(gpu, op, candidates, &kept)).transpose()?;
    let history = Region::of(inputs.history);
    let axes = Axes::new(gpu, NAME, op, Region::of(inputs.axes), candidates)?;
    let parts = Parts::new(NAME, top_k, candidates * op.channels, op.width)?;
    let found = find(gpu, op, top_k, batch, &axes, history)?;
    let tiles = list_tiles(gpu, NAME, op.channels, batch)?;
    let call =
        Call { gpu, op, top_k, parts, axes: &axes, tiles: &tiles.tiles, found: &found, kept: kept.as_ref() };
    let limits = limits(gpu, op, (top_k, parts), gpu.rows_per_binding::<T>(op.width), false);
    let mut out = Some(outputs.out);
    for group in limits.groups(batch.as_ref()) {
        gpu.part(|| call.group(&group, history, &mut out))?;
    }
    let Some(KeptOutputs { positions, scores, counts }) = kept else { return Ok(()) };
    [positions, scores, counts].into_iter().try_for_each(|output| gpu.finish(output))
}

/// Prepares the outputs of what is kept. No pass that writes them reads an input.
fn kept_outputs(
    gpu: &Wgpu,
    op: &InterestChannels,
    candidates: usize,
    kept: &SelectionMut<'_, WgpuMemory>,
) -> Result<KeptOutputs> {
    let (lists, slots) = (candidates * op.channels, candidates * op.channels * op.top_k);
    fit(NAME, "kept.positions", slots)?;
    let positions = gpu.output(NAME, "kept.positions", &kept.positions, slots, &[], &[])?;
    let scores = gpu.output(NAME, "kept.scores", &kept.scores, slots, &[], &[&positions])?;
    let counts = gpu.output(NAME, "kept.counts", &kept.counts, lists, &[], &[&positions, &scores])?;
    Ok(KeptOutputs { positions, scores, counts })
}

/// What all groups share.
struct Call<'a> {
    gpu: &'a Wgpu,
    op: &'a InterestChannels,
    top_k: usize,
    parts: Parts,
    axes: &'a Axes<'a>,
    tiles: &'a Binding,
    found: &'a Found,
    kept: Option<&'a KeptOutputs>,
}

impl Call<'_> {
    /// Adds up what the channels of a group keep.
    fn group<T: Element>(
        &self,
        group: &Group,
        history: Region<'_, T>,
        out: &mut Option<ViewMut<'_, WgpuMemory, T>>,
    ) -> Result<()> {
        let Self { gpu, op, top_k, parts, axes, tiles, found, .. } = *self;
        let (first, count) = (group.history.start, group.history.len());
        fit(NAME, "history", count.saturating_mul(op.width))?;
        let lists = Lists {
            gpu,
            operation: NAME,
            op,
            top_k,
            parts,
            axes,
            tiles,
            lists: group.targets.start * op.channels..group.targets.end * op.channels,
            rows: &gpu.bind(NAME, "history", &history.rows(first, count, op.width))?,
            first_history: first,
        };
        // The passes that write it read no input.
        let row = op.channels * op.width;
        let out = gpu.output_of_rows(NAME, "out", out, (&group.targets, row), &[], &[])?;
        let [kept, weights] = lists.keep::<T>(found)?;
        if let Some(outputs) = self.kept {
            lists.write(&kept, found, outputs)?;
        }
        let sums = lists.sums::<T>(&kept, &weights)?;
        out.map_or(Ok(()), |out| self.finish(&lists, &sums, out))
    }

    /// Writes the output from the sums.
    fn finish(&self, lists: &Lists<'_>, sums: &Binding, out: Output) -> Result<()> {
        let Self { gpu, op, axes, .. } = *self;
        let params = ChannelFinishParams {
            width: op.width as u32,
            first_list: lists.lists.start as u32,
            out_base: out.binding.base,
            normalise: u32::from(op.normalise),
        };
        let kernel = finish_kernel(sums.format_of_rows::<f32>(op.width));
        let bindings = [sums, &axes.states, &out.binding];
        gpu.dispatch(NAME, &kernel, &params, &bindings, lists.lists.len() as u64)?;
        gpu.finish(out)
    }
}
