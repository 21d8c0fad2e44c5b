//! Checks that inputs and gradients are of this device, before anything is recorded.

use crate::element::Element;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::{Activation, DIN_GRADIENTS as GRADIENTS, DIN_LAYERS as NAMES, DinGradients, DinInputs};
use crate::webgpu::launch::{MOST_ITERATIONS, check_width};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::state::Wgpu;

/// Checks that the inputs are of this device.
pub(super) fn check_inputs<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    inputs: &DinInputs<'_, WgpuMemory, T>,
) -> Result<()> {
    let numbers = |argument, view| gpu.check_device(operation, argument, &Region::of(view));
    let vector = |argument, view| gpu.check_device(operation, argument, &Region::of(view));
    numbers("targets", inputs.targets)?;
    numbers("history", inputs.history)?;
    numbers("output_weight", inputs.output_weight)?;
    vector("output_bias", inputs.output_bias)?;
    for (layer, names) in inputs.hidden.iter().zip(&NAMES) {
        numbers(names.weight, layer.weight)?;
        vector(names.bias, layer.bias)?;
        match layer.activation {
            Activation::Relu | Activation::Sigmoid => {}
            Activation::Prelu { alpha } => vector(names.alpha, alpha)?,
            Activation::Dice { gain, shift, alpha } => {
                vector(names.gain, gain)?;
                vector(names.shift, shift)?;
                vector(names.alpha, alpha)?;
            }
        }
    }
    Ok(())
}

/// Fails for rows too wide for a thread's loops: over the numbers of a candidate, and over vec4s of inputs for each 16 units of the first layer, four times
/// where a sum is not finite.
pub(super) fn check_loops(operation: &'static str, width: usize, units: &[usize]) -> Result<()> {
    let first = units.first().map_or(1, |units| units.div_ceil(64).max(1));
    check_width(operation, width, (MOST_ITERATIONS / 2).min(4 * (MOST_ITERATIONS / (5 * first))))
}

/// Checks that the gradients are of this device.
pub(super) fn check_outputs<G: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    grads: &DinGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    let numbers = |argument, view: &Option<ViewMut<'_, WgpuMemory, G>>| {
        view.iter().try_for_each(|view| gpu.check_device(operation, argument, &Region::of_mut(view)))
    };
    let vector = |argument, view: &Option<ViewMut<'_, WgpuMemory, f32>>| {
        view.iter().try_for_each(|view| gpu.check_device(operation, argument, &Region::of_mut(view)))
    };
    numbers("grads.targets", &grads.targets)?;
    numbers("grads.history", &grads.history)?;
    numbers("grads.output_weight", &grads.output_weight)?;
    vector("grads.output_bias", &grads.output_bias)?;
    for (layer, names) in grads.hidden.iter().zip(&GRADIENTS) {
        numbers(names[0], &layer.weight)?;
        for (view, name) in
            [&layer.bias, &layer.alpha, &layer.gain, &layer.shift].into_iter().zip(&names[1..])
        {
            vector(name, view)?;
        }
    }
    Ok(())
}
