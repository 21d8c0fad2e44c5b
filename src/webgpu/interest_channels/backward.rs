//! Gradients of interest channels.
//!
//! What belongs to a channel is computed from its list, as in the forward pass: scores, the sum if it was divided by its length, the
//! gradient of the sum, slopes, the gradient of the axis, and through the right angles those of the axes that were given. What belongs to a
//! behaviour adds up over the slots that keep it, which are sorted by behaviour.

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::View;
use crate::ops::{
    InterestChannels, InterestChannelsGradients, InterestChannelsInputs, InterestChannelsSaved,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::interest_channels::axes::{Axes, STATES};
use crate::webgpu::interest_channels::forward::limits;
use crate::webgpu::interest_channels::lists::Lists;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::pack::{POWERS, ROW_LENGTH};
use crate::webgpu::selected::groups::Group;
use crate::webgpu::selected::parts::Parts;
use crate::webgpu::selected::sums::{ByBehaviour, OfBehaviours};
use crate::webgpu::selection::{Given, Number, list_tiles};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "interest_channels_backward";

params! {
    /// Twin of the struct in shaders/interest_channels/before_division.wgsl.
    struct ChannelGradientParams {
        width: u32,
        first_list: u32,
        grad_out_base: u32,
        normalise: u32,
    }
}

fn gradient_kernel(grad_out: Format) -> Kernel {
    Kernel {
        name: "interest_channels/before_division",
        params: &ChannelGradientParams::BLOCK,
        threads: THREADS,
        sources: &[
            POWERS,
            ROW_LENGTH,
            STATES,
            include_str!("../../../shaders/interest_channels/before_division.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::read("rows", Format::f32(grad_out.vectors)),
            Slot::read("grad_out", grad_out),
            Slot::plain("states", "vec2<u32>"),
            Slot::write("grads", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.map(gradient_kernel).to_vec()
}

/// The candidates of a batch, and what they keep.
struct Candidates<'a> {
    axes: Axes<'a>,
    given: Given<'a>,
    tiles: Binding,
    parts: Parts,
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &InterestChannels,
    batch: &WgpuBatch,
    inputs: &InterestChannelsInputs<'_, WgpuMemory, T>,
    (saved, grad_out): (&InterestChannelsSaved<'_, WgpuMemory>, View<'_, WgpuMemory, T>),
    mut grads: InterestChannelsGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, saved, grad_out.len(), &grads)?;
    batch.check_owner(gpu, NAME)?;
    let (count, behaviours) = (batch.as_ref().targets().total(), batch.as_ref().histories().total());
    if count + behaviours == 0 {
        return Ok(());
    }
    fit(NAME, "N", batch.as_ref().histories().rows())?;
    let candidates = match count {
        // Without candidates sizes may be anything.
        0 => None,
        _ => Some(Candidates {
            axes: Axes::new(gpu, NAME, op, Region::of(inputs.axes), count)?,
            given: Given::of_lists(gpu, NAME, (op.channels, op.top_k), batch, &saved.kept)?,
            tiles: list_tiles(gpu, NAME, op.channels, batch)?.tiles.clone(),
            parts: Parts::new(NAME, op.top_k, count * op.channels, op.width)?,
        }),
    };
    let parts = candidates.as_ref().map_or(Parts::NONE, |candidates| candidates.parts);
    let rows = gpu.rows_per_binding::<T>(op.width).min(gpu.rows_per_binding::<f32>(op.width));
    let call = Call {
        gpu,
        op,
        history: Region::of(inputs.history),
        grad_out: Region::of(grad_out),
        read: [inputs.axes, inputs.history, grad_out].map(|view| Region::of(view).buffer),
        candidates: candidates.as_ref(),
    };
    let gaps = batch.as_ref().histories().gaps();
    gpu.clear_rows(NAME, "grads.history", &mut grads.history, &gaps, op.width)?;
    for group in limits(gpu, op, (op.top_k, parts), rows, true).groups(batch.as_ref()) {
        gpu.part(|| call.group(&group, &mut grads))?;
    }
    candidates.map_or(Ok(()), |candidates| candidates.given.finish())
}

/// What all groups share.
struct Call<'a, T: Element> {
    gpu: &'a Wgpu,
    op: &'a InterestChannels,
    history: Region<'a, T>,
    grad_out: Region<'a, T>,
    /// The buffers that kernels read.
    read: [&'a wgpu::Buffer; 3],
    candidates: Option<&'a Candidates<'a>>,
}

impl<T: Element> Call<'_, T> {
    /// Computes the gradients of a group.
    fn group<G: Element>(
        &self,
        group: &Group,
        grads: &mut InterestChannelsGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, op, ref read, .. } = *self;
        let (targets, rows) = (&group.targets, &group.history);
        let row = op.channels.saturating_mul(op.width);
        let of_axes = gpu.output_of_rows(NAME, "grads.axes", &mut grads.axes, (targets, row), read, &[])?;
        let of_history =
            gpu.output_of_rows(NAME, "grads.history", &mut grads.history, (rows, op.width), read, &[])?;
        if let Some(output) = &of_history {
            gpu.clear(NAME, &output.binding, rows.len() * op.width);
        }
        if let Some(candidates) = self.candidates.filter(|_| !targets.is_empty()) {
            let out = [&of_axes, &of_history].map(|output| output.as_ref().map(|output| &output.binding));
            self.lists(candidates, group, out)?;
        }
        [of_axes, of_history].into_iter().flatten().try_for_each(|output| gpu.finish(output))
    }

    /// Computes what the candidates of a group have, and give to their histories.
    fn lists(
        &self,
        candidates: &Candidates<'_>,
        group: &Group,
        [of_axes, of_history]: [Option<&Binding>; 2],
    ) -> Result<()> {
        let Self { gpu, op, .. } = *self;
        let Candidates { axes, given, tiles, parts } = candidates;
        let (first, count) = (group.history.start, group.history.len());
        let range = group.targets.start * op.channels..group.targets.end * op.channels;
        fit(NAME, "history", count.saturating_mul(op.width))?;
        fit(NAME, "positions", range.len().saturating_mul(op.top_k).saturating_mul(2))?;
        // Counts and positions are checked whatever is asked for.
        let kept = given.keep(range.clone(), first, Number::Nothing)?;
        if of_axes.is_none() && of_history.is_none() {
            return Ok(());
        }
        let rows = gpu.bind(NAME, "history", &self.history.rows(first, count, op.width))?;
        let lists = Lists {
            gpu,
            operation: NAME,
            op,
            top_k: op.top_k,
            parts: *parts,
            axes,
            tiles,
            lists: range.clone(),
            rows: &rows,
            first_history: first,
        };
        let scores = lists.products::<T>(&kept, (&axes.rows, range.start))?;
        let sums = match op.normalise {
            true => Some(lists.sums::<T>(&kept, &scores)?),
            false => None,
        };
        let of_sums = self.before_division(&lists, sums.as_ref())?;
        let slopes = lists.products::<T>(&kept, (&of_sums, 0))?;
        if let Some(out) = of_axes {
            let grads = lists.sums::<T>(&kept, &slopes)?;
            axes.backward::<T>(&group.targets, &grads, out)?;
        }
        let Some(out) = of_history.filter(|_| count > 0) else { return Ok(()) };
        let (scores, slopes) = (lists.numbers(&kept, &scores), lists.numbers(&kept, &slopes));
        let order = ByBehaviour::new(gpu, NAME, &scores, range.len(), count)?;
        let by_scores = OfBehaviours {
            width: op.width,
            part_width: op.width,
            rows: &of_sums,
            first_row: 0,
            factor: 1.0,
            adds: false,
            first_column: 0,
            dense: true,
        };
        order.sum::<f32>(&scores, &by_scores, out)?;
        let first_row = (range.start * op.width) as u32;
        let by_slopes = OfBehaviours { rows: &axes.rows, first_row, adds: true, ..by_scores };
        order.sum::<f32>(&slopes, &by_slopes, out)
    }

    /// The gradients of the sums of lists, which are needed where they were divided by their lengths: `[lists, d]`.
    fn before_division(&self, lists: &Lists<'_>, sums: Option<&Binding>) -> Result<Binding> {
        let Self { gpu, op, .. } = *self;
        let (first, count) = (lists.lists.start, lists.lists.len());
        let grad_out = gpu.bind(NAME, "grad_out", &self.grad_out.rows(first, count, op.width))?;
        let out = gpu.scratch(NAME, (count * op.width) as u64)?;
        let nothing = gpu.nothing();
        let params = ChannelGradientParams {
            width: op.width as u32,
            first_list: first as u32,
            grad_out_base: grad_out.base,
            normalise: u32::from(op.normalise),
        };
        let kernel = gradient_kernel(grad_out.format_of_rows::<T>(op.width));
        let bindings = [sums.unwrap_or(&nothing), &grad_out, &lists.axes.states, &out];
        gpu.dispatch(NAME, &kernel, &params, &bindings, count as u64)?;
        Ok(out)
    }
}
