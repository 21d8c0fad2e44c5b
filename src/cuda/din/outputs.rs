//! Where the gradients of a call of DIN's backward pass go.

use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::element::Element;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::{Din, DinGradients};

/// A gradient to write: where, how many numbers, and whether as `T`, not as `f32`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) pointer: u64,
    pub(super) length: usize,
    pub(super) narrow: bool,
}

impl Out {
    /// A gradient of numbers that are stored as `T`.
    pub(super) fn of<T: Element, G: Element>(
        gpu: &Cuda,
        operation: &'static str,
        view: &ViewMut<'_, CudaMemory, G>,
    ) -> Result<Self> {
        let Region { pointer, length, .. } = gpu.region_mut(operation, view)?;
        Ok(Self { pointer, length, narrow: T::DTYPE == G::DTYPE })
    }

    pub(super) fn of_vector(
        gpu: &Cuda,
        operation: &'static str,
        view: &ViewMut<'_, CudaMemory, f32>,
    ) -> Result<Self> {
        let Region { pointer, length, .. } = gpu.region_mut(operation, view)?;
        Ok(Self { pointer, length, narrow: false })
    }
}

/// Where the gradients of the network go.
#[derive(Debug, Default)]
pub(super) struct Outs {
    pub(super) targets: Option<Out>,
    pub(super) history: Option<Out>,
    pub(super) weights: [Option<Out>; Din::MAX_HIDDEN],
    /// Bias, alpha, gain and shift of each layer.
    pub(super) vectors: [[Option<Out>; 4]; Din::MAX_HIDDEN],
    pub(super) output_weight: Option<Out>,
    pub(super) output_bias: Option<Out>,
}

impl Outs {
    pub(super) fn new<T: Element, G: Element>(
        gpu: &Cuda,
        operation: &'static str,
        grads: &DinGradients<'_, CudaMemory, G>,
    ) -> Result<Self> {
        let rows = |view: &Option<ViewMut<'_, CudaMemory, G>>| {
            view.as_ref().map(|view| Out::of::<T, G>(gpu, operation, view)).transpose()
        };
        let vector = |view: &Option<ViewMut<'_, CudaMemory, f32>>| {
            view.as_ref().map(|view| Out::of_vector(gpu, operation, view)).transpose()
        };
        let mut outs = Self {
            targets: rows(&grads.targets)?,
            history: rows(&grads.history)?,
            output_weight: rows(&grads.output_weight)?,
            output_bias: vector(&grads.output_bias)?,
            ..Self::default()
        };
        for (i, layer) in grads.hidden.iter().enumerate() {
            outs.weights[i] = rows(&layer.weight)?;
            let views = [&layer.bias, &layer.alpha, &layer.gain, &layer.shift];
            for (out, view) in outs.vectors[i].iter_mut().zip(views) {
                *out = vector(view)?;
            }
        }
        Ok(outs)
    }
}
