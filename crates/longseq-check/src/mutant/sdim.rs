//! Wrong SDIM.

use longseq::*;

use super::{Fault, Mutant};

/// The same hash, with other items of rows if it is one of items.
pub(super) fn with_ids<'a>(hash: Hash<'a, Host>, ids: &'a [u32]) -> Hash<'a, Host> {
    let ids = Host::view(ids);
    match hash {
        Hash::Items8 { signatures, .. } => Hash::Items8 { signatures, ids },
        Hash::Items16 { signatures, .. } => Hash::Items16 { signatures, ids },
        other => other,
    }
}

impl Mutant {
    /// The inputs as this backend takes them, with its own [ids](Self::ids).
    pub(super) fn as_taken<'a, T: Element>(
        &self,
        mut inputs: SdimEncodeInputs<'a, Host, T>,
        ids: &'a [u32],
    ) -> SdimEncodeInputs<'a, Host, T> {
        if self.is(Fault::WeightsIgnored) {
            inputs.weights = None;
        }
        inputs.hash = with_ids(inputs.hash, ids);
        inputs
    }

    /// The items that this backend takes the rows for, if the hash names some.
    pub(super) fn ids(&self, op: &Sdim, hash: &Hash<'_, Host>) -> Vec<u32> {
        let (ids, items) = match hash {
            Hash::Items8 { signatures, ids } => (ids, signatures.len() / op.groups),
            Hash::Items16 { signatures, ids } => (ids, signatures.len() / op.groups),
            _ => return Vec::new(),
        };
        let mut ids = ids.to_vec();
        if self.is(Fault::ItemsIgnored) {
            (0..).zip(&mut ids).for_each(|(row, id)| *id = row % items as u32);
        }
        if self.is(Fault::ItemOfNeighbour) && !ids.is_empty() {
            ids.rotate_left(1);
        }
        ids
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
        let ids = self.ids(op, &inputs.hash);
        Cpu::new().sdim_encode_into(op, histories, self.as_taken(inputs, &ids), table)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        let ids = self.ids(op, &inputs.hash);
        let inputs = self.as_taken(inputs, &ids);
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
        let ids = self.ids(op, &inputs.hash);
        let inputs = self.as_taken(inputs, &ids);
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
        inputs: SdimQueryInputs<'_, Host, T>,
        mut out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        let (mut inputs, ids) = (inputs, self.ids(op, &inputs.hash));
        inputs.hash = with_ids(inputs.hash, &ids);
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
        let ids = [&inputs.history_hash, &inputs.target_hash].map(|hash| self.ids(op, hash));
        let mut inputs = inputs;
        inputs.history_hash = with_ids(inputs.history_hash, &ids[0]);
        inputs.target_hash = with_ids(inputs.target_hash, &ids[1]);
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
