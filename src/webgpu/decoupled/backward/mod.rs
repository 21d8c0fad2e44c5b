//! Gradients of decoupled embeddings: from a selection (`kept.rs`), or over all behaviours (`all.rs`). `tables.rs` sums them by id.

mod all;
mod all_kernels;
mod kept;
mod kept_kernels;
mod tables;

use crate::error::Result;
use crate::gpu::{check_top_k, fit};
use crate::memory::{View, ViewMut};
use crate::ops::{
    AggregateGradients, AggregateInputs, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledSaved,
    SearchGradients, SearchInputs, Selection, SelectionMut, Table,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::aggregate::weigh;
use crate::webgpu::decoupled::search::search_as;
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::buffers_of;
use kept::Kept;
use tables::{Asked, Keys, SourceRows, sum};

/// The ids of a call.
#[derive(Clone, Copy)]
struct Ids<'a> {
    behaviours: Region<'a, u32>,
    candidates: Region<'a, u32>,
}

/// A call and its batch.
#[derive(Clone, Copy)]
struct Call<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    op: &'a Decoupled,
    batch: &'a WgpuBatch,
    ids: Ids<'a>,
}

pub(super) fn search_backward(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    (inputs, selection): (&SearchInputs<'_, WgpuMemory>, &Selection<'_, WgpuMemory>),
    grad_scores: View<'_, WgpuMemory, f32>,
    grads: &SearchGradients<'_, WgpuMemory>,
) -> Result<()> {
    let operation = "decoupled_search_backward";
    let top_k = op.check_search_backward(batch.as_ref(), inputs, selection, grad_scores.len(), grads)?;
    let call = Call::new(gpu, operation, op, batch, [inputs.history_ids, inputs.target_ids])?;
    let numbers = gpu.bind(operation, "grad_scores", &Region::of(grad_scores))?;
    let mut asked = call.asked(inputs.attention, &grads.attention, true, &[])?;
    call.check_ids(inputs.attention)?;
    let kept = call.kept(top_k, selection)?;
    if !asked.is_any() {
        return Ok(());
    }
    asked.check_room(gpu, kept.positions())?;
    let numbered = kept.with_numbers(&numbers)?;
    let from = kept.attention(&asked, &numbered)?;
    write(&kept, &kept.keys()?, &mut [(&mut asked, from)])?;
    asked.finish(gpu)
}

pub(super) fn aggregate_backward(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    (inputs, selection): (&AggregateInputs<'_, WgpuMemory>, &Selection<'_, WgpuMemory>),
    grad_out: View<'_, WgpuMemory, f32>,
    grads: &AggregateGradients<'_, WgpuMemory>,
) -> Result<()> {
    let operation = "decoupled_aggregate_backward";
    let top_k = op.check_aggregate_backward(batch.as_ref(), inputs, selection, grad_out.len(), grads)?;
    let call = Call::new(gpu, operation, op, batch, [inputs.history_ids, inputs.target_ids])?;
    let (tables, grad_region) = (inputs.representation, Region::of(grad_out));
    let grad_out = gpu.bind(operation, "grad_out", &grad_region)?;
    let read = [grad_region.buffer];
    let mut asked = call.asked(tables, &grads.representation, op.multiply_target, &read)?;
    let slots = batch.as_ref().targets().total().saturating_mul(top_k);
    let scores = match &grads.scores {
        Some(scores) => Some(gpu.output(operation, "grads.scores", scores, slots, &read, &[])?),
        None => None,
    };
    call.check_ids(tables)?;
    let kept = call.kept(top_k, selection)?;
    if !asked.is_any() && scores.is_none() {
        return Ok(());
    }
    asked.check_room(gpu, kept.positions())?;
    // Before anything is written, as all that may be too large for the device.
    let keys = if asked.is_any() { Some(kept.keys()?) } else { None };
    let (from, _) = kept.representation(&asked, &grad_out, (scores.as_ref(), false))?;
    if let Some(scores) = scores {
        gpu.finish(scores)?;
    }
    if let Some(keys) = keys {
        write(&kept, &keys, &mut [(&mut asked, from)])?;
    }
    asked.finish(gpu)
}

pub(super) fn attend_backward(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    (inputs, saved): (&DecoupledInputs<'_, WgpuMemory>, &DecoupledSaved<'_, WgpuMemory>),
    grad_out: View<'_, WgpuMemory, f32>,
    grads: &DecoupledGradients<'_, WgpuMemory>,
) -> Result<()> {
    let operation = "decoupled_attend_backward";
    op.check_attend_backward(batch.as_ref(), inputs, saved, grad_out.len(), grads)?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let call = Call::new(gpu, operation, op, batch, [history_ids, target_ids])?;
    let grad_region = Region::of(grad_out);
    let grad_out = gpu.bind(operation, "grad_out", &grad_region)?;
    let read = [grad_region.buffer];
    let mut first = call.asked(attention, &grads.attention, true, &read)?;
    let mut second = call.asked(representation, &grads.representation, op.multiply_target, &read)?;
    call.check_ids(attention)?;
    let longest = batch.as_ref().histories().max_length();
    let is_any = first.is_any() || second.is_any();
    // Where everything is kept, a selection would be as large as all scores.
    let Some(top_k) = op.top_k.filter(|&top_k| saved.selection.is_some() || top_k < longest) else {
        if is_any {
            all::backward(call, inputs, &grad_out, [&mut first, &mut second])?;
        }
        first.finish(gpu)?;
        return second.finish(gpu);
    };
    let kept = match &saved.selection {
        Some(selection) => call.kept(top_k, selection)?,
        None if !is_any => return Ok(()),
        None => call.searched(top_k, &SearchInputs { attention, history_ids, target_ids })?,
    };
    if !is_any {
        return Ok(());
    }
    [&first, &second].into_iter().try_for_each(|asked| asked.check_room(gpu, kept.positions()))?;
    let (rows, numbered) = kept.representation(&second, &grad_out, (None, first.is_any()))?;
    let mut sets = Vec::with_capacity(2);
    if let Some(numbered) = numbered {
        let from = kept.attention(&first, &numbered)?;
        sets.push((&mut first, from));
    }
    sets.push((&mut second, rows));
    write(&kept, &kept.keys()?, &mut sets)?;
    first.finish(gpu)?;
    second.finish(gpu)
}

