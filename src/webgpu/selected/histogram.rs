//! Histograms of a selection's similarities.

use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::ViewMut;
use crate::ops::{Selection, SimilarityHistogram};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::selection::check_top_k;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "similarity_histogram";

/// The bins that fit workgroup memory: few, or the most.
const BINS: [usize; 2] = [64, 2 * SimilarityHistogram::MAX_STEPS + 1];

/// Bins of similarities.
pub(super) const BINS_OF: &str = include_str!("../../../shaders/selected/bins.wgsl");

params! {
    /// Twin of the struct in shaders/selected/histogram.wgsl.
    struct HistogramParams {
        candidates: u32,
        top_k: u32,
        steps: u32,
        bins: u32,
        scores_base: u32,
        counts_base: u32,
        out_base: u32,
    }
}

fn histogram_kernel(bins: usize) -> Kernel {
    Kernel {
        name: "selected/histogram",
        params: &HistogramParams::BLOCK,
        threads: THREADS,
        sources: &[BINS_OF, include_str!("../../../shaders/selected/histogram.wgsl")],
        constants: vec![("BINS", bins as u32)],
        slots: vec![
            Slot::plain("scores", "u32"),
            Slot::plain("counts", "u32"),
            Slot::write("out", "u32"),
            Slot::write("bad_counts", "atomic<u32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    BINS.map(histogram_kernel).to_vec()
}

pub(super) fn count(
    gpu: &Wgpu,
    op: &SimilarityHistogram,
    batch: &WgpuBatch,
    selection: &Selection<'_, WgpuMemory>,
    out: &ViewMut<'_, WgpuMemory, u32>,
) -> Result<()> {
    op.check(batch.as_ref(), selection)?;
    op.check_output(NAME, batch.as_ref(), out.len())?;
    batch.check_owner(gpu, NAME)?;
    let (candidates, bins) = (batch.as_ref().targets().total(), op.bins());
    if candidates == 0 {
        return Ok(());
    }
    check_top_k(NAME, op.top_k)?;
    let (scores, counts) = (Region::of(selection.scores), Region::of(selection.counts));
    let out = gpu.output(NAME, "out", out, candidates * bins, &[scores.buffer, counts.buffer], &[])?;
    // Only what candidates own is read.
    let scores = gpu.bind(NAME, "scores", &scores.rows(0, candidates, op.top_k))?;
    let counts = gpu.bind(NAME, "counts", &counts.rows(0, candidates, 1))?;
    fit(NAME, "scores", candidates * op.top_k)?;
    fit(NAME, "out", candidates * bins)?;
    let bad_counts = gpu.report(NAME, "counts", Bound::Columns(vec![op.top_k as u64 + 1]))?;
    let params = HistogramParams {
        candidates: candidates as u32,
        top_k: op.top_k as u32,
        steps: op.steps as u32,
        bins: bins as u32,
        scores_base: scores.base,
        counts_base: counts.base,
        out_base: out.binding.base,
    };
    let kernel = histogram_kernel(if bins <= BINS[0] { BINS[0] } else { BINS[1] });
    let bindings = [&scores, &counts, &out.binding, &bad_counts.binding];
    gpu.dispatch(NAME, &kernel, &params, &bindings, candidates as u64)?;
    gpu.finish(out)?;
    gpu.fetch_word(&counts, 32, bad_counts)
}
