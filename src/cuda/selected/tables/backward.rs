//! Gradients of attention over a selection from tables.
//!
//! The kernels of selections of rows find the numbers of the slots; what each slot adds to the row of its behaviour is written out, and
//! added up by id for tables, and by behaviour for keys that are rows and for the bias.

use std::ops::Range;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::backward::{Job, OwnSort, STEP, heads, jobs};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::selected::MOST_THREADS;
use crate::cuda::selected::attend::sum_bytes;
use crate::cuda::selected::backward::{
    GRADIENTS, SelectedGradientParams, add_gammas, add_similarities, job, narrowed, widened,
};
use crate::cuda::selected::tables::{FILE, Gathered, Keys, Source, WORD, threads_of};
use crate::cuda::twin::twins;
use crate::element::{DType, Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

const NAME: &str = "selected_table_attention_backward";
/// Writes what slots add to the gradients of rows. A block for each slot.
pub(super) const SLOT_ROWS: Kernel = Kernel::new(FILE, "selected_slot_rows", MOST_THREADS as u32, 28);

twins! {
    /// `kernels/selected/tables.cu`
    pub(in crate::cuda) struct SelectedSlotRowsParams {
        places: u64,
        numbers: u64,
        rows: u64,
        gammas: u64,
        ids: u64,
        kept_ids: u64,
        out: u64,
        top_k: u32,
        heads: u32,
        kv_heads: u32,
        group: u32,
        width: u32,
        features: u32,
        add: u32,
        factor: f32,
    }
}

/// Where gradients go that are not sums by id; 0: not asked for.
#[derive(Clone, Copy)]
struct Out {
    queries: u64,
    keys: u64,
    bias: u64,
    gammas: u64,
    similarities: u64,
}

/// What the slots of all candidates add to gradients of rows.
struct Rows {
    /// `[M, K, width]`, and `[M, K, features]`: `NONE` where a slot adds nothing. 0: not asked for.
    rows: u64,
    width: usize,
    ids: u64,
    features: usize,
    /// The sums, of a place for each feature.
    jobs: Vec<Option<Job>>,
}

impl Rows {
    fn new(
        call: &mut Call<'_>,
        slots: usize,
        (width, features): (usize, usize),
        jobs: Vec<Option<Job>>,
    ) -> Result<Self> {
        let is_asked = jobs.iter().any(Option::is_some);
        let mut words = |count: usize| match is_asked {
            true => call.scratch(slots.saturating_mul(count).saturating_mul(WORD)),
            false => Ok(0),
        };
        Ok(Self { rows: words(width)?, width, ids: words(features)?, features, jobs })
    }

    fn is_asked(&self) -> bool {
        self.rows != 0
    }
}

/// All of them.
struct AllRows {
    values: Rows,
    /// Of tables of keys, or of keys that are rows.
    keys: Rows,
    bias: Rows,
}

impl AllRows {
    fn new<G: Element>(
        gpu: &Cuda,
        call: &mut Call<'_>,
        source: &Source<'_, impl Element>,
        (grads, out): (&SelectedTableGradients<'_, CudaMemory, G>, Out),
    ) -> Result<Self> {
        let op = source.op;
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let slots = source.candidates().saturating_mul(op.top_k);
        let features = source.values.len();
        // The jobs know where in a row their columns are; where the rows are is added later.
        let nowhere = Region::new(0, 0);
        let sums = jobs(gpu, NAME, source.values, nowhere, &grads.values)?;
        let values = Rows::new(call, slots, (value_row, features), sums)?;
        let by_behaviour = |width: usize, out: u64| {
            let is_asked = out != 0;
            vec![is_asked.then(|| job(0, (width, source.behaviours), out))]
        };
        let keys = match source.keys {
            Keys::Rows(_) => {
                let count = source.behaviours.saturating_mul(key_row).saturating_mul(WORD);
                let is_direct = G::DTYPE == DType::F32 || out.keys == 0;
                let sums = if is_direct { out.keys } else { call.scratch(count)? };
                Rows::new(call, slots, (key_row, 1), by_behaviour(key_row, sums))?
            }
            Keys::Tables(tables) => {
                let sums = jobs(gpu, NAME, tables, nowhere, &grads.key_tables)?;
                Rows::new(call, slots, (key_row, features), sums)?
            }
            Keys::Values => Rows::new(call, slots, (key_row, features), Vec::new())?,
        };
        let bias = Rows::new(call, slots, (op.heads, 1), by_behaviour(op.heads, out.bias))?;
        Ok(Self { values, keys, bias })
    }

    fn each(&self) -> [&Rows; 3] {
        [&self.values, &self.keys, &self.bias]
    }
}

pub(in crate::cuda::selected) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Cuda,
    op: &SelectedAttention,
    batch: &CudaBatch,
    (inputs, grad_out): (
        &SelectedTableInputs<'_, CudaMemory, T>,
        &SelectedAttentionGradOut<'_, CudaMemory, T>,
    ),
    grads: &SelectedTableGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_tables_backward(batch.as_ref(), inputs, grad_out, grads)?;
    let out = Out {
        queries: gpu.asked(NAME, grads.queries.as_ref())?.pointer,
        keys: gpu.asked(NAME, grads.keys.as_ref())?.pointer,
        bias: gpu.asked(NAME, grads.bias.as_ref())?.pointer,
        gammas: gpu.asked(NAME, grads.gammas.as_ref())?.pointer,
        similarities: gpu.asked(NAME, grads.similarities.as_ref())?.pointer,
    };
    let grad_lse = gpu.optional(NAME, grad_out.lse.as_ref())?;
    let grad_out = gpu.region(NAME, &grad_out.out)?.pointer;
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    let source = Source::new(gpu, call, op, batch, inputs)?;
    let candidates = source.candidates();
    let slots = candidates.saturating_mul(op.top_k);
    // Loops step past the end.
    fit(NAME, "positions", slots.saturating_add(STEP))?;
    for table in inputs.values {
        // An id is a key; the largest stands for none.
        fit(NAME, "tables", table.rows)?;
    }
    let rows = AllRows::new(gpu, call, &source, (grads, out))?;
    let gamma_numbers = if out.gammas == 0 { 0 } else { candidates.saturating_mul(op.heads * 3) };
    let gammas = if out.gammas == 0 { 0 } else { call.scratch(gamma_numbers.saturating_mul(WORD))? };
    let pass = Pass { gpu, source: &source, grad_out, grad_lse, out, rows: &rows, gammas };
    call.parts(source.chunks(), |call, chunk| pass.chunk::<G>(call, &chunk))?;
    if out.gammas != 0 {
        add_gammas(call, op, (gammas, out.gammas), candidates)?;
    }
    sum(call, &rows, slots)?;
    if let (Keys::Rows(_), Some(Some(job))) = (&source.keys, rows.keys.jobs.first()) {
        let count = source.behaviours.saturating_mul(rows.keys.width);
        narrowed::<G>(call, [job.out, 0], out.keys, count)?;
    }
    call.finish()
}

/// What all candidates need.
struct Pass<'a, T: Element> {
    gpu: &'a Cuda,
    source: &'a Source<'a, T>,
    grad_out: u64,
    grad_lse: u64,
    out: Out,
    rows: &'a AllRows,
    /// `[M, H, 3]`; 0: not asked for.
    gammas: u64,
}

