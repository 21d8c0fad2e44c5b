//! Wrong attention over a selection, and wrong histograms.

use longseq::*;

use super::{Fault, Mutant, clamped};

/// A selection that the mutant may have changed, with `γ`.
struct Changed {
    positions: Vec<u32>,
    similarities: Vec<f32>,
    counts: Vec<u32>,
    gammas: Option<Vec<f32>>,
}

impl Changed {
    fn selection(&self) -> Selection<'_, Host> {
        Selection::new(Host::view(&self.positions), Host::view(&self.similarities), Host::view(&self.counts))
    }
}

impl Mutant {
    /// A selection with this fault.
    fn changed(
        &self,
        kept: &Selection<'_, Host>,
        gammas: Option<View<'_, Host, f32>>,
        top_k: usize,
    ) -> Changed {
        let mut changed = Changed {
            positions: kept.positions.to_vec(),
            similarities: kept.scores.to_vec(),
            counts: kept.counts.to_vec(),
            gammas: gammas.map(|gammas| gammas.to_vec()),
        };
        for gammas in changed.gammas.iter_mut().flat_map(|gammas| gammas.chunks_mut(3)) {
            if self.is(Fault::SimilaritiesIgnored) {
                (gammas[1], gammas[2]) = (0.0, 0.0);
            }
            if self.is(Fault::ProductDropped) {
                gammas[2] = 0.0;
            }
        }
        if self.is(Fault::EmptySlotsCount) {
            for (m, count) in changed.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                let empty = m * top_k + (*count as usize).min(top_k)..(m + 1) * top_k;
                changed.positions[empty.clone()].fill(0);
                changed.similarities[empty].fill(0.0);
                *count = top_k as u32;
            }
        }
        changed
    }
}

fn reborrow<'a, G: Element>(
    grads: &'a mut SelectedAttentionGradients<'_, Host, G>,
) -> SelectedAttentionGradients<'a, Host, G> {
    let mut again = SelectedAttentionGradients::new();
    again.queries = grads.queries.as_mut().map(|view| view.reborrow());
    again.keys = grads.keys.as_mut().map(|view| view.reborrow());
    again.values = grads.values.as_mut().map(|view| view.reborrow());
    again.bias = grads.bias.as_mut().map(|view| view.reborrow());
    again.gammas = grads.gammas.as_mut().map(|view| view.reborrow());
    again.similarities = grads.similarities.as_mut().map(|view| view.reborrow());
    again
}

/// Gradients of the output, zeros but for the last candidate of each user.
fn of_last<T: Element>(batch: &Batch, grad_out: &[T], width: usize) -> Vec<T> {
    let mut last = grad_out.to_vec();
    for targets in batch.targets().ranges().filter(|targets| !targets.is_empty()) {
        last[targets.start * width..(targets.end - 1) * width].fill(T::from_f32(0.0));
    }
    last
}

