//! Batches on the device: plans are made and uploaded once, and used by all operations.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::Result;
use crate::gpu::{
    AttendCut, ChunkLimits, Chunks, DinLimits, DinParts, NONE, PartCache, PlanCache, UserRows, fit,
    known_offsets, lock, trace_plan,
};
use crate::jagged::{Batch, Jagged};
use crate::plan::{Cut, Plan};
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::Owner;
use crate::webgpu::state::Wgpu;

/// A [`Batch`] of a `wgpu` device.
#[derive(Debug)]
pub struct WgpuBatch {
    batch: Arc<Batch>,
    owner: Owner,
    plans: PlanCache<DevicePlan>,
    /// The chunks of the backward pass of decoupled embeddings.
    chunks: PlanCache<DeviceChunks, ChunkLimits>,
    /// Histories and targets on their own, for operations that process one after the other.
    sides: OnceLock<Box<[WgpuJagged; 2]>>,
    /// The parts of the backward pass of SDIM's `attend`.
    parts: PartCache<UserPart>,
    /// The parts of DIN's gradients.
    din: PlanCache<DinLists, DinLimits>,
}

/// The parts of DIN's gradients, and their lists on the device.
#[derive(Debug)]
pub(crate) struct DinLists {
    pub(crate) parts: DinParts,
    pub(crate) pieces: Binding,
    pub(crate) users: Binding,
}

/// Some users of a batch, whose rows are counted from 0.
#[derive(Debug)]
pub(crate) struct UserPart {
    /// The first of their rows in the whole batch.
    pub(crate) first_behaviour: usize,
    pub(crate) first_candidate: usize,
    pub(crate) batch: WgpuBatch,
}

/// A [`Jagged`] of a `wgpu` device.
#[derive(Debug)]
pub struct WgpuJagged {
    jagged: Jagged,
    /// A batch with one candidate per user, for operations that have one result per user: in the row of the user's slot.
    pub(crate) per_user: WgpuBatch,
    offsets: Mutex<Option<Binding>>,
    parts: Mutex<Option<BagParts>>,
}

/// Long bags cut into parts.
#[derive(Debug, Clone)]
pub(crate) struct BagParts {
    /// Where each part begins, and where the last one ends.
    pub(crate) edges: Binding,
    pub(crate) count: usize,
    /// `[first part, end]` of each bag. Every bag has a part.
    pub(crate) ranges: Binding,
}

/// Ids that one thread adds up.
const IDS_PER_PART: usize = 256;

/// Parts of a bag that one thread adds up.
const PARTS_PER_BAG: usize = 32_768;

/// A plan and its lists on the device.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    pub(crate) plan: Plan,
    /// Per tile: `[first_target, first_row, rows, user] [first_slot, slots, history start, history end]`.
    pub(crate) tiles: Binding,
    /// Per piece: `[first_target, first_row, rows, tile] [history start, history end, slot, length of the user's whole history]`.
    pub(crate) pieces: Binding,
    /// The tiles with several pieces, which have partial results, as in `tiles`.
    pub(crate) split_tiles: Binding,
    pub(crate) split_count: usize,
}

/// Chunks of behaviours and their lists on the device.
#[derive(Debug)]
pub(crate) struct DeviceChunks {
    pub(crate) chunks: Chunks,
    /// Per span: `[row, rows, first target, targets] [first pair, first partial result, 0, 0]`.
    pub(crate) spans: Binding,
    /// Per tile: `[span, first row]`.
    pub(crate) tiles: Binding,
    /// Per merge: `[first target, rows] [first partial result, step] [spans, 0]`.
    pub(crate) merges: Binding,
}

impl AsRef<Batch> for WgpuBatch {
    fn as_ref(&self) -> &Batch {
        &self.batch
    }
}

impl AsRef<Jagged> for WgpuJagged {
    fn as_ref(&self) -> &Jagged {
        &self.jagged
    }
}

impl WgpuBatch {
    pub(crate) fn new(batch: Batch, owner: Owner) -> Self {
        Self {
            batch: Arc::new(batch),
            owner,
            plans: PlanCache::default(),
            chunks: PlanCache::default(),
            sides: OnceLock::new(),
            parts: PartCache::default(),
            din: PlanCache::default(),
        }
    }

    /// The batch, for reports that outlive the call.
    pub(crate) fn shared(&self) -> &Arc<Batch> {
        &self.batch
    }

