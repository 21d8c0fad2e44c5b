//! Wrong gradients of target attention.

use longseq::*;

use super::{Fault, Mutant, divided_by_longest};

type Inputs<'a, T> = TargetAttentionInputs<'a, Host, T>;

impl Mutant {
    /// The gradients of target attention, with this fault.
    pub(super) fn attention_backward<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: Inputs<'_, T>,
        (saved, grad_out): (TargetAttentionSaved<'_, Host, T>, TargetAttentionGradOut<'_, Host, T>),
        mut grads: TargetAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let op = if self.is(Fault::DividedByLongest) { divided_by_longest(&op, batch) } else { op };
        let (mut inputs, mut saved, mut grad_out) = (inputs, saved, grad_out);
        let zeros = vec![T::from_f32(0.0); grad_out.out.len()];
        if self.is(Fault::MeanGradientDropped) {
            saved.out = saved.out.map(|_| Host::view(&zeros[..]));
        }
        if self.is(Fault::LseGradientIgnored) {
            grad_out.lse = None;
        }
        let keys = inputs.keys.to_vec();
        if self.is(Fault::AliasedValuesForgotten) && inputs.values.is_none() {
            inputs.values = Some(Host::view(&keys));
        }
        let flat = vec![0.0; inputs.bias.map_or(0, |bias| bias.len())];
        if self.is(Fault::BiasIgnored) {
            inputs.bias = inputs.bias.map(|_| Host::view(&flat[..]));
        }
        let last_head = only_last_heads(&op, &grad_out.out);
        let later = without_first_half(&op, batch, &inputs);
        Cpu::new().target_attention_backward_into(
            &op,
            batch,
            inputs,
            saved,
            grad_out,
            reborrow(&mut grads),
        )?;
        if self.is(Fault::HeadsNotSummed) {
            grad_out.out = Host::view(&last_head);
            grads.queries = None;
        } else if self.is(Fault::NewestPartial) {
            inputs.bias = Some(Host::view(&later));
            (grads.keys, grads.values, grads.bias) = (None, None, None);
        } else {
            return Ok(());
        }
        Cpu::new().target_attention_backward_into(&op, batch, inputs, saved, grad_out, grads)
    }

    /// The gradients of a merge, with this fault.
    pub(super) fn merge_backward<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        [first, second]: [PartialAttention<'_, Host, T>; 2],
        grad_out: TargetAttentionGradOut<'_, Host, T>,
        [first_grads, second_grads]: [PartialAttentionGradients<'_, Host, G>; 2],
    ) -> Result<()> {
        let (mut first, mut grad_out) = (first, grad_out);
        let finite: Vec<f32> = first.lse.iter().map(|lse| lse.max(f32::MIN)).collect();
        if self.is(Fault::DeadPartsCount) {
            first.lse = Host::view(&finite);
        }
        if self.is(Fault::LseGradientIgnored) {
            grad_out.lse = None;
        }
        let lse = first.lse.to_vec();
        let same = if self.is(Fault::MergeAverages) { Host::view(&lse[..]) } else { second.lse };
        let second = PartialAttention::new(second.out, same);
        Cpu::new().merge_attention_backward_into(op, first, second, grad_out, first_grads, second_grads)
    }
}

fn reborrow<'a, G: Element>(
    grads: &'a mut TargetAttentionGradients<'_, Host, G>,
) -> TargetAttentionGradients<'a, Host, G> {
    let mut again = TargetAttentionGradients::new();
    again.queries = grads.queries.as_mut().map(|view| view.reborrow());
    again.keys = grads.keys.as_mut().map(|view| view.reborrow());
    again.values = grads.values.as_mut().map(|view| view.reborrow());
    again.bias = grads.bias.as_mut().map(|view| view.reborrow());
    again
}

/// Zeros for all but the last of the heads that share a key.
fn only_last_heads<T: Element>(op: &TargetAttention, grad_out: &[T]) -> Vec<T> {
    let shared = op.heads / op.kv_heads;
    let keep = |(i, grad): (usize, &T)| {
        let is_last = (i / op.value_width + 1).is_multiple_of(shared);
        if is_last { *grad } else { T::from_f32(0.0) }
    };
    grad_out.iter().enumerate().map(keep).collect()
}

/// The bias, and `-∞` for the first half of every history.
fn without_first_half<T: Element>(op: &TargetAttention, batch: &Batch, inputs: &Inputs<'_, T>) -> Vec<f32> {
    let mut bias =
        inputs.bias.map_or_else(|| vec![0.0; batch.histories().rows() * op.heads], |bias| bias.to_vec());
    for history in batch.histories().ranges() {
        bias[history.start * op.heads..(history.start + history.len() / 2) * op.heads]
            .fill(f32::NEG_INFINITY);
    }
    bias
}
