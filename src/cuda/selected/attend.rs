//! The forward pass: `kernels/selected/selected.cu`.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::CudaMemory;
use crate::cuda::selected::{FILE, MOST_THREADS, Readers, SelectedInputs, VECTOR};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::ops::*;

const NAME: &str = "selected_attention";
/// A block for each head of each candidate.
const KERNELS: ByType = ByType([
    Kernel::new(FILE, "selected_attention_f32", MOST_THREADS as u32, 79),
    Kernel::new(FILE, "selected_attention_f16", MOST_THREADS as u32, 80),
    Kernel::new(FILE, "selected_attention_bf16", MOST_THREADS as u32, 80),
]);
/// The most slots whose places and weights are in shared memory.
const SHARED_SLOTS: usize = 1024;
const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/selected/selected.cu`
    pub(in crate::cuda) struct SelectedAttentionParams {
        inputs: SelectedInputs,
        out: u64,
        lse: u64,
        places: u64,
        weights: u64,
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &SelectedAttention,
    batch: &CudaBatch,
    inputs: &SelectedAttentionInputs<'_, CudaMemory, T>,
    outputs: &SelectedAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), outputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?.pointer;
    let lse = gpu.asked(NAME, outputs.lse.as_ref())?.pointer;
    let mut call = gpu.begin(NAME);
    let readers = Readers::new(gpu, &call, op, batch, inputs)?;
    launch_attention::<T>(&mut call, readers.inputs, (readers.blocks, readers.threads), [out, lse])?;
    call.finish()
}

/// Writes outputs, and log-sum-exps where they are asked for (0: they are not), with so many blocks of so many threads.
pub(super) fn launch_attention<T: Element>(
    call: &mut Call<'_>,
    inputs: SelectedInputs,
    (blocks, threads): (usize, usize),
    [out, lse]: [u64; 2],
) -> Result<()> {
    let top_k = inputs.top_k as usize;
    let is_shared = top_k <= SHARED_SLOTS;
    let mut list = || match is_shared {
        true => Ok(0),
        false => call.scratch(blocks.saturating_mul(top_k).saturating_mul(WORD)),
    };
    let params = SelectedAttentionParams { inputs, out, lse, places: list()?, weights: list()? };
    let launch = KERNELS.of::<T>().blocks(blocks).with_threads(threads);
    let shared = shared_bytes::<T>(threads, if is_shared { top_k } else { 0 });
    call.launch(&launch.with_shared(shared), &params)
}

/// Bytes of dynamic shared memory of a block with so many slots there: a place for the sums of each thread, then places and weights.
pub(in crate::cuda) fn shared_bytes<T: Element>(threads: usize, slots: usize) -> usize {
    sum_bytes::<T>(threads) + slots * 2 * WORD
}

/// Bytes of the sums of all threads, of a vector of numbers each.
pub(in crate::cuda) fn sum_bytes<T: Element>(threads: usize) -> usize {
    threads * (VECTOR / size_of::<T>()) * size_of::<f32>()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    KERNELS.0.to_vec()
}
