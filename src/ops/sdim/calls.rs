//! The calls of SDIM.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf, Signature};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::sdim::inputs::{SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
use crate::ops::sdim::parameters::Sdim;

/// SDIM on a device: signatures, bucket tables, queries; see [`Sdim`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait SdimOps: DeviceOps {
    /// SDIM signatures of rows `[rows, d]` into a given output `[rows, G]`; see [`Sdim`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Sdim};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(2).with_groups(1, 2);
    /// let rotations = [1.0_f32, 0.0, 0.0, 1.0]; // [d, G, τ]: bit t is the sign of element t
    /// let rows = [5.0_f32, -1.0, 5.0, 1.0, -5.0, 1.0];
    /// let mut signatures = [0_u8; 3];
    /// backend.sdim_signatures_into(
    ///     &op,
    ///     Host::view(&rows),
    ///     Host::view(&rotations),
    ///     Host::view_mut(&mut signatures),
    /// )?;
    /// assert_eq!(signatures, [0b01, 0b11, 0b10]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
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

    /// SDIM bucket tables of histories into a given output `[B, G, 2^τ, d]`, or into those of their slots ([`Sdim`]).
    ///
    /// # Errors
    /// Those of [`Sdim::check_encode`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given signature of `2^τ` or more, and an id without an item.
    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Self::Jagged,
        inputs: SdimEncodeInputs<'_, Self::Memory, T>,
        table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, histories, inputs, table);
        Err(unsupported(self, "sdim_encode"))
    }

    /// SDIM bucket tables of histories, `[B, G, 2^τ, d]`; see [`Sdim`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1); // two buckets per user
    /// let histories = backend.jagged(&Jagged::from_lengths(&[3, 0])?)?;
    /// let (rows, signatures) = ([1.0_f32, 2.0, 4.0], [0_u8, 1, 0]);
    /// let behaviours = SdimEncodeInputs::new(Host::view(&rows), Hash::Signatures8(Host::view(&signatures)));
    /// let table = backend.sdim_encode(&op, &histories, behaviours)?;
    /// assert_eq!(*table, [5.0, 2.0, 0.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sdim_encode_into`](Self::sdim_encode_into).
    fn sdim_encode<T: Element>(
        &self,
        op: &Sdim,
        histories: &Self::Jagged,
        inputs: SdimEncodeInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, f32>> {
        op.check_encode("sdim_encode", histories.as_ref(), &inputs)?;
        let mut table = self.zeros(op.table_length(histories.as_ref().slot_count())?)?;
        self.sdim_encode_into(op, histories, inputs, self.view_mut(&mut table))?;
        Ok(table)
    }

    /// Adds new behaviours of each user to the user's table `[B, G, 2^τ, d]`, or to that of the slot, in place; see [`Sdim`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1);
    /// let mut table = backend.upload(&[5.0, 2.0])?; // one user
    /// let new = backend.jagged(&Jagged::from_lengths(&[1])?)?;
    /// let behaviour = SdimEncodeInputs::new(Host::view(&[3.0_f32]), Hash::Signatures8(Host::view(&[1])));
    /// backend.sdim_append(&op, &new, behaviour, backend.view_mut(&mut table))?;
    /// assert_eq!(*table, [5.0, 5.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sdim_encode_into`](Self::sdim_encode_into).
    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Self::Jagged,
        inputs: SdimEncodeInputs<'_, Self::Memory, T>,
        table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, new, inputs, table);
        Err(unsupported(self, "sdim_append"))
    }

    /// Adds bucket tables to others of the same users, in place: the tables of two spans of a history add up to the table
    /// of both.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Sdim};
    ///
    /// let backend = Cpu::new();
    /// let (mut table, other) = (backend.upload(&[5.0, 2.0])?, backend.upload(&[1.0, -2.0])?);
    /// let op = Sdim::new(1).with_groups(1, 1);
    /// backend.sdim_add_tables(&op, backend.view_mut(&mut table), backend.view(&other))?;
    /// assert_eq!(*table, [6.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
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

    /// Takes behaviours of each user from the user's bucket table `[B, G, 2^τ, d]`, in place: the inverse of
    /// [`sdim_append`](Self::sdim_append) of the same rows, signatures and weights.
    ///
    /// ```text
    /// T[b,g,c,:] −= Σ_{l of `gone` of user b, sig[g](s_l) = c} w_l·s_l        w_l = 1 without weights
    /// ```
    ///
    /// The rows leave the table, the rounding errors of their additions stay: without behaviours a table is close to 0, not 0.
    /// A number is off by as many roundings as it had additions and subtractions (400 in each call at most), each of `2⁻²⁴` of the
    /// largest sum of magnitudes so far. Where a behaviour was NaN or infinite, its buckets are NaN in that column from then on
    /// (`∞ − ∞` is NaN). Encoding anew mends both.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1); // two buckets per user
    /// let (rows, signatures) = ([1.0_f32, 2.0, 4.0], [0_u8, 1, 0]); // oldest first
    /// let behaviours = SdimEncodeInputs::new(Host::view(&rows), Hash::Signatures8(Host::view(&signatures)));
    /// let all = backend.jagged(&Jagged::from_lengths(&[3])?)?;
    /// let mut table = backend.sdim_encode(&op, &all, behaviours)?;
    /// assert_eq!(*table, [5.0, 2.0]);
    /// let oldest = backend.jagged(&Jagged::from_starts(&[0], &[2], 3)?)?; // of the rows that were encoded
    /// backend.sdim_remove(&op, &oldest, behaviours, backend.view_mut(&mut table))?;
    /// assert_eq!(*table, [4.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sdim_encode_into`](Self::sdim_encode_into).
    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &Self::Jagged,
        inputs: SdimEncodeInputs<'_, Self::Memory, T>,
        table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, gone, inputs, table);
        Err(unsupported(self, "sdim_remove"))
    }

    /// Multiplies bucket tables `[B, G, 2^τ, d]`, in place, by a factor `[1]`, or each by that of its user `[B]`: `T[b,:,:,:] *= f_b`.
    ///
    /// It is what encoding gives with all weights times the factor, but for rounding. As IEEE has it, a factor of 0 leaves NaN where a
    /// table is not finite. To take a behaviour out later, its weight is the product of the factors since it was added.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Sdim};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1);
    /// let mut table = backend.upload(&[4.0, 2.0, 8.0, 0.0])?; // two users
    /// // Once a day what the first user did counts half as much, and what the second did a quarter.
    /// backend.sdim_decay(&op, backend.view_mut(&mut table), Host::view(&[0.5, 0.25]))?;
    /// assert_eq!(*table, [2.0, 1.0, 2.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Sdim::check_decay`].
    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Self::Memory, f32>,
        factors: View<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, table, factors);
        Err(unsupported(self, "sdim_decay"))
    }

    /// SDIM from existing tables into a given output `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_query`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a user without a table, a given signature of `2^τ` or more, and an id without an item.
    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Self::Jagged,
        inputs: SdimQueryInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, targets, inputs, out);
        Err(unsupported(self, "sdim_query"))
    }

    /// SDIM from existing tables, `[M, d]`; see [`Sdim`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimQueryInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(2).with_groups(1, 1).with_normalise(true);
    /// let table = [3.0, 4.0, 0.0, 2.0]; // one user: the sums of two buckets
    /// let targets = backend.jagged(&Jagged::from_lengths(&[2])?)?;
    /// // Given signatures need no rows of candidates.
    /// let query = SdimQueryInputs::new(Host::view(&table), Hash::Signatures8(Host::view(&[1, 0])));
    /// let out = backend.sdim_query::<f32>(&op, &targets, query)?;
    /// assert!(out.iter().zip([0.0, 1.0, 0.6, 0.8]).all(|(out, exact)| (out - exact).abs() < 1e-6));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sdim_query_into`](Self::sdim_query_into).
    fn sdim_query<T: Element>(
        &self,
        op: &Sdim,
        targets: &Self::Jagged,
        inputs: SdimQueryInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check_query("sdim_query", targets.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(targets.as_ref())?)?;
        self.sdim_query_into(op, targets, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// SDIM without a table, for `2^τ` larger than the length of a history, into a given output `[M, d]`; see [`Sdim`].
    ///
    /// # Errors
    /// Those of [`Sdim::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for a given signature of
    /// `2^τ` or more, and an id without an item.
    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Self::Batch,
        inputs: SdimAttendInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "sdim_attend"))
    }

    /// SDIM without a table, `[M, d]`; see [`Sdim`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimAttendInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(2).with_groups(4, 10); // tables would have 1024 buckets per group
    /// let rotations = op.rotations(7)?;
    /// let hash = Hash::Rotations(Host::view(&rotations));
    /// let batch = backend.batch(&Jagged::from_lengths(&[1])?, &Jagged::from_lengths(&[1])?)?;
    /// let row = [0.6_f32, 0.8]; // a candidate equal to the only behaviour shares all its buckets
    /// let inputs = SdimAttendInputs::new(Host::view(&row), hash, hash).with_targets(Host::view(&row));
    /// let out = backend.sdim_attend(&op, &batch, inputs)?;
    /// assert!(out.iter().zip(row).all(|(out, exact)| (out - exact).abs() < 1e-6));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sdim_attend_into`](Self::sdim_attend_into).
    fn sdim_attend<T: Element>(
        &self,
        op: &Sdim,
        batch: &Self::Batch,
        inputs: SdimAttendInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check_attend("sdim_attend", batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref().targets())?)?;
        self.sdim_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// The gradient of the table in [`sdim_query_into`](Self::sdim_query_into), `[B, G, 2^τ, d]`; `grad_out` is that of the output,
    /// `[M, d]`. With `T` a bucket row, `u = T/‖T‖`, summed over the user's candidates `m` with `sig[g](q_m) = c`:
    ///
    /// ```text
    /// dT[b,g,c,:] = Σ_m (grad_out[m] − u·⟨u, grad_out[m]⟩) / (G·‖T‖)      normalised
    /// dT[b,g,c,:] = Σ_m grad_out[m] / G                                   not normalised
    /// ```
    ///
    /// Every row of `grad_table` is overwritten, with zeros where no candidate reads the bucket, and where the length of a bucket
    /// row is below [`Sdim::MIN_NORM`]. The hash has no gradient, so candidates have none. Nothing is saved by the forward pass.
    /// It takes one addition per candidate, group and column, and a few operations per number of the table.
    ///
    /// On every backend. `Wgpu` binds table and gradient as a whole, as the forward pass does the table: where one is larger than
    /// the device's largest binding, the error is [`Limit`](crate::Error::Limit).
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimQueryInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(2).with_groups(1, 1);
    /// let targets = backend.jagged(&Jagged::from_lengths(&[1])?)?;
    /// let table = [0.0, 2.0, 5.0, 5.0]; // two buckets
    /// let signatures = [0_u8];
    /// let inputs =
    ///     SdimQueryInputs::<_, f32>::new(Host::view(&table), Hash::Signatures8(Host::view(&signatures)));
    /// let (grad_out, mut grad_table) = ([3.0, 7.0], [9.0; 4]);
    /// backend.sdim_query_backward_into(
    ///     &op,
    ///     &targets,
    ///     inputs,
    ///     Host::view(&grad_out),
    ///     Host::view_mut(&mut grad_table),
    /// )?;
    /// assert_eq!(grad_table, [1.5, 0.0, 0.0, 0.0]); // only across the row counts, over its length
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sdim_query_into`](Self::sdim_query_into), [`Sdim::check_grad_out`] and [`Sdim::check_grad_table`].
    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Self::Jagged,
        inputs: SdimQueryInputs<'_, Self::Memory, T>,
        grad_out: View<'_, Self::Memory, T>,
        grad_table: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, targets, inputs, grad_out, grad_table);
        Err(unsupported(self, "sdim_query_backward"))
    }

    /// The gradient of the history in [`sdim_encode_into`](Self::sdim_encode_into), `[N, d]`; `grad_table` is that of the table,
    /// `[B, G, 2^τ, d]`:
    ///
    /// ```text
    /// ds_l = w_l·Σ_g grad_table[b, g, sig[g](s_l), :]        w_l = 1 without weights
    /// ```
    ///
    /// Weights have no gradient here.
    /// For [`sdim_append`](Self::sdim_append) this is the gradient of the new behaviours, with their `Jagged` as
    /// `histories`; that of the table that they are added to is `grad_table` itself. Behaviours are hashed again, and the hash has
    /// no gradient. Rows that belong to nobody are left as they are.
    ///
    /// On every backend. `Wgpu` binds `grad_table` as a whole: where it is larger than the device's largest binding, the error is
    /// [`Limit`](crate::Error::Limit).
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(2, 1);
    /// let histories = backend.jagged(&Jagged::from_lengths(&[2])?)?;
    /// let (history, signatures) = ([5.0_f32, 6.0], [0_u8, 0, 0, 1]); // [N, G]
    /// let inputs = SdimEncodeInputs::new(Host::view(&history), Hash::Signatures8(Host::view(&signatures)));
    /// let (grad_table, mut grads) = ([1.0, 2.0, 30.0, 40.0], [0.0; 2]);
    /// let (from, to) = (Host::view(&grad_table), Host::view_mut(&mut grads));
    /// backend.sdim_encode_backward_into::<f32, f32>(&op, &histories, inputs, from, to)?;
    /// assert_eq!(grads, [31.0, 41.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sdim_encode_into`](Self::sdim_encode_into), [`Sdim::check_grad_table`] and [`Sdim::check_grad_history`].
    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &Self::Jagged,
        inputs: SdimEncodeInputs<'_, Self::Memory, T>,
        grad_table: View<'_, Self::Memory, f32>,
        grad_history: ViewMut<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, histories, inputs, grad_table, grad_history);
        Err(unsupported(self, "sdim_encode_backward"))
    }

    /// The gradient of the history in [`sdim_attend_into`](Self::sdim_attend_into), `[N, d]`; `grad_out` is that of the output,
    /// `[M, d]`: [`sdim_query_backward_into`](Self::sdim_query_backward_into) at the table of the histories, then
    /// [`sdim_encode_backward_into`](Self::sdim_encode_backward_into), without a table. The sums of the buckets that candidates
    /// read are computed again.
    ///
    /// On every backend, for some users at a time, so that memory does not grow with the batch. Single users may take more: on `Cuda` and
    /// `Wgpu` up to `C·G·d` numbers, for which `Wgpu` answers [`Limit`](crate::Error::Limit) where they exceed the device's largest binding.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimAttendInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1).with_normalise(false);
    /// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    /// let (history, of_history, of_target) = ([5.0_f32, 6.0], [0_u8, 1], [1_u8]);
    /// let hashes = [&of_history[..], &of_target[..]].map(|given| Hash::Signatures8(Host::view(given)));
    /// let inputs = SdimAttendInputs::new(Host::view(&history), hashes[0], hashes[1]);
    /// let (grad_out, mut grads) = ([2.0], [9.0; 2]);
    /// let (from, to) = (Host::view(&grad_out), Host::view_mut(&mut grads));
    /// backend.sdim_attend_backward_into::<f32, f32>(&op, &batch, inputs, from, to)?;
    /// assert_eq!(grads, [0.0, 2.0]); // the candidate reads the second bucket only
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sdim_attend_into`](Self::sdim_attend_into), [`Sdim::check_grad_out`] and [`Sdim::check_grad_history`].
    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &Self::Batch,
        inputs: SdimAttendInputs<'_, Self::Memory, T>,
        grad_out: View<'_, Self::Memory, T>,
        grad_history: ViewMut<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, grad_out, grad_history);
        Err(unsupported(self, "sdim_attend_backward"))
    }
}
