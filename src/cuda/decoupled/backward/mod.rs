//! Gradients of decoupled embeddings: from a selection (`kept.rs`), or over all behaviours (`all.rs`, `chunks.rs`). `tables.rs` sums them
//! by id.

mod all;
pub(in crate::cuda) mod all_kernels;
pub(in crate::cuda) mod chunks;
pub(in crate::cuda) mod kept;
mod tables;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::Ids;
use crate::cuda::decoupled::search::search_into;
use crate::cuda::handle::Cuda;
use crate::cuda::lookup::check_ids;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::Found;
use crate::error::Result;
use crate::memory::View;
use crate::ops::*;
pub(in crate::cuda) use chunks::DeviceChunks;
use kept::Kept;
use tables::{Asked, Summing};

pub(super) fn search_backward(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    (inputs, selection): (&SearchInputs<'_, CudaMemory>, &Selection<'_, CudaMemory>),
    grad_scores: View<'_, CudaMemory, f32>,
    grads: &SearchGradients<'_, CudaMemory>,
) -> Result<()> {
    const NAME: &str = "decoupled_search_backward";
    let top_k = op.check_search_backward(batch.as_ref(), inputs, selection, grad_scores.len(), grads)?;
    let (ids, found) = (Ids::of(gpu, NAME, inputs)?, Found::given(gpu, NAME, selection)?);
    let numbers = gpu.region(NAME, &grad_scores)?.pointer;
    let asked = Asked::new(gpu, NAME, inputs.attention, &grads.attention, true)?;
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    check_all_ids(gpu, call, op, batch, ids, inputs.attention)?;
    let kept = Kept::new(gpu, call, (op, top_k), batch, (ids, found), numbers, asked.is_any())?;
    if !asked.is_any() {
        return call.finish();
    }
    let from = kept.attention(gpu, call, op, &asked)?;
    write(call, &kept, &[(&asked, from)])?;
    call.finish()
}

pub(super) fn aggregate_backward(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    (inputs, selection): (&AggregateInputs<'_, CudaMemory>, &Selection<'_, CudaMemory>),
    grad_out: View<'_, CudaMemory, f32>,
    grads: &AggregateGradients<'_, CudaMemory>,
) -> Result<()> {
    const NAME: &str = "decoupled_aggregate_backward";
    let top_k = op.check_aggregate_backward(batch.as_ref(), inputs, selection, grad_out.len(), grads)?;
    let AggregateInputs { representation, history_ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, NAME, &SearchInputs { attention: representation, history_ids, target_ids })?;
    let found = Found::given(gpu, NAME, selection)?;
    let grad_out = gpu.region(NAME, &grad_out)?.pointer;
    let asked = Asked::new(gpu, NAME, representation, &grads.representation, op.multiply_target)?;
    let scores = match &grads.scores {
        Some(scores) => gpu.region_mut(NAME, scores)?.pointer,
        None => 0,
    };
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    check_all_ids(gpu, call, op, batch, ids, representation)?;
    let wanted = asked.is_any() || grads.scores.is_some();
    let kept = Kept::new(gpu, call, (op, top_k), batch, (ids, found), 0, wanted)?;
    if !wanted {
        return call.finish();
    }
    let (from, _) = kept.representation(gpu, call, op, (&asked, grad_out), (scores, false))?;
    write(call, &kept, &[(&asked, from)])?;
    call.finish()
}

pub(super) fn attend_backward(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    (inputs, saved): (&DecoupledInputs<'_, CudaMemory>, &DecoupledSaved<'_, CudaMemory>),
    grad_out: View<'_, CudaMemory, f32>,
    grads: &DecoupledGradients<'_, CudaMemory>,
) -> Result<()> {
    const NAME: &str = "decoupled_attend_backward";
    op.check_attend_backward(batch.as_ref(), inputs, saved, grad_out.len(), grads)?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let ids = Ids::of(gpu, NAME, &SearchInputs { attention, history_ids, target_ids })?;
    let grad_out = gpu.region(NAME, &grad_out)?.pointer;
    let given = saved.selection.as_ref().map(|selection| Found::given(gpu, NAME, selection)).transpose()?;
    let first = Asked::new(gpu, NAME, attention, &grads.attention, true)?;
    let second = Asked::new(gpu, NAME, representation, &grads.representation, op.multiply_target)?;
    let is_any = first.is_any() || second.is_any();
    let mut call = gpu.begin(NAME);
    let call = &mut call;
    check_all_ids(gpu, call, op, batch, ids, attention)?;
    let longest = batch.as_ref().histories().max_length();
    // Where everything is kept, a selection would be as large as all scores.
    let Some(top_k) = op.top_k.filter(|&top_k| given.is_some() || top_k < longest) else {
        if is_any {
            all::backward(gpu, call, op, batch, (inputs, ids), grad_out, [&first, &second])?;
        }
        return call.finish();
    };
    let found = match given {
        Some(found) => found,
        None if is_any => searched(gpu, call, (op, top_k), batch, attention, ids)?,
        None => return call.finish(),
    };
    let kept = Kept::new(gpu, call, (op, top_k), batch, (ids, found), 0, is_any)?;
    if !is_any {
        return call.finish();
    }
    let (rows, numbers) = kept.representation(gpu, call, op, (&second, grad_out), (0, first.is_any()))?;
    let mut sets = Vec::with_capacity(2);
    if first.is_any() {
        sets.push((&first, kept.with_numbers(numbers).attention(gpu, call, op, &first)?));
    }
    sets.push((&second, rows));
    write(call, &kept, &sets)?;
    call.finish()
}

/// Sums the rows of candidates and slots by id.
fn write(call: &mut Call<'_>, kept: &Kept, sets: &[(&Asked<'_>, tables::SourceRows)]) -> Result<()> {
    let asked: Vec<&Asked<'_>> = sets.iter().map(|(asked, _)| *asked).collect();
    if asked.iter().all(|asked| !asked.is_any()) {
        return Ok(());
    }
    let [candidates, slots] = kept.keys.lengths;
    let summing = Summing::new(call, &asked, candidates + slots)?;
    summing.sum(call, &kept.keys, sets, |_, job, run| run(job).map(drop))
}

/// Checks that every id is inside its table, if the policy asks for it.
fn check_all_ids(
    gpu: &Cuda,
    call: &Call<'_>,
    op: &Decoupled,
    batch: &CudaBatch,
    ids: Ids,
    tables: &[Table<'_, CudaMemory>],
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories().total(), batch.as_ref().targets().total());
    check_ids(gpu, call, "history_ids", op.ids, ids.behaviours, histories, tables)?;
    check_ids(gpu, call, "target_ids", op.ids, ids.candidates, targets, tables)
}

/// The best behaviours.
fn searched(
    gpu: &Cuda,
    call: &mut Call<'_>,
    (op, top_k): (&Decoupled, usize),
    batch: &CudaBatch,
    attention: &[Table<'_, CudaMemory>],
    ids: Ids,
) -> Result<Found> {
    crate::gpu::check_top_k(call.operation, top_k)?;
    let candidates = batch.as_ref().targets().rows();
    let found = Found::scratch(call, candidates, top_k)?;
    search_into(gpu, call, op, top_k, batch, attention, ids, found)?;
    Ok(found)
}

/// All kernels of this folder.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [kept::table(), all_kernels::table()].concat()
}
