//! The forward pass: `kernels/interest_channels/route.cu` and `kernels/interest_channels/interest_channels.cu`.

use crate::cuda::batch::{CudaBatch, DevicePlan, Tile};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::interest_channels::axes::{Axes, axes_bytes, dependent_record};
use crate::cuda::interest_channels::parts::{ChannelPiece, ChannelsCut, DeviceParts, Part};
use crate::cuda::interest_channels::{WORD, row_sizes};
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::selected::attend::sum_bytes;
use crate::cuda::selected::{MOST_THREADS, SLOTS_AHEAD, threads_for};
use crate::cuda::selection::Found;
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

const NAME: &str = "interest_channels";
const FILE: &str = "interest_channels";
/// The file of the kernels that send behaviours to channels.
const ROUTE_FILE: &str = "interest_channels_route";

const ROUTE: ByType = ByType([
    Kernel::new(ROUTE_FILE, "channels_route_f32", 128, 110),
    Kernel::new(ROUTE_FILE, "channels_route_f16", 128, 112),
    Kernel::new(ROUTE_FILE, "channels_route_bf16", 128, 112),
]);
/// A block for each channel.
const SELECT: Kernel = Kernel::new(FILE, "channels_select", 512, 40);
/// A block for each channel.
const POOL: ByType = ByType([
    Kernel::new(FILE, "channels_pool_f32", MOST_THREADS as u32, 79),
    Kernel::new(FILE, "channels_pool_f16", MOST_THREADS as u32, 79),
    Kernel::new(FILE, "channels_pool_bf16", MOST_THREADS as u32, 79),
]);
/// The most entries that a block of [`SELECT`] sorts in shared memory, and the fewest places of a sort.
const SHARED_ENTRIES: usize = 2048;
const FEWEST_PLACES: usize = 32;

twins! {
    /// `kernels/interest_channels/route.cu`
    pub(in crate::cuda) struct ChannelsRouteParams {
        pieces: u64,
        axes: u64,
        states: u64,
        history: u64,
        keys: u64,
        routed: u64,
        channels: u32,
        width: u32,
        all: u32,
        vectors: u32,
    }

    /// `kernels/interest_channels/interest_channels.cu`
    pub(in crate::cuda) struct ChannelsSelectParams {
        tiles: u64,
        first_pairs: u64,
        keys: u64,
        routed: u64,
        states: u64,
        positions: u64,
        scores: u64,
        counts: u64,
        weights: u64,
        entries: u64,
        channels: u32,
        top_k: u32,
        pitch: u32,
        places: u32,
        all: u32,
        unused: u32,
    }

    /// `kernels/interest_channels/interest_channels.cu`
    pub(in crate::cuda) struct ChannelsPoolParams {
        tiles: u64,
        history: u64,
        states: u64,
        positions: u64,
        counts: u64,
        weights: u64,
        sums: u64,
        out: u64,
        channels: u32,
        width: u32,
        pitch: u32,
        top_k: u32,
    }
}

pub(super) fn write<T: Element>(
    gpu: &Cuda,
    op: &InterestChannels,
    batch: &CudaBatch,
    inputs: &InterestChannelsInputs<'_, CudaMemory, T>,
    outputs: &InterestChannelsOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), outputs)?;
    batch.check_stream(gpu, NAME)?;
    let matrices = gpu.region(NAME, &inputs.axes)?.pointer;
    let history = gpu.region(NAME, &inputs.history)?;
    let out = gpu.region_mut(NAME, &outputs.out)?.pointer;
    let kept = outputs.kept.as_ref().map(|kept| Found::of(gpu, NAME, kept)).transpose()?;
    // Without candidates, parameters may have any size.
    if batch.as_ref().targets().total() == 0 {
        return Ok(());
    }
    let sizes = Sizes::new(op, batch, kept.is_some())?;
    let parts = batch.channel_parts(gpu, NAME, &sizes.cut(op, kept.is_some()))?;
    let tiles = batch.candidates(gpu, NAME)?;
    let mut call = gpu.begin(NAME);
    let dependent = dependent_record(&call, op, batch)?;
    let pass = Pass { op, sizes, parts: &parts, tiles: &tiles, matrices, history, out, kept, dependent };
    call.parts(&parts.parts, |call, part| pass.run(call, part))?;
    call.finish()
}

/// What kernels count.
#[derive(Clone, Copy)]
struct Sizes {
    width: u32,
    channels: u32,
    /// The most that a channel keeps, and the slots of a channel where positions are written.
    top_k: usize,
    pitch: u32,
    /// The places of a sort.
    places: usize,
    /// Keys of a pair.
    keys: usize,
}

impl Sizes {
    fn new(op: &InterestChannels, batch: &CudaBatch, writes_kept: bool) -> Result<Self> {
        let [width, channels] = row_sizes(NAME, op)?;
        let longest = batch.as_ref().histories().max_length();
        let top_k = op.top_k.min(longest).max(1);
        let pitch = if writes_kept { op.top_k } else { top_k };
        // Loops step past the end.
        fit(NAME, "top_k", pitch.max(longest).saturating_add(SLOTS_AHEAD))?;
        let places = top_k.next_power_of_two().max(FEWEST_PLACES);
        let keys = if op.among == KeptAmong::All { op.channels } else { 1 };
        Ok(Self { width, channels, top_k, pitch: pitch as u32, places, keys })
    }