impl SelectedOps for Mutant {
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedAttentionInputs<'_, Host, T>,
        outputs: SelectedAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let changed = self.changed(&inputs.selection, inputs.gammas, op.top_k);
        let (mut inputs, mut outputs) = (inputs, outputs);
        inputs.selection = changed.selection();
        inputs.gammas = changed.gammas.as_deref().map(Host::view);
        if self.is(Fault::BiasIgnored) {
            inputs.bias = None;
        }
        let lse = outputs.lse.as_mut().map(|lse| lse.reborrow());
        let mut whole = SelectedAttentionOutputs::new(outputs.out.reborrow());
        whole.lse = lse;
        Cpu::new().selected_attention_into(&op, batch, inputs, whole)?;
        if let Some(mut lse) = outputs.lse.filter(|_| self.is(Fault::LseInBits)) {
            lse.iter_mut().for_each(|lse| *lse *= std::f32::consts::LOG2_E);
        }
        Ok(())
    }

    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedAttentionInputs<'_, Host, T>,
        grad_out: SelectedAttentionGradOut<'_, Host, T>,
        grads: SelectedAttentionGradients<'_, Host, G>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let changed = self.changed(&inputs.selection, inputs.gammas, op.top_k);
        let (mut inputs, mut grad_out) = (inputs, grad_out);
        inputs.selection = changed.selection();
        inputs.gammas = changed.gammas.as_deref().map(Host::view);
        let flat = vec![0.0; inputs.bias.map_or(0, |bias| bias.len())];
        if self.is(Fault::BiasIgnored) {
            inputs.bias = inputs.bias.map(|_| Host::view(&flat[..]));
        }
        let keys = inputs.keys.to_vec();
        if self.is(Fault::AliasedValuesForgotten) && inputs.values.is_none() {
            inputs.values = Some(Host::view(&keys));
        }
        if self.is(Fault::LseGradientIgnored) {
            grad_out.lse = None;
        }
        // A gradient of the log-sum-exp as large as `D` takes it away.
        let exact = reference::selected_attention(&op, batch, &inputs)?.out;
        let mean = |(out, grads): (&[f64], &[T])| {
            let products = out.iter().zip(grads).map(|(out, grad)| out * f64::from(grad.to_f32()));
            products.sum::<f64>() as f32
        };
        let width = op.value_width;
        let means: Vec<f32> = exact.chunks(width).zip(grad_out.out.chunks(width)).map(mean).collect();
        if self.is(Fault::MeanGradientDropped) {
            grad_out.lse = Some(Host::view(&means));
        }
        let last = of_last(batch, &grad_out.out, op.heads * width);
        let mut grads = grads;
        Cpu::new().selected_attention_backward_into(&op, batch, inputs, grad_out, reborrow(&mut grads))?;
        if !self.is(Fault::OneReaderOnly) {
            return Ok(());
        }
        grad_out.out = Host::view(&last);
        (grads.queries, grads.similarities) = (None, None);
        Cpu::new().selected_attention_backward_into(&op, batch, inputs, grad_out, grads)
    }

    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedTableInputs<'_, Host, T>,
        outputs: SelectedAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let changed = self.changed(&inputs.selection, inputs.gammas, op.top_k);
        let ids = clamped(&inputs.history_ids, inputs.values);
        let mut inputs = inputs;
        inputs.selection = changed.selection();
        inputs.gammas = changed.gammas.as_deref().map(Host::view);
        if self.is(Fault::IdsClamped) {
            inputs.history_ids = Host::view(&ids);
        }
        if self.is(Fault::BiasIgnored) {
            inputs.bias = None;
        }
        Cpu::new().selected_table_attention_into(&op, batch, inputs, outputs)
    }

    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Batch,
        inputs: SelectedTableInputs<'_, Host, T>,
        grad_out: SelectedAttentionGradOut<'_, Host, T>,
        grads: SelectedTableGradients<'_, Host, G>,
    ) -> Result<()> {
        let op = if self.is(Fault::ScaleDropped) { op.with_scale(1.0) } else { *op };
        let ids = clamped(&inputs.history_ids, inputs.values);
        let last = of_last(batch, &grad_out.out, op.heads * op.value_width);
        let (mut inputs, mut grad_out, mut grads) = (inputs, grad_out, grads);
        if self.is(Fault::IdsClamped) {
            inputs.history_ids = Host::view(&ids);
        }
        if self.is(Fault::AliasedValuesForgotten) && matches!(inputs.keys, SelectedKeys::Values) {
            inputs.keys = SelectedKeys::Tables(inputs.values);
            grads.key_tables = std::mem::take(&mut grads.values);
        }
        if self.is(Fault::LseGradientIgnored) {
            grad_out.lse = None;
        }
        if self.is(Fault::OneReaderOnly) {
            grad_out.out = Host::view(&last);
        }
        Cpu::new().selected_table_attention_backward_into(&op, batch, inputs, grad_out, grads)
    }

    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &Batch,
        selection: Selection<'_, Host>,
        out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        let mut changed = self.changed(&selection, None, op.top_k);
        if self.is(Fault::BinsRoundedDown) {
            let steps = op.steps as f32;
            changed.similarities.iter_mut().for_each(|r| *r = (*r * steps).floor() / steps);
        }
        Cpu::new().similarity_histogram_into(op, batch, changed.selection(), out)
    }

    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Batch,
        inputs: SimilarityInputs<'_, Host>,
        out: ViewMut<'_, Host, u32>,
    ) -> Result<()> {
        let all = op.with_top_k(batch.histories().max_length().max(1));
        let op = if self.is(Fault::OldestCount) { &all } else { op };
        Cpu::new().newest_histogram_into(op, search, batch, inputs, out)
    }
}
