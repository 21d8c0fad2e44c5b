//! One interface for every device.

use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::jagged::{Batch, Jagged};
use crate::memory::{Memory, View, ViewMut};
use crate::ops::*;

/// An owned buffer of backend `B`.
pub type Buffer<B, T> = <<B as Backend>::Memory as Memory>::Buffer<T>;
/// A device that runs the operations: the CPU, a GPU.
///
/// A model writes `fn score<B: Backend>(backend: &B, …)` once and runs on every device. The calls only enqueue;
/// [`download`](Self::download) and [`synchronize`](Self::synchronize) wait, and report what went wrong on the
/// device meanwhile. Every call checks its arguments first and changes nothing where it returns an error of the
/// kinds [`Shape`](crate::Error::Shape), [`Parameter`](crate::Error::Parameter),
/// [`Unsupported`](crate::Error::Unsupported) or [`Limit`](crate::Error::Limit).
///
/// Each operation comes as `name_into`, which writes where it is told and allocates no result, and as `name`, which
/// allocates the result. The same inputs on the same device give the same bits.
///
/// ```
/// use longseq::{Backend, Buffer, Jagged, Result, TargetAttention, TargetAttentionInputs};
///
/// /// Scores each candidate by what its user's history says of it.
/// fn interest<B: Backend>(
///     backend: &B,
///     history: &Buffer<B, f32>,
///     candidates: &Buffer<B, f32>,
///     batch: &B::Batch,
/// ) -> Result<Buffer<B, f32>> {
///     let inputs = TargetAttentionInputs {
///         queries: backend.view(candidates),
///         keys: backend.view(history),
///         values: None, // the history serves as values too
///         bias: None,
///     };
///     backend.target_attention(&TargetAttention::new(2), batch, inputs)
/// }
///
/// let backend = longseq::Cpu::new();
/// let history = backend.upload(&[1.0, 0.0, 0.0, 1.0])?; // one user, two behaviours of width 2
/// let candidates = backend.upload(&[9.0, 0.0])?; // one candidate, close to the first
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let out = interest(&backend, &history, &candidates, &batch)?;
/// assert!(backend.download(backend.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
pub trait Backend {
    /// Where its data live.
    type Memory: Memory;
    /// A [`Jagged`] made ready for the device: offsets uploaded, work planned.
    type Jagged: AsRef<Jagged>;
    /// A [`Batch`](crate::Batch) made ready for the device: offsets uploaded, work planned. Reuse it for every
    /// operation over the same histories and candidates.
    type Batch: AsRef<Batch>;

    /// What runs the operations, for people to read.
    fn device(&self) -> String;

    /// Another handle to the same device, memory, kernels and queue, which hears of its own calls alone.
    ///
    /// What a call finds on the device, such as an id out of range, is told to the next wait of the handle that made
    /// the call. Threads that answer requests side by side through one handle may be told of each other's errors, and
    /// then not of their own: give each request or thread a fork. It costs next to nothing.
    ///
    /// ```
    /// # use longseq::{Backend, Result};
    /// fn serve<B: Backend + Sync>(backend: &B, requests: usize) -> Result<()> {
    ///     std::thread::scope(|threads| {
    ///         let answer = |_| threads.spawn(|| backend.fork()?.synchronize());
    ///         let answers: Vec<_> = (0..requests).map(answer).collect();
    ///         answers.into_iter().try_for_each(|answer| answer.join().expect("no panic"))
    ///     })
    /// }
    /// # serve(&longseq::Cpu::new(), 2)?;
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn fork(&self) -> Result<Self>
    where
        Self: Sized;

    /// Copies data to the device.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn upload<T: Scalar>(&self, data: &[T]) -> Result<Buffer<Self, T>>;

    /// A buffer of zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn zeros<T: Scalar>(&self, length: usize) -> Result<Buffer<Self, T>>;

