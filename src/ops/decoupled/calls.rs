//! The calls of decoupled embeddings.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::decoupled::backward::{
    AggregateGradients, DecoupledGradients, DecoupledSaved, SearchGradients,
};
use crate::ops::decoupled::inputs::*;
use crate::ops::decoupled::parameters::Decoupled;
use crate::ops::selection::{Selection, SelectionBuffers, SelectionMut};

/// Search and aggregation with decoupled embeddings on a device; see [`Decoupled`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait DecoupledOps: DeviceOps {
    /// The best behaviours of each candidate into given outputs; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`](crate::IdPolicy).
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
        out: SelectionMut<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "decoupled_search"))
    }

    /// The best behaviours of each candidate; see [`Decoupled`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, Host, Jagged, SearchInputs, Table, TableData, EMPTY_SLOT};
    ///
    /// let backend = Cpu::new();
    /// let attention = [1.0_f32, 2.0, 3.0, 4.0]; // the embeddings of four items, of width 1
    /// let tables = [Table::new(4, 1, TableData::F32(Host::view(&attention)))];
    /// // Two users with 3 and 1 behaviours, one candidate each.
    /// let batch = backend.batch(&Jagged::from_lengths(&[3, 1])?, &Jagged::from_lengths(&[1, 1])?)?;
    /// let inputs = SearchInputs::new(&tables, Host::view(&[0, 3, 2, 1]), Host::view(&[0, 0]));
    /// let kept = backend.decoupled_search(&Decoupled::new([1.0]).with_top_k(Some(2)), &batch, inputs)?;
    /// assert_eq!(*kept.positions, [1, 2, 0, EMPTY_SLOT]);
    /// assert_eq!(*kept.scores, [4.0, 3.0, 2.0, f32::NEG_INFINITY]);
    /// assert_eq!(*kept.counts, [2, 1]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`decoupled_search_into`](Self::decoupled_search_into).
    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
    ) -> Result<SelectionBuffers<Self::Memory>> {
        op.check_search(batch.as_ref(), &inputs)?;
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
    /// [`IdPolicy`](crate::IdPolicy), and always for a count above `K` or a counted position outside its history.
    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, selection, out);
        Err(unsupported(self, "decoupled_aggregate"))
    }

    /// The softmax-weighted sum over a selection, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// The selection may come from [`decoupled_search`](Self::decoupled_search)
    /// ([`SelectionBuffers::selection`]) or from a search of your own:
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{AggregateInputs, Cpu, Decoupled, Host, Jagged, Selection, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let representation = [1.0_f32, 10.0, 2.0, 20.0, 3.0, 30.0]; // three items, of width 2
    /// let tables = [Table::new(3, 2, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = AggregateInputs::new(&tables, Host::view(&[2, 1, 0]), Host::view(&[0]));
    /// // The candidate keeps the first and the third behaviour, with equal scores.
    /// let selection = Selection::new(Host::view(&[0, 2]), Host::view(&[5.0, 5.0]), Host::view(&[2]));
    /// let op = Decoupled::new([1.0]).with_top_k(Some(2));
    /// let out = backend.decoupled_aggregate(&op, &batch, inputs, selection)?;
    /// assert_eq!(*out, [2.0, 20.0]); // the mean of items 2 and 0
    /// # Ok::<(), longseq::Error>(())
    /// ```
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
        op.check_aggregate(batch.as_ref(), &inputs, &selection)?;
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_aggregate_into(op, batch, inputs, selection, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// Search and aggregation in one call, into a given output `[M, Σ r]`; see [`Decoupled`].
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`](crate::IdPolicy).
    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, f32>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "decoupled_attend"))
    }

    /// Search and aggregation in one call, `[M, Σ r]`; see [`Decoupled`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, DecoupledInputs, Host, Jagged, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let (attention, representation) = ([1.0_f32, 0.0, -1.0], [1.0_f32, 2.0, 4.0]); // three items, of width 1
    /// let attention = [Table::new(3, 1, TableData::F32(Host::view(&attention)))];
    /// let representation = [Table::new(3, 1, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = DecoupledInputs::new(&attention, &representation, Host::view(&[2, 0, 1]), Host::view(&[1]));
    /// // The candidate's attention row is 0, so all scores are equal. Without a top-K, all behaviours are kept.
    /// let op = Decoupled::new([1.0]).with_top_k(None).with_multiply_target(true);
    /// let out = backend.decoupled_attend(&op, &batch, inputs)?;
    /// assert!((out[0] - 2.0 * (4.0 + 1.0 + 2.0) / 3.0).abs() < 1e-6); // the mean, times the candidate's row
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`decoupled_attend_into`](Self::decoupled_attend_into).
    fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
    ) -> Result<Buffer<Self, f32>> {
        op.check_attend(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref(), inputs.representation)?)?;
        self.decoupled_attend_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// The gradients of attention tables from those of the scores that a search kept, `grad_scores` `[M, K]`: the second half of the
    /// backward pass where search and aggregation are two calls
    /// ([`decoupled_aggregate_backward_into`](Self::decoupled_aggregate_backward_into) is the first), or where the scores serve
    /// something else too.
    ///
    /// With `ds[m,l]` the gradient of the score of candidate `m` and the behaviour `l` that it keeps:
    ///
    /// ```text
    /// dA_f[target_ids[m,f]] += scale_f·ds[m,l]·A_f[ids[l,f]]
    /// dA_f[ids[l,f]]        += scale_f·ds[m,l]·A_f[target_ids[m,f]]
    /// ```
    ///
    /// The choice of the behaviours has no gradient. `selection` is what the search gave. Of it, positions, counts, and which scores
    /// are `-∞` are read: a behaviour with such a score has no gradient, whatever `grad_scores` holds there, and empty slots have
    /// none. Gradients have rows for the ids of the other kept behaviours and of the candidates that have such a behaviour; an id
    /// outside its table ([`IdPolicy::Zero`](crate::IdPolicy::Zero)) has none. Sums are in the order of candidates and slots, by
    /// parts: their error does not grow with the number of rows that an id has, and two runs give the same bits.
    ///
    /// The ids of kept behaviours are sorted once per feature. Cost: the sort, [`Decoupled::backward_flops`] and
    /// [`Decoupled::backward_bytes`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, Host, Jagged, SearchGradients, SearchInputs, Selection, Table, TableData, TableGradient};
    ///
    /// let backend = Cpu::new();
    /// let attention = [1.0_f32, 2.0, 3.0, 4.0]; // four items, of width 1
    /// let tables = [Table::new(4, 1, TableData::F32(Host::view(&attention)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = SearchInputs::new(&tables, Host::view(&[0, 3, 2]), Host::view(&[0]));
    /// let op = Decoupled::new([1.0]).with_top_k(Some(2));
    /// let kept = backend.decoupled_search(&op, &batch, inputs)?; // items 3 and 2
    ///
    /// let mut gradient = [0.0_f32; 4];
    /// let grads = SearchGradients::new().with_attention([Some(TableGradient::Dense(Host::view_mut(&mut gradient)))]);
    /// backend.decoupled_search_backward_into(&op, &batch, inputs, kept.selection(), Host::view(&[1.0, -2.0]), grads)?;
    /// assert_eq!(gradient, [1.0 * 4.0 - 2.0 * 3.0, 0.0, -2.0, 1.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search_backward`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) as for
    /// [`decoupled_aggregate_into`](Self::decoupled_aggregate_into); on GPUs [`Limit`](crate::Error::Limit) where slots
    /// (`M·K`) and candidates are more than a `u32` counts or, on `Wgpu`, 8 bytes for each, or 4 for each feature of a slot, do not
    /// fit a binding, or `K` is above 2^20.
    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: SearchInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
        grad_scores: View<'_, Self::Memory, f32>,
        grads: SearchGradients<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, selection, grad_scores, grads);
        Err(unsupported(self, "decoupled_search_backward"))
    }

    /// The gradients of an aggregation, of those that are asked for: to representation tables, and to the scores of the selection.
    ///
    /// `grad_out` is the gradient of the output, `[M, Σ r]`. With `r_l` the concatenated representations of a kept behaviour, `t`
    /// those of the candidate, and `g = grad_out[m] ⊙ t` with [`multiply_target`](Decoupled::multiply_target), `grad_out[m]` without:
    ///
    /// ```text
    /// dR_f[ids[l,f]]        += w_l·g_f
    /// dR_f[target_ids[m,f]] += (grad_out[m] ⊙ Σ_l w_l·r_l)_f                 with multiply_target
    /// dw_l = ⟨g, r_l⟩          dscore_l = w_l·(dw_l − Σ_i w_i·dw_i)
    /// ```
    ///
    /// Each `dw_l`, and each row of a gradient, must be within `f32`. Rows that gradients have, order of sums and cost: as for
    /// [`decoupled_search_backward_into`](Self::decoupled_search_backward_into), and candidates have rows with `multiply_target`
    /// only. The forward pass saves nothing; weights are computed again from the selection.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{AggregateGradients, AggregateInputs, Cpu, Decoupled, Host, Jagged, Selection, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let representation = [1.0_f32, 10.0, 2.0, 20.0, 3.0, 30.0]; // three items, of width 2
    /// let tables = [Table::new(3, 2, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = AggregateInputs::new(&tables, Host::view(&[2, 1, 0]), Host::view(&[0]));
    /// // The candidate keeps items 2 and 0, with equal scores: the output is their mean.
    /// let selection = Selection::new(Host::view(&[0, 2]), Host::view(&[5.0, 5.0]), Host::view(&[2]));
    /// let op = Decoupled::new([1.0]).with_top_k(Some(2));
    ///
    /// let mut gradient = backend.sparse_gradient(op.gradient_capacity(&batch).min(3), 2)?;
    /// let mut scores = [0.0; 2];
    /// let grads = AggregateGradients::new()
    ///     .with_representation([Some(gradient.table_gradient())])
    ///     .with_scores(Host::view_mut(&mut scores));
    /// backend.decoupled_aggregate_backward_into(&op, &batch, inputs, selection, Host::view(&[1.0, 0.0]), grads)?;
    /// assert_eq!((gradient.count[0], &gradient.ids[..2]), (2, &[0, 2][..]));
    /// assert_eq!(gradient.rows[..4], [0.5, 0.0, 0.5, 0.0]);
    /// assert_eq!(scores, [0.5, -0.5]); // item 2, above the mean, should score more
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Decoupled::check_aggregate_backward`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) as for
    /// [`decoupled_aggregate_into`](Self::decoupled_aggregate_into).
    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: AggregateInputs<'_, Self::Memory>,
        selection: Selection<'_, Self::Memory>,
        grad_out: View<'_, Self::Memory, f32>,
        grads: AggregateGradients<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, selection, grad_out, grads);
        Err(unsupported(self, "decoupled_aggregate_backward"))
    }

    /// The gradients of search and aggregation in one call, with a top-K or over the whole history: to representation tables as in
    /// [`decoupled_aggregate_backward_into`](Self::decoupled_aggregate_backward_into), and from its `dscore` to attention tables as in
    /// [`decoupled_search_backward_into`](Self::decoupled_search_backward_into), of those that are asked for.
    ///
    /// With a [`top_k`](Decoupled::top_k), [`DecoupledSaved::with_selection`] gives what the search kept; the behaviours are searched
    /// again without, unless the `top_k` is at least the longest history, which keeps everything. (For training, let the forward pass
    /// be [`decoupled_search`](Self::decoupled_search) and [`decoupled_aggregate`](Self::decoupled_aggregate), and keep the selection.)
    /// Without a `top_k` nothing is saved: scores are computed again twice, block by block, once for the softmax and once for the
    /// gradients.
    ///
    /// Ids are sorted once per feature, for both of its tables (over a whole history that is taken in several parts, those of each part
    /// again). Nothing of the size of candidates × behaviours is stored. Cost: the
    /// sort, [`Decoupled::backward_flops`] and [`Decoupled::backward_bytes`]; without a selection the search, or without a `top_k` a
    /// forward pass, in addition. Over a whole history, GPUs need `Σ_l |dw_l|` of a candidate within `f32`, too.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledSaved, Host, Jagged, Table, TableData, TableGradient};
    ///
    /// let backend = Cpu::new();
    /// let (attention, representation) = ([1.0_f32, 0.0, -1.0], [1.0_f32, 2.0, 4.0]); // three items, of width 1
    /// let attention = [Table::new(3, 1, TableData::F32(Host::view(&attention)))];
    /// let representation = [Table::new(3, 1, TableData::F32(Host::view(&representation)))];
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let inputs = DecoupledInputs::new(&attention, &representation, Host::view(&[2, 0, 1]), Host::view(&[1]));
    /// // The candidate's attention row is 0, so all weights are 1/3.
    /// let op = Decoupled::new([1.0]).with_top_k(None);
    ///
    /// let (mut da, mut dr) = ([f32::NAN; 3], [f32::NAN; 3]);
    /// let grads = DecoupledGradients::new()
    ///     .with_attention([Some(TableGradient::Dense(Host::view_mut(&mut da)))])
    ///     .with_representation([Some(TableGradient::Dense(Host::view_mut(&mut dr)))]);
    /// backend.decoupled_attend_backward_into(&op, &batch, inputs, DecoupledSaved::new(), Host::view(&[3.0]), grads)?;
    /// let is_near = |got: [f32; 3], exact: [f32; 3]| got.iter().zip(exact).all(|(got, exact)| (got - exact).abs() < 1e-5);
    /// assert!(is_near(dr, [1.0; 3]));
    /// // Item 2, whose attention is -1, has the largest representation: the candidate should be more like it.
    /// assert!(is_near(da, [0.0, -3.0, 0.0]));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend_backward`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for ids by
    /// [`IdPolicy`](crate::IdPolicy), and always for a count or a position outside; on GPUs those of
    /// [`decoupled_search_backward_into`](Self::decoupled_search_backward_into), where behaviours are searched those of a search, and over
    /// a whole history, on `Wgpu`, `Limit` for rows of more than 9000 numbers of attention and representation together.
    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &Self::Batch,
        inputs: DecoupledInputs<'_, Self::Memory>,
        saved: DecoupledSaved<'_, Self::Memory>,
        grad_out: View<'_, Self::Memory, f32>,
        grads: DecoupledGradients<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, saved, grad_out, grads);
        Err(unsupported(self, "decoupled_attend_backward"))
    }
}
