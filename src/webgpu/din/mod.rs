//! DIN: folds the network, prepares the candidates, scores and pools, combines.

mod attend;
mod fold;
mod layout;
mod targets;

use crate::element::Element;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::{Din, DinInputs, DinOps};
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
        attend::attend(self, op, batch, &inputs, out)
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [attend::variants(), fold::variants(), targets::variants()].concat()
}