    /// Whether entries are sorted in device memory.
    fn sorts_outside(&self) -> bool {
        self.places > SHARED_ENTRIES
    }

    fn cut(&self, op: &InterestChannels, writes_kept: bool) -> ChannelsCut {
        let positions = if writes_kept { 0 } else { self.top_k * WORD + WORD };
        let entries = if self.sorts_outside() { self.places * size_of::<u64>() } else { 0 };
        let sums = if op.normalise { op.width * WORD } else { 0 };
        let each = (self.top_k * WORD).saturating_add(positions).saturating_add(entries).saturating_add(sums);
        ChannelsCut {
            channels: op.channels,
            pair_bytes: self.keys.saturating_add(1).saturating_mul(WORD),
            target_bytes: op.channels.saturating_mul(each).saturating_add(axes_bytes(op)),
        }
    }
}

/// What all parts have in common.
struct Pass<'a, T: Element> {
    op: &'a InterestChannels,
    sizes: Sizes,
    parts: &'a DeviceParts,
    tiles: &'a DevicePlan,
    matrices: u64,
    history: Region<T>,
    out: u64,
    kept: Option<Found>,
    dependent: u64,
}

impl<T: Element> Pass<'_, T> {
    fn run(&self, call: &mut Call<'_>, part: &Part) -> Result<()> {
        let Self { op, sizes, .. } = *self;
        let Sizes { width, channels, top_k, pitch, .. } = sizes;
        let targets = part.targets.clone();
        let (first, lists) = (targets.start * op.channels, targets.len().saturating_mul(op.channels));
        let axes = Axes::new::<T>(call, op, (self.matrices, targets.clone()), self.dependent, false)?;
        let (keys, routed) = self.route(call, &axes, part)?;
        let found = match self.kept {
            Some(kept) => from_list(kept, first, op.top_k),
            None => Found {
                positions: call.scratch(lists.saturating_mul(top_k).saturating_mul(WORD))?,
                scores: 0,
                counts: call.scratch(lists.saturating_mul(WORD))?,
            },
        };
        let tiles = self.tiles.tiles.pointer() + (targets.start * size_of::<Tile>()) as u64;
        let entries = lists.saturating_mul(sizes.places).saturating_mul(size_of::<u64>());
        let params = ChannelsSelectParams {
            tiles,
            first_pairs: self.parts.first_pairs.pointer() + (targets.start * size_of::<u64>()) as u64,
            keys,
            routed,
            states: axes.states(),
            positions: found.positions,
            scores: found.scores,
            counts: found.counts,
            weights: call.scratch(lists.saturating_mul(top_k).saturating_mul(WORD))?,
            entries: if sizes.sorts_outside() { call.scratch(entries)? } else { 0 },
            channels,
            top_k: top_k as u32,
            pitch,
            places: fit(NAME, "top_k", sizes.places)?,
            all: u32::from(op.among == KeptAmong::All),
            unused: 0,
        };
        call.launch(&SELECT.blocks(lists), &params)?;
        let sums = lists.saturating_mul(op.width).saturating_mul(WORD);
        let pooled = ChannelsPoolParams {
            tiles,
            history: self.history.pointer,
            states: params.states,
            positions: params.positions,
            counts: params.counts,
            weights: params.weights,
            sums: if op.normalise { call.scratch(sums)? } else { 0 },
            out: self.out + (first * op.width * size_of::<T>()) as u64,
            channels,
            width,
            pitch,
            top_k: params.top_k,
        };
        let threads = threads_for::<T>(op.width, top_k);
        let launch = POOL.of::<T>().blocks(lists).with_threads(threads);
        call.launch(&launch.with_shared(sum_bytes::<T>(threads)), &pooled)
    }

    /// Sends the behaviours of a part to channels: keys of scores, and the channels.
    fn route(&self, call: &mut Call<'_>, axes: &Axes, part: &Part) -> Result<(u64, u64)> {
        let bytes = part.pairs.saturating_mul(WORD);
        let params = ChannelsRouteParams {
            pieces: self.parts.pieces.pointer() + (part.pieces.start * size_of::<ChannelPiece>()) as u64,
            axes: axes.rows(),
            states: axes.states(),
            history: self.history.pointer,
            keys: call.scratch(bytes.saturating_mul(self.sizes.keys))?,
            routed: call.scratch(bytes)?,
            channels: self.sizes.channels,
            width: self.sizes.width,
            all: u32::from(self.op.among == KeptAmong::All),
            vectors: u32::from(self.history.vectors(self.op.width, 16)),
        };
        call.launch(&ROUTE.of::<T>().blocks(part.pieces.len()), &params)?;
        Ok((params.keys, params.routed))
    }
}

/// What is kept from a channel on, of so many slots each.
fn from_list(kept: Found, list: usize, top_k: usize) -> Found {
    let slots = (list * top_k * WORD) as u64;
    let (positions, scores) = (kept.positions + slots, kept.scores + slots);
    Found { positions, scores, counts: kept.counts + (list * WORD) as u64 }
}

/// All kernels of these files.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [ROUTE.0, POOL.0].concat().into_iter().chain([SELECT]).collect()
}
