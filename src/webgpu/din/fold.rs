//! Folds the layers of the network into the form that the other kernels read.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{activation_code, fit};
use crate::memory::View;
use crate::ops::{Activation, DIN_LAYERS as NAMES, DinInputs, DinLayer};
use crate::webgpu::binding::Binding;
use crate::webgpu::din::layout::Layout;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/din/fold.wgsl.
    struct DinFoldParams {
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
        first_block: u32,
        first_query_block: u32,
        first_vector: u32,
    }
}

fn fold_kernel(weights: Format) -> Kernel {
    Kernel {
        name: "din/fold",
        params: &DinFoldParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/din/fold.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("weight", weights),
            Slot::plain("bias", "f32"),
            Slot::plain("gain", "f32"),
            Slot::plain("shift", "f32"),
            Slot::plain("alpha", "f32"),
            Slot::read("output_weight", weights),
            Slot::write("blocks", "vec4<f32>"),
            Slot::write("vectors", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.into_iter().filter(|format| !format.vectors).map(fold_kernel).collect()
}

/// The vectors of an activation, bound; those that it does not have are bound to nothing.
pub(super) struct Vectors {
    pub(super) gain: Binding,
    pub(super) shift: Binding,
    pub(super) alpha: Binding,
    /// 0 if all units share one alpha, otherwise 1.
    pub(super) alpha_stride: u32,
}

impl Vectors {
    pub(super) fn bind<T: Element>(
        gpu: &Wgpu,
        operation: &'static str,
        index: usize,
        layer: &DinLayer<'_, WgpuMemory, T>,
    ) -> Result<Self> {
        let names = &NAMES[index];
        let bind =
            |argument, view: View<'_, WgpuMemory, f32>| gpu.bind(operation, argument, &Region::of(view));
        let nothing = || gpu.nothing();
        Ok(match layer.activation {
            Activation::Relu | Activation::Sigmoid => {
                Self { gain: nothing(), shift: nothing(), alpha: nothing(), alpha_stride: 0 }
            }
            Activation::Prelu { alpha } => {
                let alpha_stride = u32::from(alpha.len() > 1);
                let alpha = bind(names.alpha, alpha)?;
                Self { gain: nothing(), shift: nothing(), alpha, alpha_stride }
            }
            Activation::Dice { gain, shift, alpha } => Self {
                gain: bind(names.gain, gain)?,
                shift: bind(names.shift, shift)?,
                alpha: bind(names.alpha, alpha)?,
                alpha_stride: 1,
            },
        })
    }
}

/// Folds one layer into `blocks` and `vectors`.
pub(super) fn fold<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    layout: &Layout,
    index: usize,
    [blocks, vectors]: [&Binding; 2],
) -> Result<()> {
    let layer = &inputs.hidden[index];
    let names = &NAMES[index];
    let Vectors { gain, shift, alpha, alpha_stride } = Vectors::bind(gpu, operation, index, layer)?;
    let weight = gpu.bind(operation, names.weight, &Region::of(layer.weight))?;
    let bias = gpu.bind(operation, names.bias, &Region::of(layer.bias))?;
    let output_weight = gpu.bind(operation, "output_weight", &Region::of(inputs.output_weight))?;
    let threads = 4 * layout.units4[index] * layout.inputs[index].div_ceil(4);
    let params = DinFoldParams {
        threads: fit(operation, names.weight, threads)?,
        units: layout.units[index] as u32,
        inputs: layout.inputs[index] as u32,
        is_first: u32::from(index == 0),
        is_last: u32::from(index + 1 == layout.units.len()),
        activation: activation_code(&layer.activation),
        weight_base: weight.base,
        bias_base: bias.base,
        gain_base: gain.base,
        shift_base: shift.base,
        alpha_base: alpha.base,
        alpha_stride,
        output_base: output_weight.base,
        first_block: layout.first_block[index] as u32,
        first_query_block: layout.first_query_block as u32,
        first_vector: layout.first_vector(index) as u32,
    };
    let kernel = fold_kernel(Format::of::<T>(false));
    let bindings = [&weight, &bias, &gain, &shift, &alpha, &output_weight, blocks, vectors];
    gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))
}
