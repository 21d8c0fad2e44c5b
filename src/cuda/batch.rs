//! Batches on the device: plans are made and uploaded once, at their first use, for every operation.

use std::sync::{Arc, Mutex};

use cudarc::driver::CudaStream;

use crate::cuda::decoupled::backward::DeviceChunks;
use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::interest_channels::parts::{ChannelsCut, DeviceParts};
use crate::cuda::target_attention::backward::{DeviceSpans, SpanCut};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{
    AttendCut, ChunkLimits, DinLimits, DinParts, NONE, PartCache, PlanCache, UserRows, fit, known_offsets,
    lock, trace_plan,
};
use crate::jagged::{Batch, Jagged};
use crate::plan::{Cut, Pace, Plan};

/// A [`Batch`] of a CUDA device.
#[derive(Debug)]
pub struct CudaBatch {
    batch: Arc<Batch>,
    stream: Arc<CudaStream>,
    plans: PlanCache<DevicePlan>,
    /// The spans of the backward pass of target attention.
    spans: PlanCache<DeviceSpans, SpanCut>,
    /// The chunks of the backward pass of decoupled embeddings.
    chunks: PlanCache<DeviceChunks, ChunkLimits>,
    /// The parts of the backward pass of SDIM's `attend`.
    parts: PartCache<UserPart>,
    /// The parts of DIN's gradients.
    din: PlanCache<DinLists, DinLimits>,
    /// The parts of interest channels.
    channels: PlanCache<DeviceParts, ChannelsCut>,
    /// Each user's newest behaviours, by their number.
    newest: PlanCache<Vec<CudaBatch>, usize>,
    /// Where histories end, after a 0, and the edges of sub-ranges.
    ends: Offsets,
    edges: Offsets,
}

/// Offsets, or ends, on the device: `[users + 1]`, 64 bits each; `None` until they are needed.
type Offsets = Mutex<Option<Arc<Allocation>>>;

/// The parts of DIN's gradients, and their lists on the device.
#[derive(Debug)]
pub(super) struct DinLists {
    pub(super) parts: DinParts,
    pub(super) pieces: Allocation,
    pub(super) users: Allocation,
}

/// Some users of a batch, whose rows are counted from 0.
#[derive(Debug)]
pub(super) struct UserPart {
    /// The first of their rows in the whole batch.
    pub(super) first_behaviour: usize,
    pub(super) first_candidate: usize,
    pub(super) histories: CudaJagged,
    pub(super) targets: CudaJagged,
    pub(super) batch: CudaBatch,
}

/// A [`Jagged`] of a CUDA device.
#[derive(Debug)]
pub struct CudaJagged {
    jagged: Jagged,
    /// A batch with one candidate per user, which stands for the user's row of results: the table of the user's slot.
    pub(super) per_user: CudaBatch,
    offsets: Offsets,
}

/// A plan and its lists on the device.
#[derive(Debug)]
pub(super) struct DevicePlan {
    pub(super) plan: Plan,
    /// A [`Tile`] per tile.
    pub(super) tiles: Allocation,
    /// A [`Piece`] per piece.
    pub(super) pieces: Allocation,
    /// The tiles that have partial results to combine, as in `tiles`.
    pub(super) split_tiles: Allocation,
    pub(super) split_count: usize,
}

twins! {
    /// Output rows of one user that read the history together: `kernels/shared/common.cuh`.
    pub(super) struct Tile {
        first_target: u64,
        history_start: u64,
        history_end: u64,
        first_row: u32,
        rows: u32,
        user: u32,
        first_slot: u32,
        slots: u32,
        unused: u32,
    }

    /// A tile against one span of its user's history: `kernels/shared/common.cuh`.
    pub(super) struct Piece {
        history_start: u64,
        first_target: u64,
        length: u32,
        first_row: u32,
        rows: u32,
        slot: u32,
        user: u32,
        tile: u32,
    }
}

impl AsRef<Batch> for CudaBatch {
    fn as_ref(&self) -> &Batch {
        &self.batch
    }
}

impl AsRef<Jagged> for CudaJagged {
    fn as_ref(&self) -> &Jagged {
        &self.jagged
    }
}

impl CudaBatch {
    pub(super) fn new(batch: Batch, stream: &Arc<CudaStream>) -> Self {
        Self {
            batch: Arc::new(batch),
            stream: stream.clone(),
            plans: PlanCache::default(),
            spans: PlanCache::default(),
            chunks: PlanCache::default(),
            parts: PartCache::default(),
            din: PlanCache::default(),
            channels: PlanCache::default(),
            newest: PlanCache::default(),
            ends: Offsets::default(),
            edges: Offsets::default(),
        }
    }

