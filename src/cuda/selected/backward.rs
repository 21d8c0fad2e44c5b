//! Gradients: `kernels/selected/backward.cu`, and the sums by row of `kernels/lookup/`.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::lookup::backward::{Job, OwnSort, Runs, STEP, heads};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::selected::attend::sum_bytes;
use crate::cuda::selected::{MOST_THREADS, Readers, SelectedInputs};
use crate::cuda::tables::COLUMNS;
use crate::cuda::twin::twins;
use crate::element::{DType, Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

const NAME: &str = "selected_attention_backward";
const FILE: &str = "selected_backward";
const THREADS: u32 = MOST_THREADS as u32;
const WORD: usize = size_of::<u32>();

/// Computes what each slot gives, and the gradients of queries. A block for each head of each candidate.
pub(super) const GRADIENTS: ByType = ByType([
    Kernel::new(FILE, "selected_gradients_f32", THREADS, 80),
    Kernel::new(FILE, "selected_gradients_f16", THREADS, 80),
    Kernel::new(FILE, "selected_gradients_bf16", THREADS, 80),
]);
/// Makes rows `f32`.
const WIDEN: ByType = ByType([
    Kernel::new(FILE, "selected_widen_f32", THREADS, 10),
    Kernel::new(FILE, "selected_widen_f16", THREADS, 12),
    Kernel::new(FILE, "selected_widen_bf16", THREADS, 12),
]);
/// Stores sums, or sums of two.
const NARROW: ByType = ByType([
    Kernel::new(FILE, "selected_narrow_f32", THREADS, 12),
    Kernel::new(FILE, "selected_narrow_f16", THREADS, 12),
    Kernel::new(FILE, "selected_narrow_bf16", THREADS, 12),
]);
/// Adds up gradients of `γ` over candidates, and of similarities over heads.
const GAMMAS: Kernel = Kernel::new(FILE, "selected_gammas", THREADS, 25);
const SIMILARITIES: Kernel = Kernel::new(FILE, "selected_similarities", THREADS, 32);

twins! {
    /// `kernels/selected/backward.cu`
    pub(in crate::cuda) struct SelectedGradientParams {
        pub(super) inputs: SelectedInputs,
        pub(super) grad_out: u64,
        pub(super) grad_lse: u64,
        pub(super) places: u64,
        pub(super) weights: u64,
        pub(super) scores: u64,
        pub(super) grads: u64,
        pub(super) grad_queries: u64,
        pub(super) grad_similarities: u64,
        pub(super) grad_gammas: u64,
        pub(super) key_rows: u64,
        pub(super) bias_rows: u64,
        pub(super) score_bags: u64,
        pub(super) weight_bags: u64,
        pub(super) zeros: u32,
        pub(super) needs_grads: u32,
        pub(super) wide: u32,
        pub(super) unused: u32,
    }

    /// `kernels/selected/backward.cu`
    pub(in crate::cuda) struct SelectedWidenParams {
        rows: u64,
        out: u64,
        count: u64,
        total: u64,
    }

    /// `kernels/selected/backward.cu`
    pub(in crate::cuda) struct SelectedNarrowParams {
        first: u64,
        second: u64,
        out: u64,
        count: u64,
    }

    /// `kernels/selected/backward.cu`
    pub(in crate::cuda) struct SelectedGammasParams {
        parts: u64,
        out: u64,
        candidates: u64,
        numbers: u32,
        unused: u32,
    }

    /// `kernels/selected/backward.cu`
    pub(in crate::cuda) struct SelectedSimilaritiesParams {
        parts: u64,
        out: u64,
        slots: u64,
        top_k: u32,
        heads: u32,
    }
}

/// Where gradients go; 0: not asked for.
#[derive(Clone, Copy)]
struct Out {
    queries: u64,
    keys: u64,
    values: u64,
    bias: u64,
    gammas: u64,
    similarities: u64,
}

/// How much there is.
#[derive(Clone, Copy)]
struct Sizes {
    behaviours: usize,
    candidates: usize,
    /// `M·H`.
    queries: usize,
    /// `M·H·K`.
    slots: usize,
}

impl Sizes {
    fn new(op: &SelectedAttention, batch: &CudaBatch) -> Result<Self> {
        let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
        let (behaviours, candidates) = (histories.total(), targets.total());
        let queries = candidates.saturating_mul(op.heads);
        let slots = queries.saturating_mul(op.top_k);
        // Loops step past the end; there is a row of zeros after those of queries.
        fit(NAME, "positions", slots.saturating_add(STEP).max(queries.saturating_add(1)))?;
        // A row is a key of the sort.
        fit(NAME, "keys", behaviours.saturating_mul(op.heads))?;
        for (argument, width) in [("width", op.width), ("value_width", op.value_width)] {
            // Kernels count the bytes of a row in 32 bits.
            fit(NAME, argument, width.saturating_add(COLUMNS).saturating_mul(WORD))?;
        }
        Ok(Self { behaviours, candidates, queries, slots })
    }
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Cuda,
    op: &SelectedAttention,
    batch: &CudaBatch,
    (inputs, grad_out): (
        &SelectedAttentionInputs<'_, CudaMemory, T>,
        &SelectedAttentionGradOut<'_, CudaMemory, T>,
    ),
    grads: &SelectedAttentionGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, grad_out, grads)?;
    let out = Out {
        queries: gpu.asked(NAME, grads.queries.as_ref())?.pointer,
        keys: gpu.asked(NAME, grads.keys.as_ref())?.pointer,
        values: gpu.asked(NAME, grads.values.as_ref())?.pointer,
        bias: gpu.asked(NAME, grads.bias.as_ref())?.pointer,
        gammas: gpu.asked(NAME, grads.gammas.as_ref())?.pointer,
        similarities: gpu.asked(NAME, grads.similarities.as_ref())?.pointer,
    };
    let grad_lse = gpu.optional(NAME, grad_out.lse.as_ref())?;
    let grad_out = gpu.region(NAME, &grad_out.out)?.pointer;
    let is_aliased = inputs.values.is_none();
    let sizes = Sizes::new(op, batch)?;
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    let readers = Readers::new(gpu, call, op, batch, inputs)?;
    let wants = Wants { out, weights: out.values != 0 || is_aliased && out.keys != 0 };
    let params = gradients::<T, G>(call, op, (&readers, grad_out, grad_lse), &wants, sizes)?;
    totals(call, op, &params, out, sizes)?;
    if out.keys != 0 || out.values != 0 || out.bias != 0 {
        Sums::new(call, op, sizes, out)?.run::<T, G>(call, op, &params, (out, is_aliased))?;
    }
    call.finish()
}

