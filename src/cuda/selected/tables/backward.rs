//! Gradients of attention over a selection from tables.
//!
//! The kernels of selections of rows find the numbers of the slots. What slots add to the rows of their behaviours is added up by id for
//! tables, and by behaviour for keys that are rows and for the bias (`rows.rs`): as numbers and the candidates' rows that they multiply,
//! where all heads share one key and one value, and otherwise from rows that are written out.

use std::ops::Range;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::lookup::backward::jobs;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::selected::attend::sum_bytes;
use crate::cuda::selected::backward::{
    GRADIENTS, SelectedGradientParams, add_gammas, add_similarities, job, narrowed, widen, widened,
};
use crate::cuda::selected::tables::rows::{Added, Rows, sum};
use crate::cuda::selected::tables::{Gathered, Keys, Source, WORD};
use crate::element::{DType, Element, GradientOf};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

const NAME: &str = "selected_table_attention_backward";

/// Where gradients go that are not sums by id; 0: not asked for.
#[derive(Clone, Copy)]
struct Out {
    queries: u64,
    keys: u64,
    /// The same as `f32`.
    key_sums: u64,
    bias: u64,
    gammas: u64,
    similarities: u64,
}

/// All of them.
struct AllRows {
    values: Rows,
    /// Of tables of keys, or of keys that are rows.
    keys: Rows,
    bias: Rows,
}

