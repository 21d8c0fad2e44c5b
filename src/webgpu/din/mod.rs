//! DIN: folds the network, prepares the candidates, scores and pools, combines. Gradients and statistics.

mod attend;
mod backward;
mod fold;
mod layout;
mod targets;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Din, DinGradients, DinInputs, DinOps, DinStatistics};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl DinOps for Wgpu {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &WgpuBatch,
        inputs: DinInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend::attend(gpu, op, batch, &inputs, out))
    }

    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &WgpuBatch,
        inputs: DinInputs<'_, WgpuMemory, T>,
        grad_out: View<'_, WgpuMemory, T>,
        grads: DinGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward(gpu, op, batch, &inputs, grad_out, grads))
    }

    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &WgpuBatch,
        inputs: DinInputs<'_, WgpuMemory, T>,
        layer: usize,
        out: DinStatistics<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| backward::statistics(gpu, op, batch, &inputs, layer, out))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [attend::variants(), backward::variants(), fold::variants(), targets::variants()].concat()
}