/// What is asked for.
struct Wants {
    out: Out,
    /// Whether behaviours get something from weights.
    weights: bool,
}

/// Computes what each slot gives, and the gradients of queries.
fn gradients<T: Element, G: Element>(
    call: &mut Call<'_>,
    op: &SelectedAttention,
    (readers, grad_out, grad_lse): (&Readers, u64, u64),
    wants: &Wants,
    sizes: Sizes,
) -> Result<SelectedGradientParams> {
    let out = wants.out;
    let mut words = |is_wanted: bool, count: usize| match is_wanted {
        true => call.scratch(count.saturating_mul(WORD)),
        false => Ok(0),
    };
    let slots = sizes.slots;
    let has_rows = out.keys != 0 || out.values != 0 || out.bias != 0;
    let params = SelectedGradientParams {
        inputs: readers.inputs,
        grad_out,
        grad_lse,
        places: words(true, slots)?,
        weights: words(true, slots)?,
        scores: words(true, slots)?,
        grads: words(true, slots)?,
        grad_queries: out.queries,
        // Of one head they are those of the similarities.
        grad_similarities: match op.heads {
            1 => out.similarities,
            _ => words(out.similarities != 0, slots)?,
        },
        grad_gammas: words(out.gammas != 0, sizes.queries.saturating_mul(3))?,
        key_rows: words(has_rows, slots)?,
        bias_rows: words(out.bias != 0 && op.heads != op.kv_heads, slots)?,
        score_bags: words(out.keys != 0, slots.saturating_mul(2))?,
        weight_bags: words(wants.weights, slots.saturating_mul(2))?,
        zeros: sizes.queries as u32,
        needs_grads: u32::from([out.queries, out.keys, out.bias, out.gammas, out.similarities] != [0; 5]),
        wide: u32::from(G::DTYPE == DType::F32),
        unused: 0,
    };
    let launch = GRADIENTS.of::<T>().blocks(readers.blocks).with_threads(readers.threads);
    call.launch(&launch.with_shared(sum_bytes::<T>(readers.threads)), &params)?;
    Ok(params)
}

