//! Wrong gradients of SDIM.

use longseq::*;

use super::sdim::with_ids;
use super::{Fault, Mutant};

/// The length of a bucket row.
fn length(row: &[f32]) -> f32 {
    row.iter().map(|x| x * x).sum::<f32>().sqrt()
}

impl Mutant {
    /// The gradient of tables, with this fault.
    pub(super) fn sdim_query_gradient<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQueryInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        mut grad_table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        let (mut inputs, ids) = (inputs, self.ids(op, &inputs.hash));
        inputs.hash = with_ids(inputs.hash, &ids);
        let newest = self.only_newest(op, targets, &grad_out);
        let grad_out = Host::view(&newest[..]);
        let drops = self.is(Fault::ProjectionDropped);
        let op_used = if drops { op.with_normalise(false) } else { *op };
        Cpu::new().sdim_query_backward_into(&op_used, targets, inputs, grad_out, grad_table.reborrow())?;
        for (grad, row) in grad_table.chunks_mut(op.width).zip(inputs.table.chunks(op.width)) {
            let length = length(row);
            if drops && op.normalise {
                grad.iter_mut().for_each(|grad| *grad /= length);
            }
            if self.is(Fault::FloorIgnored) && length < Sdim::MIN_NORM {
                grad.fill(1.0 / Sdim::MIN_NORM);
            }
        }
        Ok(())
    }

    /// The gradient of the behaviours of tables, with this fault.
    pub(super) fn sdim_encode_gradient<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        grad_table: View<'_, Host, f32>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        let mut grads = grad_table.to_vec();
        if self.is(Fault::GroupForgotten) {
            let group = op.buckets() * op.width;
            grads.chunks_mut(op.groups * group).for_each(|user| user[(op.groups - 1) * group..].fill(0.0));
        }
        let ids = self.ids(op, &inputs.hash);
        let inputs = self.as_taken(inputs, &ids);
        Cpu::new().sdim_encode_backward_into(op, histories, inputs, Host::view(&grads), grad_history)
    }

    /// The gradient of the behaviours without a table, with this fault.
    pub(super) fn sdim_attend_gradient<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimAttendInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        let ids = [&inputs.history_hash, &inputs.target_hash].map(|hash| self.ids(op, hash));
        let mut inputs = inputs;
        inputs.history_hash = with_ids(inputs.history_hash, &ids[0]);
        inputs.target_hash = with_ids(inputs.target_hash, &ids[1]);
        let newest = self.only_newest(op, batch.targets(), &grad_out);
        Cpu::new().sdim_attend_backward_into(op, batch, inputs, Host::view(&newest), grad_history)
    }

    /// The gradients of the outputs; with `NewestPartial`, those of each user's last candidate alone.
    fn only_newest<T: Element>(&self, op: &Sdim, targets: &Jagged, grad_out: &[T]) -> Vec<T> {
        let mut grads = grad_out.to_vec();
        for targets in targets.ranges().filter(|targets| self.is(Fault::NewestPartial) && !targets.is_empty())
        {
            grads[targets.start * op.width..(targets.end - 1) * op.width].fill(T::from_f32(0.0));
        }
        grads
    }
}
