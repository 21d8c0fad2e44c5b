//! SDIM.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyJagged, AnyMemory, Kind};
use crate::any::open::{Open, opens};
use crate::element::{Element, GradientOf, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};

opens! {
    SdimEncodeInputs<T> { history, hash, weights } as [];
    SdimQueryInputs<T> { table, users, targets, hash } as [];
    SdimAttendInputs<T> { history, history_hash, targets, target_hash } as [];
}

impl<'a, S: Kind> Open<S> for Hash<'a, AnyMemory> {
    type Opened = Hash<'a, S>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::Rotations(rotations) => Hash::Rotations(rotations.open(operation, argument)?),
            Self::Signatures8(given) => Hash::Signatures8(given.open(operation, argument)?),
            Self::Signatures16(given) => Hash::Signatures16(given.open(operation, argument)?),
            Self::Items8 { signatures, ids } => Hash::Items8 {
                signatures: signatures.open(operation, argument)?,
                ids: ids.open(operation, argument)?,
            },
            Self::Items16 { signatures, ids } => Hash::Items16 {
                signatures: signatures.open(operation, argument)?,
                ids: ids.open(operation, argument)?,
            },
        })
    }
}

impl SdimOps for AnyBackend {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, AnyMemory, T>,
        rotations: View<'_, AnyMemory, f32>,
        out: ViewMut<'_, AnyMemory, W>,
    ) -> Result<()> {
        call!("sdim_signatures", self.sdim_signatures_into(op; rows, rotations, out))
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &AnyJagged,
        inputs: SdimEncodeInputs<'_, AnyMemory, T>,
        table: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_encode", self.sdim_encode_into(op; histories, inputs, table))
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &AnyJagged,
        inputs: SdimEncodeInputs<'_, AnyMemory, T>,
        table: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_append", self.sdim_append(op; new, inputs, table))
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, AnyMemory, f32>,
        other: View<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_add_tables", self.sdim_add_tables(op; table, other))
    }

    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &AnyJagged,
        inputs: SdimEncodeInputs<'_, AnyMemory, T>,
        table: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_remove", self.sdim_remove(op; gone, inputs, table))
    }

    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, AnyMemory, f32>,
        factors: View<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_decay", self.sdim_decay(op; table, factors))
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &AnyJagged,
        inputs: SdimQueryInputs<'_, AnyMemory, T>,
        out: ViewMut<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("sdim_query", self.sdim_query_into(op; targets, inputs, out))
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &AnyBatch,
        inputs: SdimAttendInputs<'_, AnyMemory, T>,
        out: ViewMut<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("sdim_attend", self.sdim_attend_into(op; batch, inputs, out))
    }

    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &AnyJagged,
        inputs: SdimQueryInputs<'_, AnyMemory, T>,
        grad_out: View<'_, AnyMemory, T>,
        grad_table: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("sdim_query_backward", self.sdim_query_backward_into(op; targets, inputs, grad_out, grad_table))
    }

    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &AnyJagged,
        inputs: SdimEncodeInputs<'_, AnyMemory, T>,
        grad_table: View<'_, AnyMemory, f32>,
        grad_history: ViewMut<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("sdim_encode_backward", self.sdim_encode_backward_into(op; histories, inputs, grad_table, grad_history))
    }

    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &AnyBatch,
        inputs: SdimAttendInputs<'_, AnyMemory, T>,
        grad_out: View<'_, AnyMemory, T>,
        grad_history: ViewMut<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("sdim_attend_backward", self.sdim_attend_backward_into(op; batch, inputs, grad_out, grad_history))
    }
}