/// Sums the rows of candidates and slots by id.
fn write(kept: &Kept<'_>, keys: &Keys, sets: &mut [(&mut Asked<'_>, SourceRows)]) -> Result<()> {
    let gpu = kept.gpu;
    sum(gpu, kept.operation, keys, sets, |_, job, runs, bags| {
        job.begin(gpu, runs)?;
        job.sums(gpu, runs, bags, (&job.rows.binding, job.sparse.is_none()))
    })
}

impl<'a> Call<'a> {
    fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        op: &'a Decoupled,
        batch: &'a WgpuBatch,
        [history_ids, target_ids]: [View<'a, WgpuMemory, u32>; 2],
    ) -> Result<Self> {
        batch.check_owner(gpu, operation)?;
        let ids = Ids { behaviours: Region::of(history_ids), candidates: Region::of(target_ids) };
        gpu.check_device(operation, "history_ids", &ids.behaviours)?;
        gpu.check_device(operation, "target_ids", &ids.candidates)?;
        Ok(Self { gpu, operation, op, batch, ids })
    }

    fn asked<'t>(
        &self,
        tables: &'t [Table<'t, WgpuMemory>],
        gradients: &[Option<crate::ops::TableGradient<'_, WgpuMemory>>],
        with_candidates: bool,
        read: &[&wgpu::Buffer],
    ) -> Result<Asked<'t>> {
        let mut read = read.to_vec();
        read.extend(buffers_of(tables));
        read.extend([self.ids.behaviours.buffer, self.ids.candidates.buffer]);
        let most = self.op.gradient_capacity(self.batch.as_ref());
        Asked::new(self.gpu, self.operation, tables, gradients, (with_candidates, most), &read)
    }

    /// Checks that every id is inside its table, if the policy asks for it.
    fn check_ids(&self, tables: &[Table<'_, WgpuMemory>]) -> Result<()> {
        let Self { gpu, operation, op, batch, ids } = *self;
        let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
        gpu.check_ids(operation, "history_ids", op.ids, ids.behaviours, histories.total(), tables)?;
        gpu.check_ids(operation, "target_ids", op.ids, ids.candidates, targets.total(), tables)
    }

    /// The bindings of the ids.
    fn bind_ids(&self) -> Result<[Binding; 2]> {
        let Self { gpu, operation, .. } = *self;
        Ok([
            gpu.bind(operation, "history_ids", &self.ids.behaviours)?,
            gpu.bind(operation, "target_ids", &self.ids.candidates)?,
        ])
    }

    /// A selection with its weights; checks it.
    fn kept(&self, top_k: usize, selection: &Selection<'_, WgpuMemory>) -> Result<Kept<'a>> {
        let Self { gpu, operation, op, batch, .. } = *self;
        let candidates = batch.as_ref().targets().total();
        let slots = candidates.saturating_mul(top_k);
        // Positions are those of slots and candidates; a slot has two words.
        fit(operation, "positions", slots.saturating_add(candidates).saturating_mul(2))?;
        let kept = weigh(gpu, operation, top_k, batch, selection)?;
        let [ids, target_ids] = self.bind_ids()?;
        Ok(Kept { gpu, operation, op, top_k, candidates, kept, ids, target_ids })
    }

    /// The best behaviours, with their weights.
    fn searched(&self, top_k: usize, inputs: &SearchInputs<'_, WgpuMemory>) -> Result<Kept<'a>> {
        let Self { gpu, operation, op, batch, .. } = *self;
        check_top_k(operation, top_k)?;
        let candidates = batch.as_ref().targets().rows();
        let slots = candidates.saturating_mul(top_k);
        let mut positions: WgpuBuffer<u32> = gpu.zeroed(operation, slots)?;
        let mut scores: WgpuBuffer<f32> = gpu.zeroed(operation, slots)?;
        let mut counts: WgpuBuffer<u32> = gpu.zeroed(operation, candidates)?;
        let found = SelectionMut {
            positions: ViewMut::new(&mut positions),
            scores: ViewMut::new(&mut scores),
            counts: ViewMut::new(&mut counts),
        };
        search_as(gpu, operation, op, top_k, batch, inputs, found)?;
        let selection = Selection {
            positions: View::new(&positions),
            scores: View::new(&scores),
            counts: View::new(&counts),
        };
        self.kept(top_k, &selection)
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [kept_kernels::variants(), all_kernels::variants()].concat()
}