impl AllRows {
    /// `grad_out` is as `f32`; where the values are the keys and all heads share them, the queries come after it.
    fn new<G: Element>(
        gpu: &Cuda,
        call: &mut Call<'_>,
        source: &Source<'_, impl Element>,
        (grads, out): (&SelectedTableGradients<'_, CudaMemory, G>, Out),
        grad_out: u64,
    ) -> Result<Self> {
        let op = source.op;
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let slots = source.candidates().saturating_mul(op.top_k);
        let features = source.values.len();
        let is_shared = op.kv_heads == 1;
        let mut of = |(from, kinds): (u64, usize), (width, features): (usize, usize), jobs| match is_shared {
            true => {
                let positions = slots.saturating_mul(op.heads).saturating_mul(kinds);
                Rows::of_bags(call, positions, (from, width, features), jobs)
            }
            false => Rows::of_slots(call, slots, (width, features), jobs),
        };
        // The jobs know where in a row their columns are; where the rows are is added later.
        let nowhere = Region::new(0, 0);
        let kinds = if matches!(source.keys, Keys::Values) { 2 } else { 1 };
        let sums = jobs(gpu, NAME, source.values, nowhere, &grads.values)?;
        let values = of((grad_out, kinds), (value_row, features), sums)?;
        let by_behaviour = |width: usize, out: u64| {
            let is_asked = out != 0;
            vec![is_asked.then(|| job(0, (width, source.behaviours), out))]
        };
        let keys = match source.keys {
            Keys::Rows(_) => of((source.queries, 1), (key_row, 1), by_behaviour(key_row, out.key_sums))?,
            Keys::Tables(tables) => {
                let sums = jobs(gpu, NAME, tables, nowhere, &grads.key_tables)?;
                of((source.queries, 1), (key_row, features), sums)?
            }
            Keys::Values => of((source.queries, 1), (key_row, features), Vec::new())?,
        };
        let bias = Rows::of_slots(call, slots, (op.heads, 1), by_behaviour(op.heads, out.bias))?;
        Ok(Self { values, keys, bias })
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
    let mut out = Out {
        queries: gpu.asked(NAME, grads.queries.as_ref())?.pointer,
        keys: gpu.asked(NAME, grads.keys.as_ref())?.pointer,
        key_sums: 0,
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
    for table in inputs.values {
        // An id is a key; the largest stands for none.
        fit(NAME, "tables", table.rows)?;
    }
    let key_count = source.behaviours.saturating_mul(op.kv_heads * op.width);
    out.key_sums = match G::DTYPE {
        DType::F32 => out.keys,
        _ if out.keys == 0 => 0,
        _ => call.scratch(key_count.saturating_mul(WORD))?,
    };
    let grad_out = rows_of_candidates::<T>(call, &source, grad_out)?;
    let rows = AllRows::new(gpu, call, &source, (grads, out), grad_out)?;
    let gamma_numbers = if out.gammas == 0 { 0 } else { candidates.saturating_mul(op.heads * 3) };
    let gammas = if out.gammas == 0 { 0 } else { call.scratch(gamma_numbers.saturating_mul(WORD))? };
    let pass = Pass { gpu, source: &source, grad_out, grad_lse, out, rows: &rows, gammas };
    call.parts(source.chunks(), |call, chunk| pass.chunk::<G>(call, &chunk))?;
    if out.gammas != 0 {
        add_gammas(call, op, (gammas, out.gammas), candidates)?;
    }
    sum(call, &[&rows.values, &rows.keys, &rows.bias])?;
    if out.keys != 0 {
        narrowed::<G>(call, [out.key_sums, 0], out.keys, key_count)?;
    }
    call.finish()
}

/// `grad_out` as `f32`; and the queries after it, where sums read rows of both.
fn rows_of_candidates<T: Element>(call: &mut Call<'_>, source: &Source<'_, T>, grad_out: u64) -> Result<u64> {
    let op = source.op;
    let queries = source.candidates().saturating_mul(op.heads);
    // A position names its row.
    fit(NAME, "queries", queries.saturating_mul(2))?;
    if op.kv_heads > 1 || !matches!(source.keys, Keys::Values) {
        return widened::<T>(call, grad_out, (queries, op.value_width), 0);
    }
    let count = queries.saturating_mul(op.value_width);
    let both = call.scratch(count.saturating_mul(2 * WORD))?;
    widen::<T>(call, [grad_out, both], [count; 2])?;
    widen::<f32>(call, [source.queries, both + (count * WORD) as u64], [count; 2])?;
    Ok(both)
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
        let mut words = |is_wanted: bool, count: usize| match is_wanted {
            true => call.scratch(count.saturating_mul(WORD)),
            false => Ok(0),
        };
        let slots = queries.saturating_mul(op.top_k);
        let is_direct = G::DTYPE == DType::F32 || out.queries == 0;
        let grad_queries = from(out.queries, op.heads * op.width, size_of::<G>());
        let similarities = from(out.similarities, op.top_k, WORD);
        let is_aliased = matches!(source.keys, Keys::Values);
        let needs_grads = [out.queries, out.bias, out.gammas, out.similarities] != [0; 4]
            || self.rows.keys.is_asked()
            || is_aliased && self.rows.values.is_asked();
        let params = SelectedGradientParams {
            inputs: gathered.inputs,
            grad_out: from(self.grad_out, op.heads * op.value_width, WORD),
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
        let (source, op) = (self.source, self.source.op);
        let AllRows { values, keys, bias } = self.rows;
        let of_values = Added {
            places: params.places,
            numbers: params.weights,
            rows: params.grad_out,
            width: op.value_width,
            parts: op.kv_heads,
            gammas: 0,
            ids: gathered.ids,
            factor: 1.0,
            is_second: false,
        };
        let of_keys = Added {
            numbers: params.grads,
            rows: params.inputs.queries,
            width: op.width,
            gammas: params.inputs.gammas,
            factor: op.effective_scale(),
            ..of_values
        };
        let by_behaviour = Added { ids: gathered.behaviours, ..of_keys };
        let of_bias = Added { rows: 0, width: 1, parts: op.heads, factor: 1.0, ..by_behaviour };
        let write = |to: &Rows, added| to.write(call, op, (chunk, source.candidates()), &added);
        write(values, of_values)?;
        match source.keys {
            Keys::Rows(_) => write(keys, by_behaviour)?,
            Keys::Tables(_) => write(keys, of_keys)?,
            Keys::Values => write(values, Added { is_second: true, ..of_keys })?,
        }
        write(bias, of_bias)
    }
}