/// Adds up gradients of `γ` and of similarities.
fn totals(
    call: &Call<'_>,
    op: &SelectedAttention,
    params: &SelectedGradientParams,
    out: Out,
    sizes: Sizes,
) -> Result<()> {
    if out.gammas != 0 {
        add_gammas(call, op, (params.grad_gammas, out.gammas), sizes.candidates)?;
    }
    if out.similarities != 0 && op.heads > 1 {
        let slots = sizes.candidates.saturating_mul(op.top_k);
        add_similarities(call, params, out.similarities, slots)?;
    }
    Ok(())
}

/// Adds up what candidates add to the gradients of `γ`.
pub(super) fn add_gammas(
    call: &Call<'_>,
    op: &SelectedAttention,
    (parts, out): (u64, u64),
    candidates: usize,
) -> Result<()> {
    let numbers = op.heads.saturating_mul(3);
    let gammas = SelectedGammasParams {
        parts,
        out,
        candidates: candidates as u64,
        numbers: fit(call.operation, "heads", numbers)?,
        unused: 0,
    };
    call.launch(&GAMMAS.blocks(numbers), &gammas)
}

/// Adds up what heads add to the gradients of the similarities of so many slots.
pub(super) fn add_similarities(
    call: &Call<'_>,
    params: &SelectedGradientParams,
    out: u64,
    slots: usize,
) -> Result<()> {
    let similarities = SelectedSimilaritiesParams {
        parts: params.grad_similarities,
        out,
        slots: slots as u64,
        top_k: params.inputs.top_k,
        heads: params.inputs.heads,
    };
    call.launch(&SIMILARITIES.blocks(slots.div_ceil(MOST_THREADS)), &similarities)
}

/// Memory for sums over the slots of each row.
struct Sums {
    sort: OwnSort,
    heads: u64,
    sizes: Sizes,
}

impl Sums {
    fn new(call: &mut Call<'_>, op: &SelectedAttention, sizes: Sizes, out: Out) -> Result<Self> {
        // The widest of the rows that are summed.
        let width = match (out.keys, out.values) {
            (0, 0) => 1,
            _ => op.width.max(op.value_width),
        };
        let job = job(0, (width, 0), 0);
        Ok(Self { sort: OwnSort::new(call, sizes.slots)?, heads: heads(call, &[&job], sizes.slots)?, sizes })
    }

