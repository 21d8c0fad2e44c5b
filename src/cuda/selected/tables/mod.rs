//! Attention over a selection from embedding tables, and its gradients (`backward.rs`, `rows.rs`): `kernels/selected/tables.cu`.
//!
//! The rows of the slots of some candidates at a time are gathered as `f32`, each candidate's as a history of its own, over which the kernels
//! of selections of rows run.

mod backward;
pub(in crate::cuda) mod rows;

use std::ops::Range;
use std::sync::Arc;

pub(super) use backward::backward;

use crate::cuda::batch::{CudaBatch, DevicePlan, Tile};
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::{check_ids, gather, gather_rows};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::selected::attend::launch_attention;
use crate::cuda::selected::backward::{narrowed, widened};
use crate::cuda::selected::{MOST_THREADS, SelectedInputs, VECTOR, WARP, slots, threads_for};
use crate::cuda::selection::{Found, count_record, position_record};
use crate::cuda::twin::twins;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

const NAME: &str = "selected_table_attention";
const FILE: &str = "selected_tables";
/// Makes the histories of candidates, and finds the ids of their slots. A block for each candidate.
const SLOTS: Kernel = Kernel::new(FILE, "selected_slots", MOST_THREADS as u32, 32);
/// Bytes that gathered rows may occupy at a time.
const GATHERED_BYTES: usize = 64 << 20;
const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/selected/tables.cu`
    pub(in crate::cuda) struct SelectedSlotsParams {
        tiles: u64,
        positions: u64,
        similarities: u64,
        counts: u64,
        ids: u64,
        bad_counts: u64,
        bad_positions: u64,
        own_tiles: u64,
        own_positions: u64,
        own_similarities: u64,
        own_counts: u64,
        behaviours: u64,
        slot_ids: u64,
        top_k: u32,
        features: u32,
    }
}

/// Where keys come from.
enum Keys<'a, T: Element> {
    Rows(Region<T>),
    Tables(&'a [Table<'a, CudaMemory>]),
    Values,
}

/// What a call reads.
struct Source<'a, T: Element> {
    op: &'a SelectedAttention,
    plan: Arc<DevicePlan>,
    /// `[M, H, d]`, as `f32`.
    queries: u64,
    keys: Keys<'a, T>,
    values: &'a [Table<'a, CudaMemory>],
    ids: Region<u32>,
    bias: Option<Region<f32>>,
    gammas: u64,
    found: Found,
    bad_counts: u64,
    bad_positions: u64,
    /// `N`.
    behaviours: usize,
    top_k: u32,
}

/// Candidates, and the rows that were gathered for them.
struct Gathered {
    inputs: SelectedInputs,
    blocks: usize,
    /// Of a block.
    threads: usize,
    /// `[C, K]` and `[C, K, F]`; `NONE` where a slot keeps nothing.
    behaviours: u64,
    ids: u64,
}

impl<'a, T: Element> Source<'a, T> {
    /// Inputs that the operation has checked; ids are checked here.
    fn new(
        gpu: &Cuda,
        call: &mut Call<'_>,
        op: &'a SelectedAttention,
        batch: &CudaBatch,
        inputs: &SelectedTableInputs<'a, CudaMemory, T>,
    ) -> Result<Self> {
        let operation = call.operation;
        let behaviours = batch.as_ref().histories().total();
        // A behaviour is the id of a row.
        fit(operation, "history_ids", batch.as_ref().histories().rows())?;
        fit(operation, "history_ids", inputs.values.len())?;
        let keys = match inputs.keys {
            SelectedKeys::Rows(keys) => Keys::Rows(gpu.region(operation, &keys)?),
            SelectedKeys::Tables(tables) => Keys::Tables(tables),
            SelectedKeys::Values => Keys::Values,
        };
        let ids = gpu.region(operation, &inputs.history_ids)?;
        let plan = batch.candidates(gpu, operation)?;
        let candidates = plan.plan.tiles.len();
        let top_k = slots(operation, candidates, op.top_k)?;
        for (argument, width) in [("width", op.width), ("value_width", op.value_width)] {
            // Kernels count the bytes of a row in 32 bits, and some past its end.
            let bytes = width.saturating_mul(WORD).saturating_mul(op.kv_heads);
            fit(operation, argument, bytes.saturating_add(WARP * VECTOR))?;
        }
        fit(operation, "heads", op.heads)?;
        let queries = gpu.region(operation, &inputs.queries)?.pointer;
        let queries = widened::<T>(call, queries, (candidates.saturating_mul(op.heads), op.width), 0)?;
        check_ids(gpu, call, "history_ids", op.ids, ids, behaviours, inputs.values)?;
        Ok(Self {
            op,
            queries,
            keys,
            values: inputs.values,
            ids,
            bias: inputs.bias.as_ref().map(|bias| gpu.region(operation, bias)).transpose()?,
            gammas: gpu.optional(operation, inputs.gammas.as_ref())?,
            found: Found::given(gpu, operation, &inputs.selection)?,
            bad_counts: count_record(call, batch, op.top_k)?,
            bad_positions: position_record(call, batch, op.top_k)?,
            behaviours,
            top_k,
            plan,
        })
    }

    /// `M`.
    fn candidates(&self) -> usize {
        self.plan.plan.tiles.len()
    }

    /// Candidates whose rows are gathered together, as many as [`GATHERED_BYTES`] hold.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let op = self.op;
        let key_width = if matches!(self.keys, Keys::Values) { 0 } else { op.width };
        let row = op.kv_heads.saturating_mul(key_width.saturating_add(op.value_width));
        let bytes = op.top_k.saturating_mul(row).saturating_mul(WORD);
        let most = (GATHERED_BYTES / bytes.max(1)).max(1);
        let candidates = self.candidates();
        (0..candidates).step_by(most).map(move |first| first..candidates.min(first.saturating_add(most)))
    }

    /// Gathers the rows of some candidates' slots.
    fn gather(&self, gpu: &Cuda, call: &mut Call<'_>, chunk: &Range<usize>) -> Result<Gathered> {
        let (op, candidates) = (self.op, chunk.len());
        let slots = candidates.saturating_mul(op.top_k);
        let params = self.slots(call, chunk)?;
        let (value_row, key_row) = (op.kv_heads * op.value_width, op.kv_heads * op.width);
        let mut rows = |width: usize| call.scratch(slots.saturating_mul(width).saturating_mul(WORD));
        let values = rows(value_row)?;
        let keys = if matches!(self.keys, Keys::Values) { values } else { rows(key_row)? };
        let bias = if self.bias.is_some() { rows(op.heads)? } else { 0 };
        gather(gpu, call, self.values, params.slot_ids, slots, values)?;
        match self.keys {
            Keys::Rows(from) => {
                let sizes = (self.behaviours, key_row);
                gather_rows(call, ("keys", from), sizes, (params.behaviours, slots), keys)?;
            }
            Keys::Tables(tables) => gather(gpu, call, tables, params.slot_ids, slots, keys)?,
            Keys::Values => {}
        }
        if let Some(from) = self.bias {
            let sizes = (self.behaviours, op.heads);
            gather_rows(call, ("bias", from), sizes, (params.behaviours, slots), bias)?;
        }
        let inputs = SelectedInputs {
            tiles: params.own_tiles,
            queries: self.queries + (chunk.start * op.heads * op.width * WORD) as u64,
            keys,
            values,
            bias,
            gammas: self.gammas,
            positions: params.own_positions,
            similarities: params.own_similarities,
            counts: params.own_counts,
            bad_counts: self.bad_counts,
            bad_positions: self.bad_positions,
            top_k: self.top_k,
            heads: op.heads as u32,
            kv_heads: op.kv_heads as u32,
            group: (op.heads / op.kv_heads) as u32,
            width: op.width as u32,
            value_width: op.value_width as u32,
            scale: op.effective_scale(),
            unused: 0,
        };
        Ok(Gathered {
            inputs,
            blocks: candidates.saturating_mul(op.heads),
            threads: threads_for::<f32>(op.width.max(op.value_width), op.top_k),
            behaviours: params.behaviours,
            ids: params.slot_ids,
        })
    }

    /// Makes the histories of some candidates.
    fn slots(&self, call: &mut Call<'_>, chunk: &Range<usize>) -> Result<SelectedSlotsParams> {
        let (candidates, features) = (chunk.len(), self.values.len());
        let slots = candidates.saturating_mul(self.op.top_k);
        let mut words = |count: usize| call.scratch(count.saturating_mul(WORD));
        let params = SelectedSlotsParams {
            tiles: self.plan.tiles.pointer() + (chunk.start * size_of::<Tile>()) as u64,
            positions: self.found.positions,
            similarities: self.found.scores,
            counts: self.found.counts,
            ids: self.ids.pointer,
            bad_counts: self.bad_counts,
            bad_positions: self.bad_positions,
            own_tiles: words(candidates * size_of::<Tile>() / WORD)?,
            own_positions: words(slots)?,
            own_similarities: words(slots)?,
            own_counts: words(candidates)?,
            behaviours: words(slots)?,
            slot_ids: words(slots.saturating_mul(features))?,
            top_k: self.top_k,
            features: features as u32,
        };
        call.launch(&SLOTS.blocks(candidates).with_threads(threads_of(self.op.top_k)), &params)?;
        Ok(params)
    }
}

/// The threads of a block that go over so many things.
fn threads_of(count: usize) -> usize {
    count.min(MOST_THREADS).next_multiple_of(WARP)
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &SelectedAttention,
    batch: &CudaBatch,
    inputs: &SelectedTableInputs<'_, CudaMemory, T>,
    outputs: &SelectedAttentionOutputs<'_, CudaMemory, T>,
) -> Result<()> {
    op.check_tables(batch.as_ref(), inputs)?;
    op.check_table_outputs(batch.as_ref(), outputs)?;
    let out = gpu.region_mut(NAME, &outputs.out)?.pointer;
    let lse = gpu.asked(NAME, outputs.lse.as_ref())?.pointer;
    let mut call = gpu.begin(NAME);
    let source = Source::new(gpu, &mut call, op, batch, inputs)?;
    let row = op.heads.saturating_mul(op.value_width);
    call.parts(source.chunks(), |call, chunk| {
        let gathered = source.gather(gpu, call, &chunk)?;
        let out = out + (chunk.start * row * size_of::<T>()) as u64;
        let count = chunk.len().saturating_mul(row);
        let written = match T::DTYPE {
            DType::F32 => out,
            _ => call.scratch(count.saturating_mul(WORD))?,
        };
        let lse = if lse == 0 { 0 } else { lse + (chunk.start * op.heads * WORD) as u64 };
        let Gathered { inputs, blocks, threads, .. } = gathered;
        launch_attention::<f32>(call, inputs, (blocks, threads), [written, lse])?;
        narrowed::<T>(call, [written, 0], out, count)
    })?;
    call.finish()
}

/// All kernels of this folder.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![SLOTS, rows::SLOT_ROWS, rows::SLOT_BAGS]
}
