//! The calls over a selection.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::search::{Search, SimilarityInputs};
use crate::ops::selected::backward::{SelectedAttentionGradOut, SelectedAttentionGradients};
use crate::ops::selected::histogram::SimilarityHistogram;
use crate::ops::selected::inputs::{SelectedAttentionInputs, SelectedAttentionOutputs};
use crate::ops::selected::parameters::{NAME, SelectedAttention};
use crate::ops::selected::tables::{self, SelectedTableGradients, SelectedTableInputs};
use crate::ops::selection::Selection;

/// What runs over the behaviours that a search kept; see [`SelectedAttention`] and [`SimilarityHistogram`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait SelectedOps: DeviceOps {
    /// Attention over a selection into given outputs; see [`SelectedAttention`].
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check`] and [`SelectedAttention::check_outputs`].
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedAttentionInputs<'_, Self::Memory, T>,
        outputs: SelectedAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, outputs);
        Err(unsupported(self, NAME))
    }

    /// Attention over a selection, `[M, H, d_v]`; see [`SelectedAttention`].
    ///
    /// # Errors
    /// As [`selected_attention_into`](Self::selected_attention_into).
    fn selected_attention<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedAttentionInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        let outputs = SelectedAttentionOutputs::new(self.view_mut(&mut out));
        self.selected_attention_into(op, batch, inputs, outputs)?;
        Ok(out)
    }

    /// The gradients of attention over a selection; see [`SelectedAttention`]. With the weights `w` of one candidate and head, over its
    /// kept behaviours `l`:
    ///
    /// ```text
    /// dw_l = ⟨grad_out, v_l⟩            D = Σ w_l·dw_l
    /// dα_l = w_l·(dw_l − D + grad_lse)
    /// ds_l = dα_l·(γ₁ + γ₃·R_l)         dR[m,l] = Σ_h dα_l·(γ₂ + γ₃·s_l)
    /// dγ[h] = Σ dα_l·(s_l, R_l, s_l·R_l)        over all candidates
    /// dv_l = Σ w_l·grad_out   dk_l = scale·Σ ds_l·q   dq = scale·Σ_l ds_l·k_l   dbias[l,h] = Σ_m ds_l
    /// ```
    ///
    /// The sums of `dv` and `dk` are over the user's candidates that keep the behaviour, and the heads that share a key. The choice itself
    /// has no gradient. Terms that a γ of 0 leaves out are left out here too (where `γ₁ = γ₃ = 0`, queries, keys and bias get nothing from
    /// scores), except that `dγ` has all three. Weights are computed again, from nothing that the forward pass saved; only the
    /// gradients that are asked for are computed. Nothing has the size of candidates × behaviours.
    ///
    /// Every row of a user is overwritten: with zeros where nothing contributes, as for a behaviour that nobody keeps or that is removed,
    /// whatever it holds. Rows that belong to nobody are left as they are. The additions of each row are in the order of candidates, heads and
    /// slots.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients};
    /// use longseq::{SelectedAttentionInputs, Selection};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let op = SelectedAttention::new(1).with_scale(1.0).with_top_k(2);
    /// let kept = Selection::new(Host::view(&[2, 0]), Host::view(&[0.5, 0.5]), Host::view(&[2]));
    /// let (queries, keys, values) = ([0.0_f32], [1.0, 9.0, 3.0], [2.0, 9.0, 6.0]);
    /// let inputs = SelectedAttentionInputs::new(Host::view(&queries), Host::view(&keys), kept)
    ///     .with_values(Host::view(&values));
    /// let grad_out = [1.0]; // the gradient of a loss that is the output itself
    /// let (mut dq, mut dv) = ([0.0], [0.0; 3]);
    /// let grads = SelectedAttentionGradients::new()
    ///     .with_queries(Host::view_mut(&mut dq))
    ///     .with_values(Host::view_mut(&mut dv));
    /// let grad_out = SelectedAttentionGradOut::new(Host::view(&grad_out));
    /// backend.selected_attention_backward_into(&op, &batch, inputs, grad_out, grads)?;
    /// assert_eq!(dv, [0.5, 0.0, 0.5]); // the weights; nobody keeps the second behaviour
    /// assert!((dq[0] - 2.0).abs() < 1e-5); // Σ w·(v − out)·k = ½·(−2)·1 + ½·2·3
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check`] and [`SelectedAttention::check_backward`].
    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedAttentionInputs<'_, Self::Memory, T>,
        grad_out: SelectedAttentionGradOut<'_, Self::Memory, T>,
        grads: SelectedAttentionGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, grad_out, grads);
        Err(unsupported(self, "selected_attention_backward"))
    }

    /// Attention over a selection whose values, and keys where that is asked for, are rows of embedding tables, into given outputs.
    ///
    /// [`selected_attention_into`](Self::selected_attention_into) of the rows that the ids name: with `F` features, each with a table of
    /// values `V_f` and, on demand, one of keys `K_f`,
    ///
    /// ```text
    /// v[l] = [V_1[ids[l,1]] ‖ … ‖ V_F[ids[l,F]]]   of H_kv·d_v numbers
    /// k[l] = [K_1[ids[l,1]] ‖ … ‖ K_F[ids[l,F]]]   of H_kv·d numbers, or rows, or v[l]
    /// ```
    ///
    /// of which only those of kept behaviours are read. Tables are stored in any way, 8-bit rows included; queries, and keys that are rows,
    /// as `T`. An id outside its table is an error, whoever keeps the behaviour, or, with [`IdPolicy::Zero`](crate::IdPolicy::Zero), a row
    /// of zeros that counts: see [`SelectedAttention::with_ids`].
    ///
    /// `Cuda` and `Wgpu` gather the rows of slots in device memory, about 64 MiB at a time. Gradients take memory for each slot: for those of
    /// tables a few numbers for each head, and on `Cuda` with more than one head of keys a row of `f32`. With γ = (0, 1, 0) and one head,
    /// [`decoupled_aggregate`](crate::DecoupledOps::decoupled_aggregate) is this without gathering.
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check_tables`] and [`SelectedAttention::check_table_outputs`].
    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedTableInputs<'_, Self::Memory, T>,
        outputs: SelectedAttentionOutputs<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, outputs);
        Err(unsupported(self, tables::NAME))
    }

    /// Attention over a selection whose values are rows of embedding tables, `[M, H, d_v]`; see
    /// [`selected_table_attention_into`](Self::selected_table_attention_into).
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, SelectedAttention, SelectedKeys, SelectedTableInputs, Selection, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// // Three items with a value each, and a history of three behaviours, of which a search kept the last and the first.
    /// let items = [Table::new(3, 1, TableData::F32(Host::view(&[1.0, 2.0, 8.0])))];
    /// let ids = [2, 0, 1];
    /// let kept = Selection::new(Host::view(&[2, 0]), Host::view(&[0.5, 0.5]), Host::view(&[2]));
    /// let query = [0.0_f32];
    /// let inputs =
    ///     SelectedTableInputs::new(Host::view(&query), SelectedKeys::Values, &items, Host::view(&ids), kept);
    /// let out = backend.selected_table_attention(&SelectedAttention::new(1).with_top_k(2), &batch, inputs)?;
    /// assert_eq!(*out, [5.0]); // the mean of items 1 and 2
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`selected_table_attention_into`](Self::selected_table_attention_into).
    fn selected_table_attention<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedTableInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        op.check_tables(batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        let outputs = SelectedAttentionOutputs::new(self.view_mut(&mut out));
        self.selected_table_attention_into(op, batch, inputs, outputs)?;
        Ok(out)
    }

    /// The gradients of attention over a selection from tables: those of
    /// [`selected_attention_backward_into`](Self::selected_attention_backward_into), of which each table's are added up by id:
    ///
    /// ```text
    /// dV_f[id] = Σ_{behaviours l of all users with ids[l,f] = id} (dv_l)_f          dK_f[id] = Σ (dk_l)_f
    /// ```
    ///
    /// Where the values are the keys, the tables of values get both. Gradients of tables are `f32`, [sparse](crate::SparseGradient) or
    /// dense. A sparse one has a row for each id of a kept behaviour that is not removed, for some head; of keys, some head whose scores
    /// count. The row may be zeros. Ids outside their table have none. All else is as there: queries, keys that are rows, bias, `γ` and
    /// similarities.
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, SelectedAttention, SelectedAttentionGradOut, SelectedKeys};
    /// use longseq::{SelectedTableGradients, SelectedTableInputs, Selection, SparseGradientMut, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
    /// let op = SelectedAttention::new(1).with_top_k(3);
    /// let items = [Table::new(5, 1, TableData::F32(Host::view(&[1.0, 2.0, 8.0, 0.0, 0.0])))];
    /// let ids = [2, 0, 2];
    /// let kept = Selection::new(Host::view(&[0, 1, 2]), Host::view(&[0.0; 3]), Host::view(&[3]));
    /// let (query, keys, grad_out) = ([0.0_f32], [1.0; 3], [3.0]);
    /// let rows = SelectedKeys::Rows(Host::view(&keys));
    /// let inputs = SelectedTableInputs::new(Host::view(&query), rows, &items, Host::view(&ids), kept);
    /// let (mut sparse_ids, mut sparse_rows, mut count) = ([0; 3], [0.0; 3], [0]);
    /// let gradient = SparseGradientMut::new(
    ///     Host::view_mut(&mut sparse_ids),
    ///     Host::view_mut(&mut sparse_rows),
    ///     Host::view_mut(&mut count),
    /// );
    /// let grads = SelectedTableGradients::<_, f32>::new().with_values([Some(gradient.into())]);
    /// let grad_out = SelectedAttentionGradOut::new(Host::view(&grad_out));
    /// backend.selected_table_attention_backward_into(&op, &batch, inputs, grad_out, grads)?;
    /// assert_eq!((count, &sparse_ids[..2]), ([2], &[0, 2][..]));
    /// assert!((sparse_rows[0] - 1.0).abs() < 1e-6 && (sparse_rows[1] - 2.0).abs() < 1e-6); // item 2 twice
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check_tables_backward`].
    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &Self::Batch,
        inputs: SelectedTableInputs<'_, Self::Memory, T>,
        grad_out: SelectedAttentionGradOut<'_, Self::Memory, T>,
        grads: SelectedTableGradients<'_, Self::Memory, G>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, grad_out, grads);
        Err(unsupported(self, tables::BACKWARD))
    }

    /// Histograms of a selection's similarities into a given output `[M, 2n + 1]`; see [`SimilarityHistogram`].
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check`] and [`SimilarityHistogram::check_output`].
    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &Self::Batch,
        selection: Selection<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, u32>,
    ) -> Result<()> {
        let _ = (op, batch, selection, out);
        Err(unsupported(self, "similarity_histogram"))
    }

    /// Histograms of a selection's similarities, `[M, 2n + 1]`; see [`SimilarityHistogram`].
    ///
    /// # Errors
    /// As [`similarity_histogram_into`](Self::similarity_histogram_into).
    fn similarity_histogram(
        &self,
        op: &SimilarityHistogram,
        batch: &Self::Batch,
        selection: Selection<'_, Self::Memory>,
    ) -> Result<Buffer<Self, u32>> {
        op.check(batch.as_ref(), &selection)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.similarity_histogram_into(op, batch, selection, self.view_mut(&mut out))?;
        Ok(out)
    }

    /// Histograms of the similarities of each user's newest behaviours, at most `op.top_k` of them, into a given output `[M, 2n + 1]`;
    /// see [`SimilarityHistogram`]. `search` says what a similarity is: a dot product or a cosine; its `top_k` is not used. A row of zeros has
    /// no cosine and is not counted.
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check_newest`] and [`SimilarityHistogram::check_output`].
    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Self::Batch,
        inputs: SimilarityInputs<'_, Self::Memory>,
        out: ViewMut<'_, Self::Memory, u32>,
    ) -> Result<()> {
        let _ = (op, search, batch, inputs, out);
        Err(unsupported(self, "newest_histogram"))
    }

    /// Histograms of the similarities of each user's newest behaviours, `[M, 2n + 1]`; see
    /// [`newest_histogram_into`](Self::newest_histogram_into).
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Host, Jagged, Search, SearchRows, SimilarityHistogram, SimilarityInputs};
    ///
    /// let backend = Cpu::new();
    /// let batch = backend.batch(&Jagged::from_lengths(&[4])?, &Jagged::from_lengths(&[1])?)?;
    /// // Of four behaviours the newest three count, of which the last is padding.
    /// let (candidate, history) = ([1_i8, 0], [-1_i8, 0, 0, 1, 3, 4, 0, 0]);
    /// let rows = |codes| SearchRows::Codes(Host::view(codes));
    /// let inputs = SimilarityInputs::new(rows(&candidate), rows(&history));
    /// let op = SimilarityHistogram::new(2).with_top_k(3);
    /// let counts = backend.newest_histogram(&op, &Search::cosine(2), &batch, inputs)?;
    /// assert_eq!(*counts, [0, 0, 1, 0, 1]); // cosines of 0 and 0.6
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`newest_histogram_into`](Self::newest_histogram_into).
    fn newest_histogram(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Self::Batch,
        inputs: SimilarityInputs<'_, Self::Memory>,
    ) -> Result<Buffer<Self, u32>> {
        op.check_newest(search, batch.as_ref(), &inputs)?;
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.newest_histogram_into(op, search, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