impl<T: Element> Pass<'_, T> {
    /// Computes what belongs to some candidates, and what their slots add to gradients of rows.
    fn chunk<G: Element>(&self, call: &mut Call<'_>, chunk: &Range<usize>) -> Result<()> {
        let Self { gpu, source, out, .. } = *self;
        let (op, queries) = (source.op, chunk.len().saturating_mul(source.op.heads));
        let gathered = source.gather(gpu, call, chunk)?;
        let from = |pointer: u64, numbers: usize, size: usize| match pointer {
            0 => 0,
            pointer => pointer + (chunk.start * numbers * size) as u64,
        };
        let row = op.heads * op.value_width;
        let grad_out = from(self.grad_out, row, size_of::<T>());
        let grad_out = widened::<T>(call, grad_out, (queries, op.value_width), 0)?;
        let mut words = |is_wanted: bool, count: usize| match is_wanted {
            true => call.scratch(count.saturating_mul(WORD)),
            false => Ok(0),
        };
        let slots = queries.saturating_mul(op.top_k);
        let is_direct = G::DTYPE == DType::F32 || out.queries == 0;
        let grad_queries = from(out.queries, op.heads * op.width, size_of::<G>());
        let similarities = from(out.similarities, op.top_k, WORD);
        let is_aliased = matches!(source.keys, Keys::Values);
        let needs_grads = [out.queries, out.bias, out.gammas, out.similarities, self.rows.keys.rows]
            != [0; 5]
            || is_aliased && self.rows.values.is_asked();
        let params = SelectedGradientParams {
            inputs: gathered.inputs,
            grad_out,
            grad_lse: from(self.grad_lse, op.heads, WORD),
            places: words(true, slots)?,
            weights: words(true, slots)?,
            scores: words(true, slots)?,
            grads: words(true, slots)?,
            grad_queries: if is_direct { grad_queries } else { words(true, queries * op.width)? },
            // Of one head they are those of the similarities.
            grad_similarities: match op.heads {
                1 => similarities,
                _ => words(out.similarities != 0, slots)?,
            },
            grad_gammas: from(self.gammas, op.heads * 3, WORD),
            key_rows: 0,
            bias_rows: 0,
            score_bags: 0,
            weight_bags: 0,
            zeros: 0,
            needs_grads: u32::from(needs_grads),
            wide: 1,
            unused: 0,
        };
        let launch = GRADIENTS.of::<f32>().blocks(gathered.blocks).with_threads(gathered.threads);
        call.launch(&launch.with_shared(sum_bytes::<f32>(gathered.threads)), &params)?;
        if !is_direct {
            let count = queries.saturating_mul(op.width);
            narrowed::<G>(call, [params.grad_queries, 0], grad_queries, count)?;
        }
        if out.similarities != 0 && op.heads > 1 {
            add_similarities(call, &params, similarities, chunk.len().saturating_mul(op.top_k))?;
        }
        self.slot_rows(call, chunk, (&gathered, &params))
    }

    /// Writes what slots add to gradients of rows.
    fn slot_rows(
        &self,
        call: &Call<'_>,
        chunk: &Range<usize>,
        (gathered, params): (&Gathered, &SelectedGradientParams),
    ) -> Result<()> {
        let op = self.source.op;
        let AllRows { values, keys, bias } = self.rows;
        let by_behaviour = matches!(self.source.keys, Keys::Rows(_));
        let of_values = SelectedSlotRowsParams {
            places: params.places,
            numbers: params.weights,
            rows: params.grad_out,
            gammas: 0,
            ids: gathered.ids,
            kept_ids: 0,
            out: 0,
            top_k: params.inputs.top_k,
            heads: params.inputs.heads,
            kv_heads: params.inputs.kv_heads,
            group: params.inputs.group,
            width: params.inputs.value_width,
            features: 0,
            add: 0,
            factor: 1.0,
        };
        let of_keys = SelectedSlotRowsParams {
            numbers: params.grads,
            rows: params.inputs.queries,
            gammas: params.inputs.gammas,
            width: params.inputs.width,
            factor: op.effective_scale(),
            ids: if by_behaviour { gathered.behaviours } else { gathered.ids },
            ..of_values
        };
        let of_bias = SelectedSlotRowsParams {
            rows: 0,
            kv_heads: of_keys.heads,
            group: 1,
            width: 1,
            factor: 1.0,
            ids: gathered.behaviours,
            ..of_keys
        };
        let launch = |to: &Rows, params: SelectedSlotRowsParams| -> Result<()> {
            if !to.is_asked() {
                return Ok(());
            }
            let first = chunk.start * op.top_k;
            let params = SelectedSlotRowsParams {
                out: to.rows + (first * to.width * WORD) as u64,
                kept_ids: to.ids + (first * to.features * WORD) as u64,
                features: to.features as u32,
                ..params
            };
            let slots = chunk.len().saturating_mul(op.top_k);
            call.launch(&SLOT_ROWS.blocks(slots).with_threads(threads_of(to.width)), &params)
        };
        launch(values, of_values)?;
        if matches!(self.source.keys, Keys::Values) {
            launch(values, SelectedSlotRowsParams { add: 1, ..of_keys })?;
        }
        launch(keys, of_keys)?;
        launch(bias, of_bias)
    }
}

/// Adds up what slots add, by id.
fn sum(call: &mut Call<'_>, rows: &AllRows, slots: usize) -> Result<()> {
    let all: Vec<&Job> = rows.each().iter().flat_map(|rows| rows.jobs.iter().flatten()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let (sort, heads) = (OwnSort::new(call, slots)?, heads(call, &all, slots)?);
    for rows in rows.each() {
        for (feature, job) in rows.jobs.iter().enumerate() {
            let Some(job) = job else { continue };
            let (ids, features) = (rows.ids, rows.features);
            let (records, lengths) = ([0, 0], [slots; 2]);
            let column = Column { ids, more_ids: 0, records, lengths, features, feature, rows: job.rows };
            let runs = sort.sort_column(call, &column)?;
            let own = Job { grad: Region::new(rows.rows + job.grad.pointer, 0), ..*job };
            own.run(call, &runs, 0, heads)?;
        }
    }
    Ok(())
}
