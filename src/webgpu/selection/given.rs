//! Selections that a call is given: the rows that candidates keep, and the checks of positions and counts.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::{Bound, fit};
use crate::ops::Selection;
use crate::plan::{Cut, Pace};
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::binding::Binding;
use crate::webgpu::faults::Report;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The largest K: the threads of a workgroup go over it.
const MOST_TOP_K: usize = 1 << 20;

params! {
    /// Twin of the struct in shaders/selection/given.wgsl.
    struct GivenSelectionParams {
        tiles: u32,
        first_tile: u32,
        first_history: u32,
        lists: u32,
        top_k: u32,
        positions_base: u32,
        scores_base: u32,
        counts_base: u32,
    }
}

/// What is kept with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webgpu) enum Number {
    Score,
    /// The softmax weight of the score.
    Weight,
    /// None: scores are not read.
    Nothing,
}

fn given_kernel(number: Number) -> Kernel {
    Kernel {
        name: "selection/given",
        params: &GivenSelectionParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/selection/given.wgsl")],
        constants: vec![("NUMBER", number as u32)],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("positions", "u32"),
            Slot::plain("scores", "u32"),
            Slot::plain("counts", "u32"),
            Slot::write("kept", "vec2<u32>"),
            Slot::write("bad_counts", "atomic<u32>"),
            Slot::write("bad_positions", "atomic<u32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [Number::Score, Number::Weight, Number::Nothing].map(given_kernel).to_vec()
}

/// Fails for a K that is too large for the loops of a thread.
pub(in crate::webgpu) fn check_top_k(operation: &'static str, top_k: usize) -> Result<()> {
    if top_k <= MOST_TOP_K {
        return Ok(());
    }
    let (needed, limit) = (top_k as u64, MOST_TOP_K as u64);
    Err(Error::Limit { operation, argument: "top_k", needed, limit })
}

/// A plan whose tiles are lists, of which each candidate has so many.
pub(in crate::webgpu) fn list_tiles(
    gpu: &Wgpu,
    operation: &'static str,
    lists: usize,
    batch: &WgpuBatch,
) -> Result<Arc<DevicePlan>> {
    batch.plan(
        gpu,
        operation,
        &Cut { rows_per_target: lists, tile_rows: 1, step: 64, longest: usize::MAX, pace: Pace::WHOLE },
    )
}

/// A selection that was given.
pub(in crate::webgpu) struct Given<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    /// Lists of a candidate.
    lists: usize,
    top_k: usize,
    /// One tile for each list; the plan's pieces are unused.
    plan: Arc<DevicePlan>,
    positions: Binding,
    scores: Binding,
    counts: Binding,
    bad_counts: Report,
    bad_positions: Report,
}

impl<'a> Given<'a> {
    /// One list for each candidate.
    ///
    /// # Errors
    /// [`Error::Limit`] for a K that is too large.
    pub(in crate::webgpu) fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        top_k: usize,
        batch: &WgpuBatch,
        selection: &Selection<'_, WgpuMemory>,
    ) -> Result<Self> {
        Self::of_lists(gpu, operation, (1, top_k), batch, selection)
    }

    /// So many `lists` for each candidate.
    ///
    /// # Errors
    /// [`Error::Limit`] for a K that is too large.
    pub(in crate::webgpu) fn of_lists(
        gpu: &'a Wgpu,
        operation: &'static str,
        (lists, top_k): (usize, usize),
        batch: &WgpuBatch,
        selection: &Selection<'_, WgpuMemory>,
    ) -> Result<Self> {
        check_top_k(operation, top_k)?;
        let positions = gpu.bind(operation, "positions", &Region::of(selection.positions))?;
        let scores = gpu.bind(operation, "scores", &Region::of(selection.scores))?;
        let counts = gpu.bind(operation, "counts", &Region::of(selection.counts))?;
        fit(operation, "positions", batch.as_ref().targets().total() * lists * top_k)?;
        let bad_counts = gpu.report(operation, "counts", Bound::Columns(vec![top_k as u64 + 1]))?;
        let bound = Bound::History(batch.shared().clone(), lists * top_k);
        let bad_positions = gpu.report(operation, "positions", bound)?;
        let plan = list_tiles(gpu, operation, lists, batch)?;
        Ok(Self { gpu, operation, lists, top_k, plan, positions, scores, counts, bad_counts, bad_positions })
    }

    /// The rows that some candidates keep, or with several lists for each some lists, `[C, K]`: (number, row of the history or `NONE`).
    /// Rows are counted from `first_history`.
    pub(in crate::webgpu) fn keep(
        &self,
        targets: Range<usize>,
        first_history: usize,
        number: Number,
    ) -> Result<Binding> {
        let Self { gpu, operation, top_k, .. } = *self;
        let kept = gpu.scratch(operation, (targets.len() * top_k * 2) as u64)?;
        let params = GivenSelectionParams {
            tiles: targets.len() as u32,
            first_tile: targets.start as u32,
            first_history: first_history as u32,
            lists: self.lists as u32,
            top_k: top_k as u32,
            positions_base: self.positions.base,
            scores_base: self.scores.base,
            counts_base: self.counts.base,
        };
        let bindings = [
            &self.plan.tiles,
            &self.positions,
            &self.scores,
            &self.counts,
            &kept,
            &self.bad_counts.binding,
            &self.bad_positions.binding,
        ];
        gpu.dispatch(operation, &given_kernel(number), &params, &bindings, targets.len() as u64)?;
        Ok(kept)
    }

    /// Makes the next wait report counts and positions outside, once all candidates are kept.
    pub(in crate::webgpu) fn finish(self) -> Result<()> {
        self.gpu.fetch_word(&self.counts, 32, self.bad_counts)?;
        self.gpu.fetch_word(&self.positions, 32, self.bad_positions)
    }
}
