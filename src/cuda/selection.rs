//! What searches share: the lists of the best behaviours of spans, and the selection among them, whose kernels are in
//! `kernels/search/search.cu`.

use std::sync::Arc;

use crate::cuda::batch::{CudaBatch, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::ops::{Selection, SelectionMut};
use crate::plan::{Cut, Pace};

/// As in `kernels/selection/block.cuh`: threads of a block that scores, and the behaviours that it takes at a time.
pub(super) const THREADS: u32 = 128;
pub(super) const BEHAVIOURS: usize = 256;
/// Blocks that search which a multiprocessor runs at a time: their lists and rows take much of its shared memory.
const BLOCKS: usize = 2;

/// The selection among lists, for K of up to half the entries of its own list, and for larger K.
const SELECT: Kernel = Kernel::new("search", "search_select", 256, 60);
const SELECT_MANY: Kernel = Kernel::new("search", "search_select_many", 1024, 54);
/// The largest K of [`SELECT`].
const SELECT_TOP_K: usize = 1024;

/// A search by candidates per tile, which share the entries of a block's lists.
#[derive(Debug)]
pub(in crate::cuda) struct Variant {
    pub(in crate::cuda) candidates: usize,
    pub(in crate::cuda) entries: usize,
    pub(in crate::cuda) kernel: Kernel,
}

impl Variant {
    /// Whether a list has room for K entries, as many as are left uncut, and one of each thread.
    pub(in crate::cuda) fn fits(&self, top_k: usize) -> bool {
        room(top_k) + THREADS as usize <= self.entries / self.candidates
    }
}

twins! {
    /// `kernels/selection/best.cuh`
    pub(in crate::cuda) struct KeptLists {
        tiles: u64,
        lists: u64,
        lengths: u64,
        top_k: u32,
        room: u32,
        first_whole: u32,
        unused: u32,
    }
}

twins! {
    /// `kernels/selection/select.cuh`
    pub(in crate::cuda) struct SelectParams {
        tiles: u64,
        lists: u64,
        lengths: u64,
        positions: u64,
        scores: u64,
        counts: u64,
        candidates: u32,
        top_k: u32,
        room: u32,
        first_whole: u32,
    }
}

/// A selection in device memory.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) positions: u64,
    pub(super) scores: u64,
    pub(super) counts: u64,
}

impl Found {
    /// Where the selection that a call reads is.
    pub(super) fn given(
        gpu: &Cuda,
        operation: &'static str,
        selection: &Selection<'_, CudaMemory>,
    ) -> Result<Self> {
        Ok(Self {
            positions: gpu.region(operation, &selection.positions)?.pointer,
            scores: gpu.region(operation, &selection.scores)?.pointer,
            counts: gpu.region(operation, &selection.counts)?.pointer,
        })
    }

    /// Scratch memory for one of so many slots for each of so many candidates.
    pub(super) fn scratch(call: &mut Call<'_>, candidates: usize, top_k: usize) -> Result<Self> {
        let slots = candidates.saturating_mul(top_k).saturating_mul(size_of::<u32>());
        Ok(Self {
            positions: call.scratch(slots)?,
            scores: call.scratch(slots)?,
            counts: call.scratch(candidates.saturating_mul(size_of::<u32>()))?,
        })
    }

    /// Where the outputs of a search are.
    pub(super) fn of(
        gpu: &Cuda,
        operation: &'static str,
        out: &SelectionMut<'_, CudaMemory>,
    ) -> Result<Self> {
        Ok(Self {
            positions: gpu.region_mut(operation, &out.positions)?.pointer,
            scores: gpu.region_mut(operation, &out.scores)?.pointer,
            counts: gpu.region_mut(operation, &out.counts)?.pointer,
        })
    }
}

/// The record of counts above K.
pub(super) fn count_record(call: &Call<'_>, batch: &CudaBatch, top_k: usize) -> Result<u64> {
    let counts = Bound::Columns(vec![(top_k as u64).saturating_add(1)]);
    call.record("counts", batch.as_ref().targets().rows(), counts)
}

