//! Wrong TIN.

use longseq::*;

use super::{Fault, Mutant};

impl TinOps for Mutant {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &Batch,
        inputs: TinInputs<'_, Host, T>,
        outputs: TinOutputs<'_, Host, T>,
    ) -> Result<()> {
        let (mut op, mut inputs, mut outputs) = (*op, inputs, outputs);
        if self.is(Fault::ScaleDropped) {
            op = op.with_scale(1.0);
        }
        if self.is(Fault::TargetForgotten) {
            op = op.with_multiply_target(false);
        }
        // Positions counted from the oldest behaviour.
        let mut oldest = vec![0; batch.histories().rows()];
        for history in batch.histories().ranges() {
            for (i, position) in oldest[history].iter_mut().enumerate() {
                *position = (i + 1).min(op.positions - 1) as u32;
            }
        }
        if self.is(Fault::OldestIsFirst) {
            inputs.history_positions = Some(Host::view(&oldest));
        }
        // Candidates without a position.
        let mut targets = inputs.targets.to_vec();
        for (m, row) in targets.chunks_mut(op.width).enumerate().take(batch.targets().total()) {
            let position = inputs.target_positions.map_or(0, |positions| positions[m] as usize);
            let added = &inputs.positions[position * op.width..(position + 1) * op.width];
            for (number, added) in row.iter_mut().zip(added) {
                *number = T::from_f32(number.to_f32() - added.to_f32());
            }
        }
        if self.is(Fault::PositionsOfKeysAlone) {
            inputs.targets = Host::view(&targets);
        }
        let mut whole = TinOutputs::new(outputs.out.reborrow());
        whole.pooled = outputs.pooled.as_mut().map(|pooled| pooled.reborrow());
        whole.lse = outputs.lse.as_mut().map(|lse| lse.reborrow());
        Cpu::new().tin_into(&op, batch, inputs, whole)?;
        if let Some(mut lse) = outputs.lse.filter(|_| self.is(Fault::LseInBits)) {
            lse.iter_mut().for_each(|lse| *lse *= std::f32::consts::LOG2_E);
        }
        Ok(())
    }
}