    pub(crate) fn sides(&self) -> Result<&[WgpuJagged; 2]> {
        if let Some(sides) = self.sides.get() {
            return Ok(sides);
        }
        let side = |jagged: &Jagged| WgpuJagged::new(jagged.clone(), self.owner.clone());
        let made = Box::new([side(self.batch.histories())?, side(self.batch.targets())?]);
        Ok(self.sides.get_or_init(|| made))
    }

    /// The parts of a cut, made at its first use.
    pub(crate) fn user_parts(&self, cut: &AttendCut) -> Result<Arc<Vec<UserPart>>> {
        self.parts.get_or_make(&self.batch, cut, |rows: UserRows| {
            Ok(UserPart {
                first_behaviour: rows.histories.start,
                first_candidate: rows.targets.start,
                batch: WgpuBatch::new(rows.batch, self.owner.clone()),
            })
        })
    }

    /// The parts of DIN's gradients within limits, made at their first use.
    pub(crate) fn din_parts(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        limits: &DinLimits,
    ) -> Result<Arc<DinLists>> {
        self.check_owner(gpu, operation)?;
        self.din.get_or_make(limits, || {
            let parts = DinParts::new(&self.batch, limits);
            let pieces = gpu.list(operation, bytemuck::cast_slice(&parts.pieces))?;
            let users = gpu.list(operation, bytemuck::cast_slice(&parts.users))?;
            Ok(DinLists { parts, pieces, users })
        })
    }

    /// Fails where another device made it.
    pub(crate) fn check_owner(&self, gpu: &Wgpu, operation: &'static str) -> Result<()> {
        gpu.check_owner(operation, "batch", Some(&self.owner))
    }

    pub(crate) fn plan(&self, gpu: &Wgpu, operation: &'static str, cut: &Cut) -> Result<Arc<DevicePlan>> {
        self.check_owner(gpu, operation)?;
        let made = self
            .plans
            .get_or_make(cut, || self.upload_plan(gpu, operation, cut, || Plan::new(&self.batch, cut)))?;
        trace_plan(operation, cut, &made.plan);
        Ok(made)
    }

    /// A plan over the newest behaviours of each user, at most so many. It is not kept.
    pub(crate) fn newest_plan(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        cut: &Cut,
        newest: usize,
    ) -> Result<DevicePlan> {
        self.check_owner(gpu, operation)?;
        let part = |history: Range<usize>| history.end - history.len().min(newest)..history.end;
        let made = self.upload_plan(gpu, operation, cut, || Plan::over(&self.batch, cut, part))?;
        trace_plan(operation, cut, &made.plan);
        Ok(made)
    }

    /// The chunks within limits, made at their first use.
    pub(crate) fn chunks(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        limits: &ChunkLimits,
    ) -> Result<Arc<DeviceChunks>> {
        self.check_owner(gpu, operation)?;
        self.chunks.get_or_make(limits, || {
            let chunks = Chunks::new(&self.batch, limits);
            let spans = chunks.spans.iter().flat_map(|span| {
                [span.row, span.rows, span.first_target, span.targets, span.pairs, span.partial, 0, 0]
            });
            let tiles = chunks.tiles.iter().flat_map(|tile| [tile.span, tile.first_row]);
            let merges =
                chunks.merges.iter().flat_map(|m| [m.first_target, m.rows, m.partial, m.step, m.spans, 0]);
            Ok(DeviceChunks {
                spans: gpu.list(operation, &spans.collect::<Vec<_>>())?,
                tiles: gpu.list(operation, &tiles.collect::<Vec<_>>())?,
                merges: gpu.list(operation, &merges.collect::<Vec<_>>())?,
                chunks,
            })
        })
    }

