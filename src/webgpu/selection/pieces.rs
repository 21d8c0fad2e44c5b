//! The pieces of a search, and the sources of its kernel.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::fit;
use crate::plan::{Cut, Pace, best_tile_rows};
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_ITERATIONS, longest_piece};
use crate::webgpu::pace::PACE;
use crate::webgpu::selection::lists::Lists;
use crate::webgpu::state::Wgpu;

/// The sources of a search kernel, besides its own.
pub(in crate::webgpu) const ORDER: &str = include_str!("../../../shaders/selection/order.wgsl");
pub(in crate::webgpu) const SCORES: &str = include_str!("../../../shaders/selection/scores.wgsl");
pub(in crate::webgpu) const SELECT: &str = include_str!("../../../shaders/selection/select.wgsl");
pub(in crate::webgpu) const IN_WORKGROUP: &str = include_str!("../../../shaders/selection/in_workgroup.wgsl");
pub(in crate::webgpu) const IN_MEMORY: &str = include_str!("../../../shaders/selection/in_memory.wgsl");
pub(in crate::webgpu) const PIECES: &str = include_str!("../../../shaders/selection/pieces.wgsl");

/// What pieces of a search cost, in clock cycles of a GPU. Fewer run at a time than elsewhere, because every piece of a history has lists of K
/// entries; a step is at least K / 2 behaviours, and a piece is to leave out at least as many as it keeps.
const SEARCH_PACE: Pace =
    Pace { resident: 256, step: 12_000, slot: 400, combine: 0, fewest_steps: 4, ..PACE };
/// Behaviours per step.
pub(in crate::webgpu) const STEP: usize = 256;
/// The cost of loading a behaviour by id, in candidates scored with it.
pub(in crate::webgpu) const LOAD: usize = 8;

/// The pieces of a search, and the memory for what they keep.
pub(in crate::webgpu) struct Pieces {
    pub(in crate::webgpu) top_k: usize,
    /// Rows of tiles for each candidate, and how many of them have lists that count: the channels of interest channels.
    pub(in crate::webgpu) rows: usize,
    pub(in crate::webgpu) channels: usize,
    pub(in crate::webgpu) lists: Lists,
    pub(in crate::webgpu) plan: Arc<DevicePlan>,
    /// `[slots + tiles, lists, K]` entries.
    pub(in crate::webgpu) found: Binding,
    /// As many, where lists are longer than workgroup memory holds.
    spare: Option<Binding>,
}

impl Pieces {
    /// Cuts the batch for scores that take a thread so many `iterations` per step, of histories of which `window` rows can be read at a
    /// time. Takes the memory for the lists.
    ///
    /// # Errors
    /// [`Error::Limit`] for lists that no binding holds.
    pub(in crate::webgpu) fn new(
        gpu: &Wgpu,
        operation: &'static str,
        batch: &WgpuBatch,
        top_k: usize,
        iterations: usize,
        window: usize,
    ) -> Result<Self> {
        let lists = Lists::new(top_k, best_tile_rows(batch.as_ref(), 1, Lists::counts(top_k), LOAD));
        Self::of_lists(gpu, operation, batch, (top_k, lists), (1, 1), iterations, window)
    }

    /// The same for candidates that have so many `rows` of tiles each, and a list for each of the first `channels` of them.
    pub(in crate::webgpu) fn of_lists(
        gpu: &Wgpu,
        operation: &'static str,
        batch: &WgpuBatch,
        (top_k, lists): (usize, Lists),
        (rows, channels): (usize, usize),
        iterations: usize,
        window: usize,
    ) -> Result<Self> {
        let step = iterations + lists.iterations_per_step(top_k, STEP);
        let wanted = (MOST_ITERATIONS / step).max(1) * STEP;
        let bytes = lists.count * top_k * 8;
        let longest = longest_piece(batch.as_ref(), rows, lists.count, bytes, wanted.min(window), window);
        let cut_step =
            (top_k / 2).next_multiple_of(2 * STEP).max(2 * STEP).min((longest / STEP).max(1) * STEP);
        let cut =
            Cut { rows_per_target: rows, tile_rows: lists.count, step: cut_step, longest, pace: SEARCH_PACE };
        let plan = batch.plan(gpu, operation, &cut)?;
        let entries = (plan.plan.slots + plan.plan.tiles.len()) * lists.count * top_k;
        fit(operation, "lists", entries)?;
        let found = gpu.scratch(operation, entries as u64 * 2)?;
        let spare = lists.in_memory.then(|| gpu.scratch(operation, entries as u64 * 2)).transpose()?;
        Ok(Self { top_k, rows, channels, lists, plan, found, spare })
    }

    /// Rows of all packed tiles of candidates.
    pub(in crate::webgpu) fn packed_rows(&self) -> usize {
        self.plan.plan.tiles.len() * self.lists.packed_rows()
    }

    /// The bindings of the last slots of a search kernel.
    pub(in crate::webgpu) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        [&self.found].into_iter().chain(&self.spare)
    }
}
