//! The gradients of a merge of attention over disjoint histories.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS, check_width, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "merge_attention_backward";
/// What the gradients of the two parts are called.
const NAMES: [[&str; 2]; 2] =
    [["first_grads.out", "first_grads.lse"], ["second_grads.out", "second_grads.lse"]];

params! {
    /// Twin of the struct in shaders/target_attention/merge_backward.wgsl.
    struct MergeBackwardParams {
        rows: u32,
        width: u32,
        own_base: u32,
        other_base: u32,
        own_lse_base: u32,
        other_lse_base: u32,
        grad_out_base: u32,
        grad_lse_base: u32,
        out_base: u32,
        lse_base: u32,
        has_grad_lse: u32,
        wants_out: u32,
        wants_lse: u32,
    }
}

fn merge_backward_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "target_attention/merge_backward",
        params: &MergeBackwardParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/target_attention/merge_backward.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("own", rows),
            Slot::read("other", rows),
            Slot::plain("own_lse", "u32"),
            Slot::plain("other_lse", "u32"),
            Slot::read("grad_out", rows),
            Slot::read("grad_lse", Format::f32(false)),
            Slot::write("grad_own", "u32"),
            Slot::write("grad_own_lse", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.into_iter().filter(|format| !format.vectors).map(merge_backward_kernel).collect()
}

/// The rows and the log-sum-exps of a part, and what comes into the backward pass, as kernels bind them.
type Bound = [Binding; 2];

pub(super) fn backward<T: Element, G: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    [first, second]: [PartialAttention<'_, WgpuMemory, T>; 2],
    grad_out: &TargetAttentionGradOut<'_, WgpuMemory, T>,
    [first_grads, second_grads]: [PartialAttentionGradients<'_, WgpuMemory, G>; 2],
) -> Result<()> {
    let rows = op.check_merge_backward([&first, &second], grad_out, [&first_grads, &second_grads])?;
    // A thread goes over a row up to three times.
    check_width(NAME, op.value_width, MOST_ITERATIONS / 3)?;
    // Before anything is recorded.
    for (grads, [out, lse]) in [(&first_grads, NAMES[0]), (&second_grads, NAMES[1])] {
        grads.out.iter().try_for_each(|view| gpu.check_device(NAME, out, &Region::of_mut(view)))?;
        grads.lse.iter().try_for_each(|view| gpu.check_device(NAME, lse, &Region::of_mut(view)))?;
    }
    let first = [
        gpu.bind(NAME, "first.out", &Region::of(first.out))?,
        gpu.bind(NAME, "first.lse", &Region::of(first.lse))?,
    ];
    let second = [
        gpu.bind(NAME, "second.out", &Region::of(second.out))?,
        gpu.bind(NAME, "second.lse", &Region::of(second.lse))?,
    ];
    let grad_lse = match grad_out.lse {
        Some(grad_lse) => gpu.bind(NAME, "grad_out.lse", &Region::of(grad_lse))?,
        None => gpu.nothing(),
    };
    let merge = MergeBackward {
        gpu,
        rows,
        width: op.value_width,
        grad_out: [gpu.bind(NAME, "grad_out.out", &Region::of(grad_out.out))?, grad_lse],
        has_grad_lse: grad_out.lse.is_some(),
    };
    merge.part::<T, G>([&first, &second], NAMES[0], first_grads)?;
    merge.part::<T, G>([&second, &first], NAMES[1], second_grads)
}

/// What both parts share.
struct MergeBackward<'a> {
    gpu: &'a Wgpu,
    rows: usize,
    width: usize,
    grad_out: Bound,
    has_grad_lse: bool,
}

impl MergeBackward<'_> {
    /// Writes the gradients of one part that are asked for.
    fn part<T: Element, G: Element>(
        &self,
        [own, other]: [&Bound; 2],
        names: [&'static str; 2],
        grads: PartialAttentionGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, rows, width, .. } = *self;
        if grads.out.is_none() && grads.lse.is_none() {
            return Ok(());
        }
        let read: Vec<&wgpu::Buffer> =
            own.iter().chain(other).chain(&self.grad_out).map(|binding| &binding.buffer).collect();
        let out = match &grads.out {
            Some(out) => Some(gpu.output(NAME, names[0], out, rows * width, &read, &[])?),
            None => None,
        };
        let lse = match &grads.lse {
            Some(lse) => {
                let others: Vec<_> = out.iter().collect();
                Some(gpu.output(NAME, names[1], lse, rows, &read, &others)?)
            }
            None => None,
        };
        let (no_out, no_lse) = (gpu.no_output(NAME)?, gpu.no_output(NAME)?);
        let out_binding = out.as_ref().map_or(&no_out, |out| &out.binding);
        let lse_binding = lse.as_ref().map_or(&no_lse, |lse| &lse.binding);
        fit(NAME, "grad_out.out", rows * width)?;
        let params = MergeBackwardParams {
            rows: fit(NAME, "grad_out.out", rows)?,
            width: width as u32,
            own_base: own[0].base,
            other_base: other[0].base,
            own_lse_base: own[1].base,
            other_lse_base: other[1].base,
            grad_out_base: self.grad_out[0].base,
            grad_lse_base: self.grad_out[1].base,
            out_base: out_binding.base,
            lse_base: lse_binding.base,
            has_grad_lse: u32::from(self.has_grad_lse),
            wants_out: u32::from(out.is_some()),
            wants_lse: u32::from(lse.is_some()),
        };
        let [grad_out, grad_lse] = &self.grad_out;
        let bindings = [&own[0], &other[0], &own[1], &other[1], grad_out, grad_lse, out_binding, lse_binding];
        let kernel = merge_backward_kernel(Format::of::<T>(false));
        gpu.dispatch(NAME, &kernel, &params, &bindings, groups_of(rows))?;
        out.map_or(Ok(()), |out| gpu.finish(out))?;
        lse.map_or(Ok(()), |lse| gpu.finish(lse))
    }
}
