//! The calls.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::sdim::parameters::*;

/// SDIM on a device: signatures, bucket tables, queries; see [`Sdim`].
///
/// A method that a backend does not implement answers [`Unsupported`](crate::Error::Unsupported).
pub trait SdimOps: DeviceOps {
    /// SDIM signatures of rows `[rows, d]` into a given output `[rows, G]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_signatures`].
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, Self::Memory, T>,
        rotations: View<'_, Self::Memory, f32>,
        out: ViewMut<'_, Self::Memory, W>,
    ) -> Result<()> {
        let _ = (op, rows, rotations, out);
        Err(unsupported(self, "sdim_signatures"))
    }

    /// SDIM bucket tables of histories into a given output `[B, G, 2^τ, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_encode`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given signature of
    /// `2^τ` or more.
    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Self::Jagged,
        inputs: SdimHistory<'_, Self::Memory, T>,
        table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, histories, inputs, table);
        Err(unsupported(self, "sdim_encode"))
    }

    /// SDIM bucket tables of histories, `[B, G, 2^τ, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// As [`sdim_encode_into`](Self::sdim_encode_into).
    fn sdim_encode<T: Element>(
        &self,
        op: &Sdim,
        histories: &Self::Jagged,
        inputs: SdimHistory<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, f32>> {
        let mut table = self.zeros(op.table_length(histories.as_ref().users())?)?;
        self.sdim_encode_into(op, histories, inputs, self.view_mut(&mut table))?;
        Ok(table)
    }

    /// Adds new behaviours of each user to the user's bucket table `[B, G, 2^τ, d]`, in place; see [`Sdim`].
    ///
    /// # Errors
    /// As [`sdim_encode_into`](Self::sdim_encode_into).
    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Self::Jagged,
        inputs: SdimHistory<'_, Self::Memory, T>,
        table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, new, inputs, table);
        Err(unsupported(self, "sdim_append"))
    }

    /// Adds bucket tables to others of the same users, in place: the tables of two parts of a history add up to the
    /// table of the whole.
    ///
    /// # Errors
    /// Those of [`Sdim::check_add`].
    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Self::Memory, f32>,
        other: View<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, table, other);
        Err(unsupported(self, "sdim_add_tables"))
    }

    /// SDIM from prebuilt tables into a given output `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_query`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given signature of
    /// `2^τ` or more.
    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Self::Jagged,
        inputs: SdimQuery<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, targets, inputs, out);
        Err(unsupported(self, "sdim_query"))
    }

    /// SDIM from prebuilt tables, `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// As [`sdim_query_into`](Self::sdim_query_into).
    fn sdim_query<T: Element>(
        &self,
        op: &Sdim,
        targets: &Self::Jagged,
        inputs: SdimQuery<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        let mut out = self.zeros(op.output_length(targets.as_ref())?)?;
        self.sdim_query_into(op, targets, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// SDIM without a table, for `2^τ` above the length of a history, into a given output `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given signature of
    /// `2^τ` or more.
    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Self::Batch,
        inputs: SdimInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "sdim_attend"))
    }

    /// SDIM without a table, `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// As [`sdim_attend_into`](Self::sdim_attend_into).
    fn sdim_attend<T: Element>(
        &self,
        op: &Sdim,
        batch: &Self::Batch,
        inputs: SdimInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        let mut out = self.zeros(op.output_length(batch.as_ref().targets())?)?;
        self.sdim_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
