//! Lays out the network, and prepares candidates.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{DinLayout, DinPart, activation_code, fit};
use crate::ops::{DIN_LAYERS as NAMES, DinInputs};
use crate::webgpu::binding::Binding;
use crate::webgpu::din::backward::job::Job;
use crate::webgpu::din::fold::Vectors;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/din/backward_fold.wgsl.
    struct DinBackwardFoldParams {
        threads: u32,
        units: u32,
        inputs: u32,
        is_first: u32,
        is_last: u32,
        activation: u32,
        weight_base: u32,
        bias_base: u32,
        gain_base: u32,
        shift_base: u32,
        alpha_base: u32,
        alpha_stride: u32,
        output_base: u32,
        output_bias_base: u32,
        weights: u32,
        vectors: u32,
        output_bias_place: u32,
    }
}

params! {
    /// Twin of the struct in shaders/din/backward_candidates.wgsl.
    struct DinBackwardCandidatesParams {
        threads: u32,
        width: u32,
        units4: u32,
        targets_base: u32,
        grad_out_base: u32,
        has_grad_out: u32,
        weights: u32,
        vectors: u32,
    }
}

fn fold_kernel(weights: Format) -> Kernel {
    Kernel {
        name: "din/backward_fold",
        params: &DinBackwardFoldParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_fold.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("weight", weights),
            Slot::plain("bias", "f32"),
            Slot::plain("gain", "f32"),
            Slot::plain("shift", "f32"),
            Slot::plain("alpha", "f32"),
            Slot::read("output_weight", weights),
            Slot::read("output_bias", Format::f32(false)),
            Slot::write("network", "f32"),
        ],
    }
}

fn candidates_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "din/backward_candidates",
        params: &DinBackwardCandidatesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_candidates.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("targets", rows),
            Slot::read("grad_out", rows),
            Slot::plain("network", "vec4<f32>"),
            Slot::write("candidates", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let formats = Format::ALL.into_iter().filter(|format| !format.vectors);
    formats.flat_map(|format| [fold_kernel(format), candidates_kernel(format)]).collect()
}

/// Lays out the network in scratch memory.
pub(super) fn lay_out<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    layout: &DinLayout,
    inputs: &DinInputs<'_, WgpuMemory, T>,
) -> Result<Binding> {
    fit(operation, "weights", layout.network.saturating_mul(4))?;
    let network = gpu.scratch(operation, 4 * layout.network as u64)?;
    let output_weight = gpu.bind(operation, "output_weight", &Region::of(inputs.output_weight))?;
    let output_bias = gpu.bind(operation, "output_bias", &Region::of(inputs.output_bias))?;
    for (i, layer) in inputs.hidden.iter().enumerate() {
        let Vectors { gain, shift, alpha, alpha_stride } = Vectors::bind(gpu, operation, i, layer)?;
        let weight = gpu.bind(operation, NAMES[i].weight, &Region::of(layer.weight))?;
        let bias = gpu.bind(operation, NAMES[i].bias, &Region::of(layer.bias))?;
        let threads = 16 * layout.units4[i] * layout.inputs4(i);
        let units = layout.units[i];
        let params = DinBackwardFoldParams {
            threads: threads as u32,
            units: units as u32,
            inputs: if i == 0 { layout.width } else { layout.units[i - 1] } as u32,
            is_first: u32::from(i == 0),
            is_last: u32::from(i + 1 == layout.units.len()),
            activation: activation_code(&layer.activation),
            weight_base: weight.base,
            bias_base: bias.base,
            gain_base: gain.base,
            shift_base: shift.base,
            alpha_base: alpha.base,
            alpha_stride,
            output_base: output_weight.base,
            output_bias_base: output_bias.base,
            weights: 4 * layout.weights[i] as u32,
            vectors: 4 * layout.vectors[i] as u32,
            output_bias_place: 4 * layout.output_bias as u32,
        };
        let kernel = fold_kernel(Format::of::<T>(false));
        let bindings = [&weight, &bias, &gain, &shift, &alpha, &output_weight, &output_bias, &network];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
    }
    Ok(network)
}

impl<T: Element> Job<'_, T> {
    /// Prepares the candidates of a part.
    pub(super) fn candidates(&self, part: &DinPart) -> Result<()> {
        let Self { gpu, operation, layout, .. } = *self;
        let (first, count) = (part.targets.start, part.targets.len());
        let bind = |argument, rows: Region<'_, T>| {
            gpu.bind(operation, argument, &rows.rows(first, count, layout.width))
        };
        let targets = bind("targets", Region::of(self.inputs.targets))?;
        let grad_out = self.grad_out.map(|rows| bind("grad_out", rows)).transpose()?;
        let threads = count * layout.candidate;
        let params = DinBackwardCandidatesParams {
            threads: threads as u32,
            width: layout.width as u32,
            units4: layout.units4[0] as u32,
            targets_base: targets.base,
            grad_out_base: grad_out.as_ref().map_or(0, |rows| rows.base),
            has_grad_out: grad_out.is_some().into(),
            weights: (layout.weights[0] + 8 * layout.width4 * layout.units4[0]) as u32,
            vectors: layout.vectors[0] as u32,
        };
        let nothing = gpu.nothing();
        let bindings = [&targets, grad_out.as_ref().unwrap_or(&nothing), &self.network, &self.candidates];
        let kernel = candidates_kernel(Format::of::<T>(false));
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))
    }
}
