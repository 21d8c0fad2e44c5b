//! Gradients: `kernels/interest_channels/backward.cu`, the sums by row of `kernels/lookup/`, and the way back through the axes.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::interest_channels::axes::{Axes, dependent_record};
use crate::cuda::interest_channels::{WORD, row_sizes};
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::lookup::backward::{OwnSort, STEP, heads};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selected::attend::sum_bytes;
use crate::cuda::selected::backward::{job, narrowed};
use crate::cuda::selected::{MOST_THREADS, SLOTS_AHEAD, threads_for};
use crate::cuda::selection::Found;
use crate::cuda::twin::twins;
use crate::element::{DType, Element, GradientOf};
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::View;
use crate::ops::*;

const NAME: &str = "interest_channels_backward";
const FILE: &str = "interest_channels_backward";
/// A block for each channel.
const GRADIENTS: ByType = ByType([
    Kernel::new(FILE, "channels_gradients_f32", MOST_THREADS as u32, 80),
    Kernel::new(FILE, "channels_gradients_f16", MOST_THREADS as u32, 80),
    Kernel::new(FILE, "channels_gradients_bf16", MOST_THREADS as u32, 80),
]);

twins! {
    /// `kernels/interest_channels/backward.cu`
    pub(in crate::cuda) struct ChannelsGradientParams {
        tiles: u64,
        history: u64,
        axes: u64,
        states: u64,
        positions: u64,
        counts: u64,
        bad_counts: u64,
        bad_positions: u64,
        grad_out: u64,
        places: u64,
        weights: u64,
        slopes: u64,
        sums: u64,
        sum_grads: u64,
        axis_grads: u64,
        rows: u64,
        score_bags: u64,
        slope_bags: u64,
        channels: u32,
        width: u32,
        top_k: u32,
        unused: u32,
    }
}

/// How much there is.
#[derive(Clone, Copy)]
struct Sizes {
    behaviours: usize,
    candidates: usize,
    /// `M·c`, `M·c·K` and `M·c·d`.
    lists: usize,
    slots: usize,
    numbers: usize,
}

impl Sizes {
    fn new(op: &InterestChannels, batch: &CudaBatch) -> Result<Self> {
        let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
        let lists = targets.total().saturating_mul(op.channels);
        let slots = lists.saturating_mul(op.top_k);
        // Loops step past the end.
        fit(NAME, "positions", slots.saturating_add(STEP + SLOTS_AHEAD).max(lists))?;
        // A row is a key of the sort.
        fit(NAME, "history", histories.total())?;
        let numbers = lists.saturating_mul(op.width);
        Ok(Self { behaviours: histories.total(), candidates: targets.total(), lists, slots, numbers })
    }
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Cuda,
    op: &InterestChannels,
    batch: &CudaBatch,
    inputs: &InterestChannelsInputs<'_, CudaMemory, T>,
    (saved, grad_out): (&InterestChannelsSaved<'_, CudaMemory>, &View<'_, CudaMemory, T>),
    grads: &InterestChannelsGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, saved, grad_out.len(), grads)?;
    batch.check_stream(gpu, NAME)?;
    let matrices = gpu.region(NAME, &inputs.axes)?.pointer;
    let history = gpu.region(NAME, &inputs.history)?.pointer;
    let kept = Found::given(gpu, NAME, &saved.kept)?;
    let grad_out = gpu.region(NAME, grad_out)?.pointer;
    let grad_axes = gpu.asked(NAME, grads.axes.as_ref())?.pointer;
    let grad_history = gpu.asked(NAME, grads.history.as_ref())?.pointer;
    // Without candidates and behaviours, parameters may have any size.
    if batch.as_ref().targets().total() == 0 && batch.as_ref().histories().total() == 0 {
        return Ok(());
    }
    let [width, channels] = row_sizes(NAME, op)?;
    let sizes = Sizes::new(op, batch)?;
    let tiles = batch.candidates(gpu, NAME)?;
    let mut call = gpu.begin(NAME);
    let dependent = dependent_record(&call, op, batch)?;
    let axes = Axes::new::<T>(&mut call, op, (matrices, 0..sizes.candidates), dependent, grad_axes != 0)?;
    let counts = Bound::Columns(vec![(op.top_k as u64).saturating_add(1)]);
    let slots_each = op.channels.saturating_mul(op.top_k);
    let positions = Bound::History(batch.shared().clone(), slots_each);
    let (bad_counts, bad_positions) =
        (call.record("counts", sizes.lists, counts)?, call.record("positions", sizes.slots, positions)?);
    let mut words = |is_wanted: bool, count: usize| match is_wanted {
        true => call.scratch(count.saturating_mul(WORD)),
        false => Ok(0),
    };
    let (asks_history, slots) = (grad_history != 0, sizes.slots);
    let params = ChannelsGradientParams {
        tiles: tiles.tiles.pointer(),
        history,
        axes: axes.rows(),
        states: axes.states(),
        positions: kept.positions,
        counts: kept.counts,
        bad_counts,
        bad_positions,
        grad_out,
        places: words(true, slots)?,
        weights: words(true, slots)?,
        slopes: words(true, slots)?,
        sums: words(op.normalise, sizes.numbers)?,
        sum_grads: words(true, sizes.numbers)?,
        axis_grads: words(grad_axes != 0, sizes.numbers)?,
        rows: words(asks_history, slots)?,
        score_bags: words(asks_history, slots.saturating_mul(2))?,
        slope_bags: words(asks_history, slots.saturating_mul(2))?,
        channels,
        width,
        // Without candidates there may be more, and nothing reads them.
        top_k: op.top_k as u32,
        unused: 0,
    };
    let threads = threads_for::<T>(op.width, op.top_k);
    let launch = GRADIENTS.of::<T>().blocks(sizes.lists).with_threads(threads);
    call.launch(&launch.with_shared(sum_bytes::<T>(threads)), &params)?;
    if grad_axes != 0 {
        axes.gradients::<T, G>(&mut call, params.axis_grads, grad_axes)?;
    }
    if asks_history {
        sum_by_behaviour::<G>(&mut call, op, sizes, &params, grad_history)?;
    }
    call.finish()
}

/// Sorts the slots by behaviour, and adds up what each gets from both rows of channels.
fn sum_by_behaviour<G: Element>(
    call: &mut Call<'_>,
    op: &InterestChannels,
    sizes: Sizes,
    params: &ChannelsGradientParams,
    out: u64,
) -> Result<()> {
    let Sizes { behaviours, slots, .. } = sizes;
    let count = behaviours.saturating_mul(op.width);
    let shape = (op.width, behaviours);
    let sort = OwnSort::new(call, slots)?;
    let heads = heads(call, &[&job(0, shape, 0)], slots)?;
    let column = Column {
        ids: params.rows,
        more_ids: 0,
        records: [0, 0],
        lengths: [slots; 2],
        features: 1,
        feature: 0,
        rows: behaviours,
    };
    let runs = sort.sort_column(call, &column)?;
    let first = match G::DTYPE {
        DType::F32 => out,
        _ => call.scratch(count.saturating_mul(WORD))?,
    };
    let second = call.scratch(count.saturating_mul(WORD))?;
    job(params.sum_grads, shape, first).run(call, &runs, params.score_bags, heads)?;
    job(params.axes, shape, second).run(call, &runs, params.slope_bags, heads)?;
    narrowed::<G>(call, [first, second], out, count)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    GRADIENTS.0.to_vec()
}
