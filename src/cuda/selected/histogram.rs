//! Histograms of similarities: of a selection, and of the newest behaviours.
//!
//! The newest behaviours are searched for as many as there are, a part of at most [`Search::MAX_TOP_K`] at a time, so that a search keeps all
//! of them, and what is kept is counted.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::search::rows::search_into;
use crate::cuda::selected::{FILE, MOST_THREADS, WARP, slots};
use crate::cuda::selection::{Found, count_record};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::*;

const NAME: &str = "similarity_histogram";
const NEWEST: &str = "newest_histogram";
/// A block per candidate.
const KERNEL: Kernel = Kernel::new(FILE, "similarity_histogram", MOST_THREADS as u32, 13);
/// Slots and bins of a thread.
const OWN: usize = 4;

twins! {
    /// `kernels/selected/selected.cu`
    pub(in crate::cuda) struct SimilarityHistogramParams {
        similarities: u64,
        counts: u64,
        out: u64,
        bad_counts: u64,
        top_k: u32,
        steps: u32,
        add: u32,
        unused: u32,
    }
}

pub(super) fn histogram(
    gpu: &Cuda,
    op: &SimilarityHistogram,
    batch: &CudaBatch,
    selection: &Selection<'_, CudaMemory>,
    out: &ViewMut<'_, CudaMemory, u32>,
) -> Result<()> {
    op.check(batch.as_ref(), selection)?;
    op.check_output(NAME, batch.as_ref(), out.len())?;
    batch.check_stream(gpu, NAME)?;
    let (found, out) = (Found::given(gpu, NAME, selection)?, gpu.region_mut(NAME, out)?.pointer);
    let call = gpu.begin(NAME);
    count(&call, op, batch, found, (out, false))?;
    call.finish()
}

pub(super) fn newest(
    gpu: &Cuda,
    op: &SimilarityHistogram,
    search: &Search,
    batch: &CudaBatch,
    inputs: &SimilarityInputs<'_, CudaMemory>,
    out: &ViewMut<'_, CudaMemory, u32>,
) -> Result<()> {
    op.check_newest(search, batch.as_ref(), inputs)?;
    op.check_output(NEWEST, batch.as_ref(), out.len())?;
    let out = gpu.region_mut(NEWEST, out)?.pointer;
    let mut call = gpu.begin(NEWEST);
    let parts = batch.newest(gpu, NEWEST, op.top_k, Search::MAX_TOP_K)?;
    let longest = parts.iter().map(|part| part.as_ref().histories().max_length()).max().unwrap_or(0);
    let top_k = longest.max(1);
    let found = Found::scratch(&mut call, batch.as_ref().targets().total(), top_k)?;
    let (op, search) = (op.with_top_k(top_k), search.with_top_k(top_k));
    call.parts(parts.iter().enumerate(), |call, (index, part)| {
        search_into(gpu, call, &search, part, inputs, found)?;
        count(call, &op, part, found, (out, index > 0))
    })?;
    call.finish()
}

/// Counts what is found, or adds it to what is there.
fn count(
    call: &Call<'_>,
    op: &SimilarityHistogram,
    batch: &CudaBatch,
    found: Found,
    (out, add): (u64, bool),
) -> Result<()> {
    let candidates = batch.as_ref().targets().total();
    let params = SimilarityHistogramParams {
        similarities: found.scores,
        counts: found.counts,
        out,
        bad_counts: count_record(call, batch, op.top_k)?,
        top_k: slots(call.operation, candidates, op.top_k)?,
        steps: op.steps as u32,
        add: u32::from(add),
        unused: 0,
    };
    let wanted = op.top_k.max(op.bins()).div_ceil(OWN).min(MOST_THREADS).next_power_of_two();
    let launch = KERNEL.blocks(candidates).with_threads(wanted.max(WARP));
    call.launch(&launch.with_shared(op.bins() * size_of::<u32>()), &params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![KERNEL]
}
