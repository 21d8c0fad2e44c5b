//! Wrong TIN.

use longseq::*;

use super::{Fault, Mutant};

/// What the mutant changes, in memory of its own.
struct Changed<T> {
    op: Tin,
    targets: Vec<T>,
    history_positions: Option<Vec<u32>>,
}

impl<T: Element> Changed<T> {
    fn new(mutant: &Mutant, op: &Tin, batch: &Batch, inputs: &TinInputs<'_, Host, T>) -> Self {
        let mut op = *op;
        if mutant.is(Fault::ScaleDropped) {
            op = op.with_scale(1.0);
        }
        if mutant.is(Fault::TargetForgotten) {
            op = op.with_multiply_target(false);
        }
        // Positions counted from the oldest behaviour.
        let mut oldest = vec![0; batch.histories().rows()];
        for history in batch.histories().ranges() {
            for (i, position) in oldest[history].iter_mut().enumerate() {
                *position = (i + 1).min(op.positions - 1) as u32;
            }
        }
        let given = inputs.history_positions.map(|positions| positions.to_vec());
        let history_positions = if mutant.is(Fault::OldestIsFirst) { Some(oldest) } else { given };
        // Candidates without a position.
        let mut targets = inputs.targets.to_vec();
        let used = if mutant.is(Fault::PositionsOfKeysAlone) { batch.targets().total() } else { 0 };
        for (m, row) in targets.chunks_mut(op.width).enumerate().take(used) {
            let position = inputs.target_positions.map_or(0, |positions| positions[m] as usize);
            let added = &inputs.positions[position * op.width..(position + 1) * op.width];
            for (number, added) in row.iter_mut().zip(added) {
                *number = T::from_f32(number.to_f32() - added.to_f32());
            }
        }
        Self { op, targets, history_positions }
    }

    fn inputs<'a>(&'a self, inputs: TinInputs<'a, Host, T>) -> TinInputs<'a, Host, T> {
        let mut inputs = inputs;
        inputs.targets = Host::view(&self.targets);
        inputs.history_positions = self.history_positions.as_deref().map(Host::view);
        inputs
    }
}

impl TinOps for Mutant {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &Batch,
        inputs: TinInputs<'_, Host, T>,
        outputs: TinOutputs<'_, Host, T>,
    ) -> Result<()> {
        let mut outputs = outputs;
        let changed = Changed::new(self, op, batch, &inputs);
        let mut whole = TinOutputs::new(outputs.out.reborrow());
        whole.pooled = outputs.pooled.as_mut().map(|pooled| pooled.reborrow());
        whole.lse = outputs.lse.as_mut().map(|lse| lse.reborrow());
        Cpu::new().tin_into(&changed.op, batch, changed.inputs(inputs), whole)?;
        if let Some(mut lse) = outputs.lse.filter(|_| self.is(Fault::LseInBits)) {
            lse.iter_mut().for_each(|lse| *lse *= std::f32::consts::LOG2_E);
        }
        Ok(())
    }

    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &Batch,
        inputs: TinInputs<'_, Host, T>,
        saved: TinSaved<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grads: TinGradients<'_, Host, G>,
    ) -> Result<()> {
        let changed = Changed::new(self, op, batch, &inputs);
        let zeros = vec![T::from_f32(0.0); saved.pooled.len()];
        let mut saved = saved;
        if self.is(Fault::MeanGradientDropped) {
            saved.pooled = Host::view(&zeros);
        }
        Cpu::new().tin_backward_into(&changed.op, batch, changed.inputs(inputs), saved, grad_out, grads)
    }
}
