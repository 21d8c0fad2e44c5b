//! Wrong SDIM.

use longseq::*;

use super::{Fault, Mutant};

impl Mutant {
    /// The inputs as this backend takes them.
    pub(super) fn with_weights<'a, T: Element>(
        &self,
        mut inputs: SdimEncodeInputs<'a, Host, T>,
    ) -> SdimEncodeInputs<'a, Host, T> {
        if self.is(Fault::WeightsIgnored) {
            inputs.weights = None;
        }
        inputs
    }
}

impl SdimOps for Mutant {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, Host, T>,
        rotations: View<'_, Host, f32>,
        mut out: ViewMut<'_, Host, W>,
    ) -> Result<()> {
        let negated: Vec<f32> = rotations.iter().map(|r| -r).collect();
        let zero_is_positive = self.is(Fault::ZeroIsPositive);
        let rotations = if zero_is_positive { Host::view(&negated[..]) } else { rotations };
        Cpu::new().sdim_signatures_into(op, rows, rotations, out.reborrow())?;
        for word in out.iter_mut() {
            let bits = word.to_u32();
            if zero_is_positive {
                *word = W::from_u32(!bits & ((1 << op.bits) - 1));
            }
            if self.is(Fault::BitsReversed) {
                *word = W::from_u32(bits.reverse_bits() >> (32 - op.bits));
            }
        }
        Ok(())
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        mut table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        if self.is(Fault::OtherTablesCleared) {
            table.fill(0.0);
        }
        Cpu::new().sdim_encode_into(op, histories, self.with_weights(inputs), table)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        let inputs = self.with_weights(inputs);
        if self.is(Fault::AppendReplaces) {
            return Cpu::new().sdim_encode_into(op, new, inputs, table);
        }
        Cpu::new().sdim_append(op, new, inputs, table)
    }

    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        let inputs = self.with_weights(inputs);
        if self.is(Fault::RemoveAdds) {
            return Cpu::new().sdim_append(op, gone, inputs, table);
        }
        Cpu::new().sdim_remove(op, gone, inputs, table)
    }

    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Host, f32>,
        factors: View<'_, Host, f32>,
    ) -> Result<()> {
        let mut factors = factors.to_vec();
        if self.is(Fault::FactorOfNeighbour) && !factors.is_empty() {
            factors.rotate_left(1);
        }
        Cpu::new().sdim_decay(op, table, Host::view(&factors))
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Host, f32>,
        other: View<'_, Host, f32>,
    ) -> Result<()> {
        Cpu::new().sdim_add_tables(op, table, other)
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        mut inputs: SdimQueryInputs<'_, Host, T>,
        mut out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        if self.is(Fault::OwnTable) {
            inputs.users = None;
        }
        if !self.is(Fault::NormalisedAfterMean) || !op.normalise {
            return Cpu::new().sdim_query_into(op, targets, inputs, out);
        }
        Cpu::new().sdim_query_into(&op.with_normalise(false), targets, inputs, out.reborrow())?;
        for row in out[..targets.total() * op.width].chunks_mut(op.width) {
            let norm = row.iter().map(|x| x.to_f32().powi(2)).sum::<f32>().sqrt().max(Sdim::MIN_NORM);
            row.iter_mut().for_each(|x| *x = T::from_f32(x.to_f32() / norm));
        }
        Ok(())
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimAttendInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        Cpu::new().sdim_attend_into(op, batch, inputs, out)
    }

    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQueryInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grad_table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        self.sdim_query_gradient(op, targets, inputs, grad_out, grad_table)
    }

    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        grad_table: View<'_, Host, f32>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        self.sdim_encode_gradient(op, histories, inputs, grad_table, grad_history)
    }

    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimAttendInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        self.sdim_attend_gradient(op, batch, inputs, grad_out, grad_history)
    }
}
