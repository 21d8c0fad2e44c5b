//! Backends that are wrong on purpose: each has one fault that published code had or a kernel could have. A check that
//! lets one pass checks nothing.

mod decoupled_backward;
mod din;
mod fault;
mod interest_channels;
mod lookup;
mod sdim;
mod sdim_backward;
mod search;
mod selected;
mod selection;
mod target_attention_backward;
mod tin;

pub use fault::Fault;

use longseq::*;

/// `-∞` for a low score.
fn removed_if_low(score: &f32) -> f32 {
    if *score < -1e38 { f32::NEG_INFINITY } else { *score }
}

/// SiLU divided by the length that histories are padded to, where it is to be their own.
fn divided_by_longest(op: &TargetAttention, batch: &Batch) -> TargetAttention {
    match op.weighting {
        Weighting::Silu { divisor: SiluDivisor::HistoryLength } => {
            op.with_weighting(Weighting::silu(batch.histories().max_length() as f32))
        }
        _ => *op,
    }
}

/// The CPU backend with a fault.
pub struct Mutant(pub Fault);

impl Mutant {
    fn is(&self, fault: Fault) -> bool {
        self.0 == fault
    }

    fn shifted(&self, jagged: &Jagged) -> Jagged {
        let shifted = self.shifted_rows(jagged);
        let Some(slots) = jagged.slots() else { return shifted };
        let mut slots = slots.to_vec();
        if self.is(Fault::SlotsIgnored) {
            slots.iter_mut().zip(0..).for_each(|(slot, user)| *slot = user);
        }
        if self.is(Fault::SlotOfNeighbour) && !slots.is_empty() {
            slots.rotate_left(1);
        }
        shifted.with_slots(&slots, jagged.slot_count()).expect("the same slots, or the first ones")
    }

    fn shifted_rows(&self, jagged: &Jagged) -> Jagged {
        if self.is(Fault::GapsClosed) {
            let lengths: Vec<usize> = jagged.ranges().map(|rows| rows.len()).collect();
            let starts =
                lengths.iter().scan(0usize, |end, length| Some(std::mem::replace(end, *end + length)));
            let starts: Vec<usize> = starts.collect();
            return Jagged::from_starts(&starts, &lengths, jagged.rows()).expect("as many rows or fewer");
        }
        let Some(offsets) = jagged.offsets() else { return jagged.clone() };
        let mut offsets = offsets.to_vec();
        let last = offsets.len() - 1;
        let end = offsets[last];
        if self.is(Fault::HistoryShifted) {
            offsets[1..last].iter_mut().for_each(|offset| *offset = (*offset + 1).min(end));
        }
        if self.is(Fault::PaddingHashed) {
            offsets[last] = jagged.rows();
        }
        Jagged::new(&offsets, jagged.rows()).expect("shifted offsets are valid")
    }
}