    /// Where the histories end, after a 0, on the device, uploaded at their first use: their offsets, unless they are sub-ranges.
    pub(super) fn history_ends(&self, gpu: &Cuda, operation: &'static str) -> Result<Arc<Allocation>> {
        self.check_stream(gpu, operation)?;
        let ends = || std::iter::once(0).chain(self.batch.histories().ranges().map(|range| range.end));
        upload_once(gpu, operation, ends, &self.ends)
    }

    /// Ascending edges between which the histories are, which share no rows, and the number of what is between them: as many as users,
    /// unless they are sub-ranges.
    pub(super) fn history_edges(
        &self,
        gpu: &Cuda,
        operation: &'static str,
    ) -> Result<(Arc<Allocation>, usize)> {
        let histories = self.batch.histories();
        if histories.offsets().is_some() {
            return Ok((self.history_ends(gpu, operation)?, histories.users()));
        }
        self.check_stream(gpu, operation)?;
        let edges = histories.edges();
        let count = edges.len() - 1;
        Ok((upload_once(gpu, operation, || edges.into_iter(), &self.edges)?, count))
    }

    /// The batch itself.
    pub(super) fn shared(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Fails where another stream's backend made it.
    pub(super) fn check_stream(&self, gpu: &Cuda, operation: &'static str) -> Result<()> {
        gpu.check_stream(operation, &self.stream)
    }

    /// The parts of DIN's gradients within limits, made at their first use.
    pub(super) fn din_parts(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        limits: &DinLimits,
    ) -> Result<Arc<DinLists>> {
        self.check_stream(gpu, operation)?;
        self.din.get_or_make(limits, || {
            let parts = DinParts::new(&self.batch, limits);
            let pieces = gpu.list(operation, &parts.pieces)?;
            Ok(DinLists { pieces, users: gpu.list(operation, &parts.users)?, parts })
        })
    }

    /// The plan for a cut, made at its first use.
    pub(super) fn plan(&self, gpu: &Cuda, operation: &'static str, cut: &Cut) -> Result<Arc<DevicePlan>> {
        gpu.check_stream(operation, &self.stream)?;
        self.plans.get_or_make(cut, || self.make_plan(gpu, operation, cut))
    }

    /// A plan with a tile for each candidate, and nothing else that is used.
    pub(super) fn candidates(&self, gpu: &Cuda, operation: &'static str) -> Result<Arc<DevicePlan>> {
        self.plan(
            gpu,
            operation,
            &Cut { rows_per_target: 1, tile_rows: 1, step: 1, longest: usize::MAX, pace: Pace::WHOLE },
        )
    }

    /// The newest behaviours of each user, at most `count`, with the same candidates: in parts of at most `most` of a user's, made at
    /// their first use. There is one part at least.
    pub(super) fn newest(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        count: usize,
        most: usize,
    ) -> Result<Arc<Vec<CudaBatch>>> {
        gpu.check_stream(operation, &self.stream)?;
        let histories = self.batch.histories();
        let count = count.min(histories.max_length());
        let newest = histories.newest(count);
        let part = |part: usize| -> Result<Self> {
            let ranges = newest.ranges().map(|newest| {
                let start = newest.end.min(newest.start + part * most);
                start..newest.end.min(start + most)
            });
            let part = Jagged::from_ranges(ranges.collect(), histories.rows());
            Ok(CudaBatch::new(Batch::new(part, self.batch.targets().clone())?, &self.stream))
        };
        self.newest.get_or_make(&count, || (0..count.div_ceil(most).max(1)).map(part).collect())
    }

    /// The spans for a cut, made at their first use.
    pub(super) fn cached_spans(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        cut: &SpanCut,
        make: impl FnOnce() -> Result<DeviceSpans>,
    ) -> Result<Arc<DeviceSpans>> {
        gpu.check_stream(operation, &self.stream)?;
        self.spans.get_or_make(cut, make)
    }

    /// The parts of interest channels for a cut, made at their first use.
    pub(super) fn channel_parts(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        cut: &ChannelsCut,
    ) -> Result<Arc<DeviceParts>> {
        gpu.check_stream(operation, &self.stream)?;
        self.channels.get_or_make(cut, || DeviceParts::new(gpu, operation, &self.batch, cut))
    }

    /// The chunks within limits, made at their first use.
    pub(super) fn chunks(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        limits: &ChunkLimits,
    ) -> Result<Arc<DeviceChunks>> {
        gpu.check_stream(operation, &self.stream)?;
        self.chunks.get_or_make(limits, || DeviceChunks::new(gpu, operation, &self.batch, limits))
    }

    /// The parts of a cut, made at its first use.
    pub(super) fn user_parts(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        cut: &AttendCut,
    ) -> Result<Arc<Vec<UserPart>>> {
        gpu.check_stream(operation, &self.stream)?;
        self.parts.get_or_make(&self.batch, cut, |rows: UserRows| {
            Ok(UserPart {
                first_behaviour: rows.histories.start,
                first_candidate: rows.targets.start,
                histories: CudaJagged::new(rows.batch.histories().clone(), &self.stream)?,
                targets: CudaJagged::new(rows.batch.targets().clone(), &self.stream)?,
                batch: CudaBatch::new(rows.batch, &self.stream),
            })
        })
    }

    fn make_plan(&self, gpu: &Cuda, operation: &'static str, cut: &Cut) -> Result<DevicePlan> {
        let plan = Plan::new(&self.batch, cut);
        trace_plan(operation, cut, &plan);
        let tile_of = |index: usize| {
            let tile = plan.tiles[index];
            let history = self.batch.histories().range(tile.user);
            Ok(Tile {
                first_target: tile.first_target as u64,
                history_start: history.start as u64,
                history_end: history.end as u64,
                first_row: fit(operation, "rows of a user", tile.first_row)?,
                rows: fit(operation, "rows of a tile", tile.rows)?,
                user: fit(operation, "users", tile.user)?,
                first_slot: fit(operation, "partial results", tile.first_slot)?,
                slots: fit(operation, "partial results", tile.slots)?,
                unused: 0,
            })
        };
        let tiles: Vec<Tile> = (0..plan.tiles.len()).map(tile_of).collect::<Result<_>>()?;
        let split: Vec<Tile> = tiles.iter().filter(|tile| tile.slots > 0).copied().collect();
        let piece_of = |piece: &crate::plan::Piece| {
            let tile = &tiles[piece.tile];
            Ok(Piece {
                history_start: piece.history.start as u64,
                first_target: tile.first_target,
                length: fit(operation, "length of one user", piece.history.len())?,
                first_row: tile.first_row,
                rows: tile.rows,
                slot: piece.slot.map_or(Ok(NONE), |slot| fit(operation, "partial results", slot))?,
                user: tile.user,
                tile: fit(operation, "tiles", piece.tile)?,
            })
        };
        let pieces: Vec<Piece> = plan.pieces.iter().map(piece_of).collect::<Result<_>>()?;
        Ok(DevicePlan {
            tiles: gpu.list(operation, &tiles)?,
            pieces: gpu.list(operation, &pieces)?,
            split_tiles: gpu.list(operation, &split)?,
            split_count: split.len(),
            plan,
        })
    }
}

impl CudaJagged {
    pub(super) fn new(jagged: Jagged, stream: &Arc<CudaStream>) -> Result<Self> {
        let per_user = CudaBatch::new(Batch::per_user(&jagged)?, stream);
        Ok(Self { jagged, per_user, offsets: Offsets::default() })
    }

    /// The offsets on the device: `[users + 1]`, 64 bits each.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Error::Unsupported) for sub-ranges, which have none.
    pub(super) fn offsets(&self, gpu: &Cuda, operation: &'static str) -> Result<Arc<Allocation>> {
        gpu.check_stream(operation, &self.per_user.stream)?;
        let offsets = known_offsets(operation, &self.jagged, "Cuda")?;
        upload_once(gpu, operation, || offsets.iter().copied(), &self.offsets)
    }
}

/// Uploads a list at its first use.
fn upload_once<I: Iterator<Item = usize>>(
    gpu: &Cuda,
    operation: &'static str,
    list: impl FnOnce() -> I,
    uploaded: &Offsets,
) -> Result<Arc<Allocation>> {
    let mut uploaded = lock(uploaded);
    if let Some(uploaded) = uploaded.as_ref() {
        return Ok(uploaded.clone());
    }
    let words: Vec<u64> = list().map(|offset| offset as u64).collect();
    Ok(uploaded.insert(Arc::new(gpu.list(operation, &words)?)).clone())
}
