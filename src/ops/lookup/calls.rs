//! The calls of look-ups.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::Result;
use crate::ops::lookup::backward::{LookupGradOut, LookupGradients, LookupSaved};
use crate::ops::lookup::inputs::{Bags, LookupInputs, LookupOutputs};
use crate::ops::lookup::parameters::Lookup;
use crate::ops::lookup::sorted_ids::{IdColumn, SortedIdsBuffers, SortedIdsMut};
use crate::ops::lookup::sparse_gradient::{SparseGradient, SparseGradientBuffers};
use crate::ops::lookup::update_rows::{Optimiser, OptimiserState, TableMut};
use crate::ops::shape::{dim, elements};

/// Look-ups in embedding tables on a device; see [`Lookup`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait LookupOps: DeviceOps {
    /// Looks rows up and writes them into given outputs; see [`Lookup`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, Lookup, LookupInputs, LookupOutputs, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let (attention, representation) = ([1.0_f32, 2.0, 3.0], [10.0_f32, 20.0, 30.0]);
    /// let first = [Table::new(3, 1, TableData::F32(Host::view(&attention)))];
    /// let second = [Table::new(3, 1, TableData::F32(Host::view(&representation)))];
    /// let inputs = LookupInputs::new(Host::view(&[2, 1]), &first).with_second_tables(&second);
    /// let (mut a, mut r) = ([0.0; 2], [0.0; 2]);
    /// let outputs = LookupOutputs::new(Host::view_mut(&mut a)).with_second(Host::view_mut(&mut r));
    /// backend.lookup_into(&Lookup::default(), Bags::Each, inputs, outputs)?;
    /// assert_eq!((a, r), ([3.0, 2.0], [30.0, 20.0]));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Lookup::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`](crate::IdPolicy).
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
        outputs: LookupOutputs<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, bags, inputs, outputs);
        Err(unsupported(self, "lookup"))
    }

    /// Looks rows up: `[N or bags, Σ width]` from the tables, and from the second tables if there are any; see [`Lookup`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, Jagged, Lookup, LookupInputs, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// // Two rows of two numbers: value = scale[row]·code + offset[row].
    /// let (codes, scale, offset) = ([2_i8, 4, -1, 1], [0.5_f32, 2.0], [0.0, 3.0]);
    /// let data = TableData::Int8 {
    ///     codes: Host::view(&codes),
    ///     scale: Host::view(&scale),
    ///     offset: Host::view(&offset),
    /// };
    /// let tables = [Table::new(2, 2, data)];
    /// let bags = backend.jagged(&Jagged::from_lengths(&[3, 0])?)?; // a bag of three ids, and an empty one
    /// let inputs = LookupInputs::new(Host::view(&[0, 1, 1]), &tables);
    /// let (sums, _) = backend.lookup(&Lookup::default(), Bags::Sum(&bags), inputs)?;
    /// assert_eq!(*sums, [3.0, 12.0, 0.0, 0.0]);
    /// let (means, _) = backend.lookup(&Lookup::default(), Bags::Mean(&bags), inputs)?;
    /// assert_eq!(*means, [1.0, 4.0, 0.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lookup_into`](Self::lookup_into).
    #[expect(clippy::type_complexity, reason = "the call returns a pair of buffers, the second optional")]
    fn lookup(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
    ) -> Result<(Buffer<Self, f32>, Option<Buffer<Self, f32>>)> {
        // Checked before anything is allocated, here and in the other calls that allocate.
        let rows = op.check(&bags, &inputs)?;
        let mut out = self.zeros(op.output_length(rows, inputs.tables)?)?;
        let mut second = match inputs.second_tables {
            [] => None,
            tables => Some(self.zeros(op.output_length(rows, tables)?)?),
        };
        let outputs = LookupOutputs {
            out: self.view_mut(&mut out),
            second: second.as_mut().map(|second| self.view_mut(second)),
        };
        self.lookup_into(op, bags, inputs, outputs)?;
        Ok((out, second))
    }

    /// Puts a column of ids in order, with the positions of each, into given outputs: a stable sort.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, IdColumn};
    ///
    /// let backend = Cpu::new();
    /// // Rows of (item, category), read from a table of 10 items.
    /// let ids = [7, 0, 3, 1, 7, 2];
    /// let sorted = backend.sort_ids(IdColumn::new(Host::view(&ids), 2, 0, 10))?;
    /// assert_eq!(*sorted.count, [2]);
    /// assert_eq!(sorted.ids[..2], [3, 7]);
    /// assert_eq!(sorted.starts[..3], [0, 1, 3]);
    /// assert_eq!(sorted.positions[..3], [1, 0, 2]); // item 7 is at positions 0 and 2
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`IdColumn::check_outputs`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by
    /// [`IdPolicy`](crate::IdPolicy), with the place of the id in `ids` or `more_ids` (on a GPU from the next wait; the id is left out);
    /// [`Limit`](crate::Error::Limit) on `Wgpu` for a list that exceeds a binding, or a table of 2³² − 1 rows or more.
    fn sort_ids_into(
        &self,
        column: IdColumn<'_, Self::Memory>,
        out: SortedIdsMut<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (column, out);
        Err(unsupported(self, "sort_ids"))
    }

    /// Puts a column of ids in order; see [`sort_ids_into`](Self::sort_ids_into).
    ///
    /// # Errors
    /// As [`sort_ids_into`](Self::sort_ids_into).
    fn sort_ids(&self, column: IdColumn<'_, Self::Memory>) -> Result<SortedIdsBuffers<Self::Memory>> {
        let (positions, capacity) = (column.check()?, column.capacity()?);
        let (ids, starts) = (self.zeros(capacity)?, self.zeros(capacity + 1)?);
        let mut sorted = SortedIdsBuffers::new(ids, starts, self.zeros(positions)?, self.zeros(1)?);
        self.sort_ids_into(column, sorted.sorted_mut())?;
        Ok(sorted)
    }

    /// Allocates the sparse gradient of a table of rows of `width`, with room for `capacity` of them.
    ///
    /// # Errors
    /// [`Limit`](crate::Error::Limit), [`OutOfMemory`](crate::Error::OutOfMemory), and the errors of the device.
    fn sparse_gradient(&self, capacity: usize, width: usize) -> Result<SparseGradientBuffers<Self::Memory>> {
        let rows = elements("sparse_gradient", "rows", &[dim("capacity", capacity), dim("width", width)])?;
        Ok(SparseGradientBuffers::new(self.zeros(capacity)?, self.zeros(rows)?, self.zeros(1)?))
    }

    /// The gradients of the tables, and of the weights, of a [`lookup`](Self::lookup), of those that are asked for.
    ///
    /// With `g` the part of a row of `grad_out` that belongs to a table:
    ///
    /// ```text
    /// dtable[id] = Σ_{rows l with this id} g_l                     each
    /// dtable[id] = Σ_{rows l with this id} g_bag(l)                sum
    /// dtable[id] = Σ_{rows l with this id} w_l · g_bag(l)          sum with weights
    /// dtable[id] = Σ_{rows l with this id} g_bag(l) / |bag(l)|     mean
    /// dw[l,f]    = ⟨R_f[ids[l,f]], g_bag(l)⟩                       the same of the second tables added
    /// ```
    ///
    /// An id that occurs several times, in a bag too, counts as often. An id outside its table
    /// has no gradient, nor has its weight (zero); it counts in `|bag|` with [`IdPolicy::Zero`](crate::IdPolicy::Zero), and not with
    /// [`IdPolicy::Skip`](crate::IdPolicy::Skip). The gradient of an int8 table is that of its
    /// decoded rows. What tables hold is read for the gradient of weights alone, otherwise only their sizes. Sums are in the order of the
    /// rows of ids, by parts: their error does not grow with the number of rows that an id has, and two runs give the same bits.
    ///
    /// The forward pass saves nothing. Ids are sorted once per feature, for its tables in both lists; with
    /// [`LookupSaved::with_sorted`] not at all, and then `ids` are read for the gradient of weights, and for means with
    /// [`IdPolicy::Skip`](crate::IdPolicy::Skip), alone. Cost: the sort, and the bytes of [`Lookup::backward_bytes`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupSaved, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let rows = [0.0_f32; 4 * 2];
    /// let tables = [Table::new(4, 2, TableData::F32(Host::view(&rows)))];
    /// let inputs = LookupInputs::new(Host::view(&[3, 1, 3]), &tables);
    /// let grad_out = [1.0_f32, 2.0, 10.0, 20.0, 100.0, 200.0];
    ///
    /// let mut gradient = backend.sparse_gradient(3, 2)?;
    /// let grads = LookupGradients::new().with_tables([Some(gradient.table_gradient())]);
    /// let grad_out = LookupGradOut::new(Host::view(&grad_out));
    /// backend.lookup_backward_into(&Lookup::default(), Bags::Each, inputs, LookupSaved::new(), grad_out, grads)?;
    /// assert_eq!(*gradient.count, [2]);
    /// assert_eq!(gradient.ids[..2], [1, 3]);
    /// assert_eq!(gradient.rows[..4], [10.0, 20.0, 101.0, 202.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Lookup::check_backward`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by
    /// [`IdPolicy`](crate::IdPolicy), and for ids in order that name a row or a position outside, or are more than the rows of `ids`;
    /// `Parameter` where they are in no order. (On a GPU the next wait reports these; what is written for ids in order that are wrong is a gradient
    /// without rows.) [`Limit`](crate::Error::Limit) on `Wgpu` for what exceeds a binding.
    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
        saved: LookupSaved<'_, Self::Memory>,
        grad_out: LookupGradOut<'_, Self::Memory>,
        grads: LookupGradients<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, bags, inputs, saved, grad_out, grads);
        Err(unsupported(self, "lookup_backward"))
    }

    /// A step of an optimiser on the rows of a table that have a gradient, in place; see [`Optimiser`].
    ///
    /// A NaN in the gradient is the caller's: it stays in its row.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Optimiser, OptimiserState, SparseGradient, TableMut};
    ///
    /// let backend = Cpu::new();
    /// let (mut table, mut sums) = ([1.0_f32, 1.0, 2.0, 2.0], [0.0_f32; 4]); // two rows of width 2
    /// let gradient = SparseGradient::new(Host::view(&[1]), Host::view(&[3.0, -4.0]), Host::view(&[1]));
    /// let state = OptimiserState::Sums(Host::view_mut(&mut sums));
    /// backend.update_rows(&Optimiser::adagrad(0.5), TableMut::new(2, 2, Host::view_mut(&mut table)), state, gradient)?;
    /// assert_eq!(table, [1.0, 1.0, 1.5, 2.5]);
    /// assert_eq!(sums, [0.0, 0.0, 9.0, 16.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Optimiser::check_update`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for an id beyond the table and a count
    /// beyond the capacity; [`Parameter`](crate::Error::Parameter) for ids that do not ascend. Nothing is changed then (on a GPU the next
    /// wait reports these three). [`Limit`](crate::Error::Limit) on `Wgpu` for a table, state or gradient that exceeds a binding.
    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, Self::Memory, T>,
        state: OptimiserState<'_, Self::Memory>,
        gradient: SparseGradient<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, table, state, gradient);
        Err(unsupported(self, "update_rows"))
    }
}