    /// Sorts the slots, and sums what they give to keys, values and bias.
    fn run<T: Element, G: Element>(
        &self,
        call: &mut Call<'_>,
        op: &SelectedAttention,
        params: &SelectedGradientParams,
        (out, is_aliased): (Out, bool),
    ) -> Result<()> {
        let Sizes { behaviours, queries, .. } = self.sizes;
        let rows = behaviours * op.kv_heads;
        let mut runs = self.sorted(call, params.key_rows, rows)?;
        let is_direct = G::DTYPE == DType::F32;
        if out.values != 0 {
            let grad_out = widened::<T>(call, params.grad_out, (queries, op.value_width), 0)?;
            let count = rows.saturating_mul(op.value_width);
            let sum = if is_direct { out.values } else { call.scratch(count.saturating_mul(WORD))? };
            let job = job(grad_out, (op.value_width, rows), sum);
            job.run(call, &runs, params.weight_bags, self.heads)?;
            narrowed::<G>(call, [sum, 0], out.values, count)?;
        }
        if out.keys != 0 {
            let with_zeros = widened::<T>(call, params.inputs.queries, (queries, op.width), 1)?;
            let count = rows.saturating_mul(op.width);
            let sum = if is_direct { out.keys } else { call.scratch(count.saturating_mul(WORD))? };
            let keys = job(with_zeros, (op.width, rows), sum);
            keys.run(call, &runs, params.score_bags, self.heads)?;
            let mut second = 0;
            if is_aliased {
                let grad_out = widened::<T>(call, params.grad_out, (queries, op.width), 0)?;
                second = call.scratch(count.saturating_mul(WORD))?;
                let values = job(grad_out, (op.width, rows), second);
                values.run(call, &runs, params.weight_bags, self.heads)?;
            }
            narrowed::<G>(call, [sum, second], out.keys, count)?;
        }
        if out.bias != 0 {
            let rows = behaviours * op.heads;
            if params.bias_rows != 0 {
                runs = self.sorted(call, params.bias_rows, rows)?;
            }
            // Each slot is its own row, of one number.
            job(params.grads, (1, rows), out.bias).run(call, &runs, 0, self.heads)?;
        }
        Ok(())
    }

    /// The slots by row; those of an earlier sort are lost.
    fn sorted(&self, call: &Call<'_>, ids: u64, rows: usize) -> Result<Runs> {
        let lengths = [self.sizes.slots; 2];
        let records = [0, 0];
        self.sort
            .sort_column(call, &Column { ids, more_ids: 0, records, lengths, features: 1, feature: 0, rows })
    }
}

/// Sums of rows of `f32`, for each row of a dense gradient.
pub(in crate::cuda) fn job(grad: u64, (width, rows): (usize, usize), out: u64) -> Job {
    Job { grad: Region::new(grad, 0), grad_width: width, width, rows, out, sparse: None }
}

/// Rows as `f32`, with some rows of zeros after them. Those that are so already stay where they are.
pub(super) fn widened<T: Element>(
    call: &mut Call<'_>,
    rows: u64,
    (count, width): (usize, usize),
    zeros: usize,
) -> Result<u64> {
    if T::DTYPE == DType::F32 && zeros == 0 {
        return Ok(rows);
    }
    let [count, total] = [count, count.saturating_add(zeros)].map(|rows| rows.saturating_mul(width));
    let out = call.scratch(total.saturating_mul(WORD))?;
    widen::<T>(call, [rows, out], [count, total])?;
    Ok(out)
}

/// Writes so many numbers as `f32`, and zeros after them, up to so many in total.
pub(super) fn widen<T: Element>(
    call: &Call<'_>,
    [rows, out]: [u64; 2],
    [count, total]: [usize; 2],
) -> Result<()> {
    let params = SelectedWidenParams { rows, out, count: count as u64, total: total as u64 };
    call.launch(&WIDEN.of::<T>().blocks(total.div_ceil(MOST_THREADS)), &params)
}

/// Stores sums, unless that is done.
pub(in crate::cuda) fn narrowed<G: Element>(
    call: &Call<'_>,
    [first, second]: [u64; 2],
    out: u64,
    count: usize,
) -> Result<()> {
    if first == out && second == 0 {
        return Ok(());
    }
    let params = SelectedNarrowParams { first, second, out, count: count as u64 };
    call.launch(&NARROW.of::<G>().blocks(count.div_ceil(MOST_THREADS)), &params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [GRADIENTS.0, WIDEN.0, NARROW.0].concat().into_iter().chain([GAMMAS, SIMILARITIES]).collect()
}