    /// Borrows a buffer to read.
    fn view<'a, T: Scalar>(&self, buffer: &'a Buffer<Self, T>) -> View<'a, Self::Memory, T> {
        View::new(Self::Memory::data(buffer))
    }

    /// Borrows a buffer to write.
    fn view_mut<'a, T: Scalar>(&self, buffer: &'a mut Buffer<Self, T>) -> ViewMut<'a, Self::Memory, T> {
        ViewMut::new(Self::Memory::data_mut(buffer))
    }

    /// Waits for everything enqueued and copies data to the host.
    ///
    /// # Errors
    /// What went wrong on the device since the last wait of this handle, such as
    /// [`IndexOutOfRange`](crate::Error::IndexOutOfRange); the device's own.
    fn download<T: Scalar>(&self, view: View<'_, Self::Memory, T>) -> Result<Vec<T>>;

    /// Waits for everything enqueued.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    fn synchronize(&self) -> Result<()>;

    /// Makes one side of a batch ready.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn jagged(&self, jagged: &Jagged) -> Result<Self::Jagged>;

    /// Makes a batch ready.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) where the two sides count different users;
    /// [`OutOfMemory`](crate::Error::OutOfMemory) and the device's own.
    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Self::Batch>;

    /// Target attention into a given output; see [`TargetAttention`].
    ///
    /// # Errors
    /// Those of [`TargetAttention::check`] and [`TargetAttention::check_outputs`].
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Self::Batch,
        inputs: TargetAttentionInputs<'_, Self::Memory, T>,
        outputs: TargetAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()>;

    /// Target attention, `[M, H, d_v]`; see [`TargetAttention`].
    ///
    /// # Errors
    /// As [`target_attention_into`](Self::target_attention_into).
    fn target_attention<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Self::Batch,
        inputs: TargetAttentionInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        let outputs = TargetAttentionOutputs { out: self.view_mut(&mut out), lse: None };
        self.target_attention_into(op, batch, inputs, outputs)?;
        Ok(out)
    }

    /// Merges softmax attention over two disjoint parts of the same histories, exactly:
    /// `lse = log(exp lse_a + exp lse_b)`, `out = exp(lse_a − lse)·out_a + exp(lse_b − lse)·out_b`. Any number of
    /// parts merges, two at a time, in any order. `op` gives the width of a value.
    ///
    /// # Errors
    /// Those of [`TargetAttention::check_merge`].
    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, Self::Memory, T>,
        second: PartialAttention<'_, Self::Memory, T>,
        outputs: TargetAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()>;

    /// DIN's local activation unit into a given output `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// Those of [`Din::check`].
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()>;

    /// DIN's local activation unit, `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// As [`din_into`](Self::din_into).
    fn din<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.din_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

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
    ) -> Result<()>;

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
    ) -> Result<()>;

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
    ) -> Result<()>;

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
    ) -> Result<()>;

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
    ) -> Result<()>;

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
    ) -> Result<()>;

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

    /// Looks rows up into given outputs; see [`Lookup`].
    ///
    /// # Errors
    /// Those of [`Lookup::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
        outputs: LookupOutputs<'_, Self::Memory>,
    ) -> Result<()>;

    /// Looks rows up: `[N or bags, Σ width]` from the tables, and from the second tables where there are some; see
    /// [`Lookup`].
    ///
    /// # Errors
    /// As [`lookup_into`](Self::lookup_into).
    #[expect(
        clippy::type_complexity,
        reason = "a pair of buffers, the second optional, is what the call gives"
    )]
    fn lookup(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
    ) -> Result<(Buffer<Self, f32>, Option<Buffer<Self, f32>>)> {
        let rows = match &bags {
            Bags::Each => inputs.ids.len() / inputs.tables.len().max(1),
            Bags::Sum(bags) | Bags::Mean(bags) => (*bags).as_ref().users(),
        };
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

    /// The best behaviours of each candidate into given outputs; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
        out: SelectionMut<'_, Self::Memory>,
    ) -> Result<()>;

    /// The best behaviours of each candidate; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_search_into`](Self::decoupled_search_into).
    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
    ) -> Result<SelectionBuffers<Self::Memory>> {
        let length = op.selection_length(batch.as_ref())?;
        let mut kept = SelectionBuffers {
            positions: self.zeros(length)?,
            scores: self.zeros(length)?,
            counts: self.zeros(batch.as_ref().targets().rows())?,
        };
        let out = SelectionMut {
            positions: self.view_mut(&mut kept.positions),
            scores: self.view_mut(&mut kept.scores),
            counts: self.view_mut(&mut kept.counts),
        };
        self.decoupled_search_into(op, batch, inputs, out)?;
        Ok(kept)
    }

    /// The softmax-weighted sum over a selection into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_aggregate`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for ids by
    /// [`IdPolicy`], and always for a count above `K` or a counted position outside its history.
    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()>;

    /// The softmax-weighted sum over a selection, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_aggregate_into`](Self::decoupled_aggregate_into).
    fn decoupled_aggregate(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_aggregate_into(op, batch, inputs, selection, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// Search and aggregation in one call, into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()>;

    /// Search and aggregation in one call, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// As [`decoupled_attend_into`](Self::decoupled_attend_into).
    fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
