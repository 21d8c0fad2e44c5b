//! Target attention: plans the pieces, attends, merges.

use bytemuck::{Pod, Zeroable};

use crate::cuda::Cuda;
use crate::cuda::batch::CudaBatch;
use crate::cuda::call::{Kernel, suffix};
use crate::cuda::memory::CudaMemory;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::{PartialAttention, TargetAttention, TargetAttentionInputs, TargetAttentionOutputs};

/// `MergePairsParams` of target_attention.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct MergePairs {
    first: u64,
    second: u64,
    first_lse: u64,
    second_lse: u64,
    out: u64,
    lse: u64,
    length: u64,
    width: u32,
    unused: u32,
}

pub(super) fn attend<T: Element>(
    _gpu: &Cuda,
    op: &TargetAttention,
    batch: &CudaBatch,
    inputs: &TargetAttentionInputs<'_, CudaMemory, T>,
    outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), &outputs)?;
    Err(Error::Unsupported {
        operation: "target_attention",
        what: "the Cuda backend".into(),
        supported: "Cpu, Wgpu".into(),
    })
}

pub(super) fn merge<T: Element>(
    gpu: &Cuda,
    op: &TargetAttention,
    first: PartialAttention<'_, CudaMemory, T>,
    second: PartialAttention<'_, CudaMemory, T>,
    outputs: TargetAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    const NAME: &str = "merge_attention";
    const THREADS: u32 = 256;
    let rows = op.check_merge(&first, &second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?;
    let lse = match &outputs.lse {
        Some(lse) => gpu.region_mut(NAME, lse)?.pointer,
        None => 0,
    };
    let params = MergePairs {
        first: gpu.region(NAME, &first.out)?.pointer,
        second: gpu.region(NAME, &second.out)?.pointer,
        first_lse: gpu.region(NAME, &first.lse)?.pointer,
        second_lse: gpu.region(NAME, &second.lse)?.pointer,
        out: out.pointer,
        lse,
        length: out.length as u64,
        width: crate::cuda::fit(NAME, "value_width", op.value_width)?,
        unused: 0,
    };
    let kernel = Kernel::new("target_attention", format!("merge_pairs_{}", suffix::<T>()), THREADS);
    gpu.call(NAME).launch(&kernel, out.length.div_ceil(THREADS as usize), &params)
}