/// The record of positions outside their histories.
pub(super) fn position_record(call: &Call<'_>, batch: &CudaBatch, top_k: usize) -> Result<u64> {
    let positions = batch.as_ref().targets().rows().saturating_mul(top_k);
    call.record("positions", positions, Bound::History(batch.shared().clone(), top_k))
}

/// The lists of a search with some number of candidates per tile.
pub(super) struct Keeping {
    pub(super) plan: Arc<DevicePlan>,
    pub(super) kept: KeptLists,
    candidates: usize,
}

/// The most entries of a list that are left for the selection: one of between K and as many need not be cut.
fn room(top_k: usize) -> usize {
    top_k + top_k / 4
}

/// What pieces of a search cost, in cycles. The selection, which reads their lists, is launched in any case.
fn pace(top_k: usize) -> Pace {
    Pace {
        resident: 1,
        step: 12_000,
        row: 0,
        piece: 3000,
        combine: 0,
        slot: 60 + top_k / 6,
        fewest_steps: 1,
        shrinks: false,
    }
}

impl Keeping {
    /// Cuts a batch, and takes memory for the lists of its pieces.
    pub(super) fn new(
        gpu: &Cuda,
        call: &mut Call<'_>,
        batch: &CudaBatch,
        candidates: usize,
        top_k: usize,
    ) -> Result<Self> {
        let operation = call.operation;
        let cut = Cut {
            rows_per_target: 1,
            tile_rows: candidates,
            step: BEHAVIOURS,
            longest: usize::MAX,
            pace: pace(top_k).on(BLOCKS * gpu.multiprocessors()),
        };
        let plan = batch.plan(gpu, operation, &cut)?;
        let (tiles, slots) = (plan.plan.tiles.len(), plan.plan.slots);
        let lists = (slots + tiles).saturating_mul(candidates);
        fit(operation, "lists", lists)?;
        let mut room = room(top_k);
        if slots == 0 {
            // No list is longer than its history.
            let longest = batch.as_ref().histories().max_length();
            room = room.min(longest.max(1));
        }
        let kept = KeptLists {
            tiles: plan.tiles.pointer(),
            lists: call.scratch(lists.saturating_mul(room * size_of::<u64>()))?,
            lengths: call.scratch(lists * size_of::<u32>())?,
            top_k: top_k as u32,
            room: room as u32,
            first_whole: fit(operation, "partial results", slots)?,
            unused: 0,
        };
        Ok(Self { plan, kept, candidates })
    }

    /// The pieces, each of which a block searches.
    pub(super) fn pieces(&self) -> (u64, usize) {
        (self.plan.pieces.pointer(), self.plan.plan.pieces.len())
    }

    /// Launches the selection among the lists: a block per candidate of a tile.
    pub(super) fn select(&self, call: &Call<'_>, found: Found) -> Result<()> {
        let KeptLists { tiles, lists, lengths, top_k, room, first_whole, .. } = self.kept;
        let params = SelectParams {
            tiles,
            lists,
            lengths,
            positions: found.positions,
            scores: found.scores,
            counts: found.counts,
            candidates: self.candidates as u32,
            top_k,
            room,
            first_whole,
        };
        let blocks = self.plan.plan.tiles.len() * self.candidates;
        let launch = if top_k as usize <= SELECT_TOP_K {
            SELECT.blocks(blocks)
        } else {
            SELECT_MANY.blocks(blocks).with_shared(select_bytes())
        };
        call.launch(&launch, &params)
    }
}

/// Bytes of dynamic shared memory of [`SELECT_MANY`]: eight entries per thread, a floor, and six counts.
pub(in crate::cuda) fn select_bytes() -> usize {
    8 * 1024 * size_of::<u64>() + size_of::<u64>() + 6 * size_of::<u32>()
}

/// Bytes of the lists of a block, of so many candidates that share so many entries: `Lists` in `kernels/selection/best.cuh`.
pub(super) fn list_bytes(candidates: usize, entries: usize) -> usize {
    (entries * size_of::<u64>() + candidates * (size_of::<u64>() + 2 * size_of::<u32>())).next_multiple_of(16)
}

/// The kernels of the selection.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![SELECT, SELECT_MANY]
}
