//! Attention over a selection (`attend.rs`) and its gradients (`backward.rs`), both with rows from embedding tables (`tables/`), and histograms of
//! similarities (`histogram.rs`).

pub(super) mod attend;
pub(super) mod backward;
pub(super) mod histogram;
pub(super) mod tables;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{Found, count_record, position_record};
use crate::cuda::twin::twins;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::{NONE, fit};
use crate::memory::ViewMut;
use crate::ops::*;

/// The file of the kernels of the forward pass and of histograms.
const FILE: &str = "selected";
/// As in `kernels/selected/rows.cuh`: the most threads of a block, and the rows that a thread has in flight.
pub(in crate::cuda) const MOST_THREADS: usize = 256;
const AHEAD: usize = 4;
/// How far loops over slots step past the end, at most.
pub(in crate::cuda) const SLOTS_AHEAD: usize = AHEAD * MOST_THREADS;
const WARP: usize = 32;
/// Bytes of a vector, the unit in which a thread reads a row.
const VECTOR: usize = 16;

twins! {
    /// `kernels/selected/rows.cuh`
    pub(in crate::cuda) struct SelectedInputs {
        tiles: u64,
        queries: u64,
        keys: u64,
        values: u64,
        bias: u64,
        gammas: u64,
        positions: u64,
        similarities: u64,
        counts: u64,
        bad_counts: u64,
        bad_positions: u64,
        top_k: u32,
        heads: u32,
        kv_heads: u32,
        group: u32,
        width: u32,
        value_width: u32,
        scale: f32,
        unused: u32,
    }
}

impl SelectedOps for Cuda {
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &CudaBatch,
        inputs: SelectedAttentionInputs<'_, CudaMemory, T>,
        outputs: SelectedAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        attend::attend(self, op, batch, &inputs, &outputs)
    }

    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &CudaBatch,
        inputs: SelectedAttentionInputs<'_, CudaMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, CudaMemory, T>,
        grads: SelectedAttentionGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::backward(self, op, batch, (&inputs, &grad_out), &grads)
    }

    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &CudaBatch,
        inputs: SelectedTableInputs<'_, CudaMemory, T>,
        outputs: SelectedAttentionOutputs<'_, CudaMemory, T>,
    ) -> Result<()> {
        tables::attend(self, op, batch, &inputs, &outputs)
    }

    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &CudaBatch,
        inputs: SelectedTableInputs<'_, CudaMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, CudaMemory, T>,
        grads: SelectedTableGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        tables::backward(self, op, batch, (&inputs, &grad_out), &grads)
    }

    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &CudaBatch,
        selection: Selection<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, u32>,
    ) -> Result<()> {
        histogram::histogram(self, op, batch, &selection, &out)
    }

    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &CudaBatch,
        inputs: SimilarityInputs<'_, CudaMemory>,
        out: ViewMut<'_, CudaMemory, u32>,
    ) -> Result<()> {
        histogram::newest(self, op, search, batch, &inputs, &out)
    }
}

/// What a call reads, and the blocks that read it: one for each head of each candidate.
struct Readers {
    inputs: SelectedInputs,
    blocks: usize,
    /// Of a block.
    threads: usize,
}

impl Readers {
    /// Inputs that the operation has checked.
    fn new<T: Element>(
        gpu: &Cuda,
        call: &Call<'_>,
        op: &SelectedAttention,
        batch: &CudaBatch,
        inputs: &SelectedAttentionInputs<'_, CudaMemory, T>,
    ) -> Result<Self> {
        let operation = call.operation;
        let found = Found::given(gpu, operation, &inputs.selection)?;
        let keys = gpu.region(operation, &inputs.keys)?.pointer;
        let plan = batch.candidates(gpu, operation)?;
        let candidates = plan.plan.tiles.len();
        // Kernels count the bytes of a behaviour's row in 32 bits, and some past its end.
        let width = |argument, width: usize| -> Result<u32> {
            let bytes = width.saturating_mul(size_of::<T>()).saturating_mul(op.kv_heads);
            fit(operation, argument, bytes.saturating_add(WARP * VECTOR))?;
            Ok(width as u32)
        };
        let inputs = SelectedInputs {
            tiles: plan.tiles.pointer(),
            queries: gpu.region(operation, &inputs.queries)?.pointer,
            keys,
            values: match &inputs.values {
                Some(values) => gpu.region(operation, values)?.pointer,
                None => keys,
            },
            bias: gpu.optional(operation, inputs.bias.as_ref())?,
            gammas: gpu.optional(operation, inputs.gammas.as_ref())?,
            positions: found.positions,
            similarities: found.scores,
            counts: found.counts,
            bad_counts: count_record(call, batch, op.top_k)?,
            bad_positions: position_record(call, batch, op.top_k)?,
            top_k: slots(operation, candidates, op.top_k)?,
            heads: fit(operation, "heads", op.heads)?,
            kv_heads: op.kv_heads as u32,
            group: (op.heads / op.kv_heads) as u32,
            width: width("width", op.width)?,
            value_width: width("value_width", op.value_width)?,
            scale: op.effective_scale(),
            unused: 0,
        };
        let blocks = candidates.saturating_mul(op.heads);
        Ok(Self { inputs, blocks, threads: threads::<T>(op) })
    }
}

/// The slots of a candidate as kernels take them. Without candidates there may be more, and nothing reads them.
fn slots(operation: &'static str, candidates: usize, top_k: usize) -> Result<u32> {
    // Loops step past the end.
    let most = top_k.saturating_add(SLOTS_AHEAD);
    if candidates == 0 { Ok(NONE) } else { fit(operation, "top_k", most).map(|_| top_k as u32) }
}

/// The threads of a block.
fn threads<T: Element>(op: &SelectedAttention) -> usize {
    threads_for::<T>(op.width.max(op.value_width), op.top_k)
}

/// The threads of a block that reads `top_k` rows of so many numbers: as many as have all of them in flight in one turn, from a warp on. It
/// depends on nothing else, so that the order of additions does not.
pub(in crate::cuda) fn threads_for<T: Element>(width: usize, top_k: usize) -> usize {
    let vectors = width.saturating_mul(size_of::<T>()).div_ceil(VECTOR);
    let lanes = vectors.min(WARP).next_power_of_two();
    let wanted = top_k.saturating_mul(lanes).div_ceil(AHEAD).min(MOST_THREADS);
    wanted.next_power_of_two().clamp(WARP, MOST_THREADS)
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [attend::table(), backward::table(), histogram::table(), tables::table()].concat()
}