    /// Makes a plan whose numbers the kernels can count.
    fn upload_plan(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        cut: &Cut,
        make: impl FnOnce() -> Plan,
    ) -> Result<DevicePlan> {
        // The kernels count rows in 32 bits.
        fit(operation, "N", self.batch.histories().rows())?;
        fit(operation, "M·H", self.batch.targets().rows().saturating_mul(cut.rows_per_target))?;
        let plan = make();
        let word = |value: usize| value as u32;
        let tile_words = |index: usize| {
            let tile = plan.tiles[index];
            let history = self.batch.histories().range(tile.user);
            [tile.first_target, tile.first_row, tile.rows, tile.user]
                .into_iter()
                .chain([tile.first_slot, tile.slots, history.start, history.end])
                .map(word)
        };
        let tiles: Vec<u32> = (0..plan.tiles.len()).flat_map(tile_words).collect();
        let split: Vec<usize> = (0..plan.tiles.len()).filter(|&tile| plan.tiles[tile].slots > 0).collect();
        let split_tiles: Vec<u32> = split.iter().copied().flat_map(tile_words).collect();
        let pieces: Vec<u32> = plan
            .pieces
            .iter()
            .flat_map(|piece| {
                let tile = plan.tiles[piece.tile];
                [
                    word(tile.first_target),
                    word(tile.first_row),
                    word(tile.rows),
                    word(piece.tile),
                    word(piece.history.start),
                    word(piece.history.end),
                    piece.slot.map_or(NONE, word),
                    word(self.batch.histories().range(tile.user).len()),
                ]
            })
            .collect();
        Ok(DevicePlan {
            tiles: gpu.list(operation, &tiles)?,
            pieces: gpu.list(operation, &pieces)?,
            split_tiles: gpu.list(operation, &split_tiles)?,
            split_count: split.len(),
            plan,
        })
    }
}

impl WgpuJagged {
    pub(crate) fn new(jagged: Jagged, owner: Owner) -> Result<Self> {
        let per_user = WgpuBatch::new(Batch::per_user(&jagged)?, owner);
        Ok(Self { jagged, per_user, offsets: Mutex::default(), parts: Mutex::default() })
    }

    /// The parts of the bags, if some are so long that a thread must not add them up alone.
    pub(crate) fn parts(&self, gpu: &Wgpu, operation: &'static str) -> Result<Option<BagParts>> {
        let longest = self.jagged.max_length();
        if longest <= IDS_PER_PART {
            return Ok(None);
        }
        let mut parts = lock(&self.parts);
        if let Some(parts) = parts.as_ref() {
            return Ok(Some(parts.clone()));
        }
        fit(operation, "rows", self.jagged.rows())?;
        let length = longest.div_ceil(PARTS_PER_BAG).max(IDS_PER_PART);
        let (mut edges, mut ranges) = (Vec::new(), Vec::new());
        for bag in 0..self.jagged.users() {
            let ids = self.jagged.range(bag);
            ranges.push(edges.len() as u32);
            edges.extend(ids.clone().step_by(length).map(|start| start as u32));
            if ids.is_empty() {
                edges.push(ids.start as u32);
            }
            ranges.push(edges.len() as u32);
        }
        let count = edges.len();
        edges.push(self.jagged.total() as u32);
        let (edges, ranges) = (gpu.list(operation, &edges)?, gpu.list(operation, &ranges)?);
        Ok(Some(parts.insert(BagParts { edges, count, ranges }).clone()))
    }

    /// Fails where another device made it; `argument` is what the call names it.
    pub(crate) fn check_owner(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        argument: &'static str,
    ) -> Result<()> {
        gpu.check_owner(operation, argument, Some(&self.per_user.owner))
    }

    /// The offsets, `[users + 1]` words; `argument` is what the call names them.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Error::Unsupported) for sub-ranges, which have none.
    pub(crate) fn offsets(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        argument: &'static str,
    ) -> Result<Binding> {
        self.check_owner(gpu, operation, argument)?;
        let mut offsets = lock(&self.offsets);
        if let Some(offsets) = offsets.as_ref() {
            return Ok(offsets.clone());
        }
        fit(operation, "rows", self.jagged.rows())?;
        let known = known_offsets(operation, &self.jagged, "Wgpu")?;
        let words: Vec<u32> = known.iter().map(|&offset| offset as u32).collect();
        Ok(offsets.insert(gpu.list(operation, &words)?).clone())
    }

    /// Ascending edges between which the rows of users are, which share none, and the number of what is between them: as many as users,
    /// unless they are sub-ranges.
    pub(crate) fn edges(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        argument: &'static str,
    ) -> Result<(Binding, usize)> {
        if self.jagged.offsets().is_some() {
            return Ok((self.offsets(gpu, operation, argument)?, self.jagged.users()));
        }
        self.check_owner(gpu, operation, argument)?;
        fit(operation, "rows", self.jagged.rows())?;
        let words: Vec<u32> = self.jagged.edges().into_iter().map(|edge| edge as u32).collect();
        Ok((gpu.list(operation, &words)?, words.len() - 1))
    }
}
