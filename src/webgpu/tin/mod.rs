//! TIN: target attention whose keys, which are the values too, are sums of behaviours and positions, and its gradients.
//!
//! The rows of a history are never stored with their positions: the kernels of target attention add them as they read
//! (`shaders/tin/rows.wgsl`). Those of the candidates are, as packed queries would be.

mod backward;
mod positions;
mod rows;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{Tin, TinGradients, TinInputs, TinOps, TinOutputs, TinSaved, Weighting};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::attend::Attention;
use rows::{Product, Rows};

impl TinOps for Wgpu {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &WgpuBatch,
        inputs: TinInputs<'_, WgpuMemory, T>,
        outputs: TinOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend(gpu, op, batch, &inputs, outputs))
    }

    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &WgpuBatch,
        inputs: TinInputs<'_, WgpuMemory, T>,
        saved: TinSaved<'_, WgpuMemory, T>,
        grad_out: View<'_, WgpuMemory, T>,
        grads: TinGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward(gpu, op, batch, &inputs, (&saved, grad_out), grads))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [rows::variants(), positions::variants()].concat()
}

fn attend<T: Element>(
    gpu: &Wgpu,
    op: &Tin,
    batch: &WgpuBatch,
    inputs: &TinInputs<'_, WgpuMemory, T>,
    outputs: TinOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    const NAME: &str = "tin";
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    batch.check_owner(gpu, NAME)?;
    let rows = Rows::new(gpu, NAME, op, batch.as_ref(), inputs)?;
    let candidates = batch.as_ref().targets().total();
    let length = candidates * op.width;
    let mut read = rows.buffers(inputs);
    let pooled = match &outputs.pooled {
        Some(pooled) => Some(gpu.output(NAME, "pooled", pooled, length, &read, &[])?),
        None => None,
    };
    // The products with the candidates are computed from the means, which another kernel writes.
    let means = match &pooled {
        Some(pooled) => Some(pooled.binding.clone()),
        None if op.multiply_target => Some(gpu.scratch(NAME, length as u64)?),
        None => None,
    };
    read.extend(means.as_ref().map(|means| &means.buffer));
    let written: Vec<_> = pooled.iter().collect();
    let out = gpu.output(NAME, "out", &outputs.out, length, &read, &written)?;
    let written = [written, vec![&out]].concat();
    let lse = match &outputs.lse {
        Some(lse) => Some(gpu.output(NAME, "lse", lse, candidates, &read, &written)?),
        None => None,
    };
    let targets = rows.targets()?;
    let attention = Attention {
        operation: NAME,
        heads: 1,
        kv_heads: 1,
        width: op.width,
        value_width: op.width,
        scale: op.effective_scale(),
        weighting: Weighting::Softmax,
        computes_rows: false,
    };
    let to = means.as_ref().unwrap_or(&out.binding);
    attention.run::<f32, T>(
        gpu,
        batch,
        rows.region(&targets).region(),
        gpu.rows_per_binding::<T>(op.width),
        &|span| rows.bind(span),
        &rows.added(),
        to,
        lse.as_ref().map(|lse| &lse.binding),
    )?;
    if let Some(means) = &means {
        let second = op.multiply_target.then_some(&targets);
        Product { first: means, second, out: &out.binding, adds: false, length }
            .run::<f32, f32>(gpu, NAME)?;
    }
    pooled.map_or(Ok(()), |pooled| gpu.finish(pooled))?;
    gpu.finish(out)?;
    lse.map_or(Ok(()), |lse| gpu.finish(lse))
}