/// Ids outside their table replaced by the last row.
fn clamped(ids: &[u32], tables: &[Table<'_, Host>]) -> Vec<u32> {
    let clamp = |(i, &id): (usize, &u32)| id.min(tables[i % tables.len()].rows as u32 - 1);
    ids.iter().enumerate().map(clamp).collect()
}

impl DeviceOps for Mutant {
    type Memory = Host;

    type Jagged = Jagged;

    type Batch = Batch;

    fn device(&self) -> String {
        format!("a CPU with the fault {:?}", self.0)
    }

    fn fork(&self) -> Result<Self> {
        Ok(Self(self.0))
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<HostBuffer<T>> {
        Cpu::new().upload(data)
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<HostBuffer<T>> {
        Cpu::new().zeros(length)
    }

    fn download<T: Scalar>(&self, view: View<'_, Host, T>) -> Result<Vec<T>> {
        Cpu::new().download(view)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn jagged(&self, jagged: &Jagged) -> Result<Jagged> {
        Ok(self.shifted(jagged))
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Batch> {
        Batch::new(self.shifted(histories), targets.clone())
    }
}

impl TargetAttentionOps for Mutant {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        mut outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let op = if self.is(Fault::DividedByLongest) { divided_by_longest(&op, batch) } else { op };
        let mut inputs = inputs;
        let mut keys = inputs.keys.to_vec();
        if self.is(Fault::HeadsMixed) {
            for row in keys.chunks_mut(op.kv_heads * op.width) {
                let first = row[..op.width].to_vec();
                row.chunks_mut(op.width).for_each(|head| head.copy_from_slice(&first));
            }
        }
        if self.is(Fault::NanDropped) {
            keys.iter_mut().filter(|key| key.to_f32().is_nan()).for_each(|key| *key = T::from_f32(0.0));
        }
        inputs.keys = Host::view(&keys);
        if self.is(Fault::BiasIgnored) {
            inputs.bias = None;
        }
        let bias: Vec<f32> = inputs.bias.iter().flat_map(|bias| bias.iter()).map(removed_if_low).collect();
        if self.is(Fault::LowScoresRemoved) {
            inputs.bias = Some(Host::view(&bias));
        }
        let used = batch.targets().total() * op.heads * op.value_width;
        let left_out = used.checked_sub(1).map(|last| outputs.out[last]);
        let lse = outputs.lse.as_mut().map(|lse| lse.reborrow());
        let mut whole = TargetAttentionOutputs::new(outputs.out.reborrow());
        whole.lse = lse;
        Cpu::new().target_attention_into(&op, batch, inputs, whole)?;
        if self.is(Fault::WritesBehind) {
            let end = outputs.out.start() + outputs.out.len();
            outputs.out.data_mut()[end] = T::from_f32(0.0);
        }
        if let Some(value) = left_out.filter(|_| self.is(Fault::LeavesOut)) {
            outputs.out[used - 1] = value;
        }
        if let Some(mut lse) = outputs.lse.filter(|_| self.is(Fault::LseInBits)) {
            lse.iter_mut().for_each(|lse| *lse *= std::f32::consts::LOG2_E);
        }
        Ok(())
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        let mut first = first;
        let finite: Vec<f32> = first.lse.iter().map(|lse| lse.max(f32::MIN)).collect();
        if self.is(Fault::DeadPartsCount) {
            first.lse = Host::view(&finite);
        }
        let lse = first.lse.to_vec();
        let same = if self.is(Fault::MergeAverages) { Host::view(&lse[..]) } else { second.lse };
        Cpu::new().merge_attention_into(op, first, PartialAttention::new(second.out, same), outputs)
    }

    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        saved: TargetAttentionSaved<'_, Host, T>,
        grad_out: TargetAttentionGradOut<'_, Host, T>,
        grads: TargetAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        self.attention_backward(op, batch, inputs, (saved, grad_out), grads)
    }

    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Host, T>,
        second: PartialAttention<'_, Host, T>,
        grad_out: TargetAttentionGradOut<'_, Host, T>,
        first_grads: PartialAttentionGradients<'_, Host, G>,
        second_grads: PartialAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        self.merge_backward(op, [first, second], grad_out, [first_grads, second_grads])
    }
}

impl DecoupledOps for Mutant {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        out: SelectionMut<'_, Host>,
    ) -> Result<()> {
        let mut inputs = inputs;
        let ids = clamped(&inputs.history_ids, inputs.attention);
        if self.is(Fault::IdsClamped) {
            inputs.history_ids = Host::view(&ids);
        }
        let op = if self.is(Fault::ScaleDropped) {
            &Decoupled::new(vec![1.0; op.features()]).with_top_k(op.top_k).with_ids(op.ids)
        } else {
            op
        };
        let SelectionMut { mut positions, mut scores, mut counts, .. } = out;
        let kept = SelectionMut::new(positions.reborrow(), scores.reborrow(), counts.reborrow());
        Cpu::new().decoupled_search_into(op, batch, inputs, kept)?;
        let used = batch.targets().total();
        self.spoil_selection(
            op.top_k.unwrap_or(1),
            used,
            (&mut positions[..], &mut scores[..], &mut counts[..]),
        );
        Ok(())
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        let forgotten = op.clone().with_multiply_target(false);
        let op = if self.is(Fault::TargetForgotten) { &forgotten } else { op };
        Cpu::new().decoupled_aggregate_into(op, batch, inputs, selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        out: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        if !self.is(Fault::LowScoresRemoved) {
            return Cpu::new().decoupled_attend_into(op, batch, inputs, out);
        }
        let low = |table: &Table<'_, Host>| match &table.data {
            TableData::F32(rows) => rows.iter().map(removed_if_low).collect(),
            _ => Vec::new(),
        };
        let lows: Vec<Vec<f32>> = inputs.attention.iter().map(low).collect();
        let attention = inputs
            .attention
            .iter()
            .zip(&lows)
            .map(|(table, low)| Table::new(table.rows, table.width, TableData::F32(Host::view(low))));
        let attention: Vec<Table<'_, Host>> = attention.collect();
        let DecoupledInputs { representation, history_ids, target_ids, .. } = inputs;
        let inputs = DecoupledInputs::new(&attention, representation, history_ids, target_ids);
        Cpu::new().decoupled_attend_into(op, batch, inputs, out)
    }

    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: SearchInputs<'_, Host>,
        selection: Selection<'_, Host>,
        grad_scores: View<'_, Host, f32>,
        grads: SearchGradients<'_, Host>,
    ) -> Result<()> {
        self.search_gradient(op, batch, (&inputs, &selection), &grad_scores, grads);
        Ok(())
    }

    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: AggregateInputs<'_, Host>,
        selection: Selection<'_, Host>,
        grad_out: View<'_, Host, f32>,
        grads: AggregateGradients<'_, Host>,
    ) -> Result<()> {
        self.aggregate_gradient(op, batch, (&inputs, &selection), &grad_out, grads);
        Ok(())
    }

    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: DecoupledInputs<'_, Host>,
        saved: DecoupledSaved<'_, Host>,
        grad_out: View<'_, Host, f32>,
        grads: DecoupledGradients<'_, Host>,
    ) -> Result<()> {
        self.attend_gradient(op, batch, (&inputs, &saved), &grad_out, grads)
    }
}
