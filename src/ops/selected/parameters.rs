//! Parameters, shape rules and costs of attention over a selection.

use std::ops::Range;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::lookup::IdPolicy;
use crate::ops::selected::inputs::{SelectedAttentionInputs, SelectedAttentionOutputs};
use crate::ops::selection::Selection;
use crate::ops::shape::{dim, elements, expect, product, size, sum};

pub(super) const NAME: &str = "selected_attention";

/// Attention of every candidate over the behaviours that a search kept for it: the second stage of a two-stage model.
///
/// For candidate `m` and head `h`, with `h' = h·H_kv/H` rounded down, over the kept behaviours `l` and their similarities
/// `R[m,l]`, which are the scores of the [`Selection`](crate::Selection):
///
/// ```text
/// s_l = scale · ⟨q[m,h], k[l,h']⟩ + bias[l,h]
/// α_l = γ₁[h]·s_l + γ₂[h]·R[m,l] + γ₃[h]·s_l·R[m,l]
/// w   = softmax(α)
/// out[m,h,:] = Σ_l w_l · v[l,h',:]          lse[m,h] = ln Σ_l exp α_l
/// ```
///
/// | γ | who |
/// |---|---|
/// | 1, 0, 0 (without `gammas`) | ETA, SIM: attention over what was found |
/// | 0, 1, 0 | DARE, TWIN: softmax of the search's own scores |
/// | learnt | MUSE's similarity-aware target attention; its division of `R` by a learnt `a` goes into `γ₂` and `γ₃` |
///
/// **A γ of 0 leaves its term out**, whatever the term would hold: with `γ₁ = γ₃ = 0` neither queries nor keys count (keys still do as
/// values), with `γ₂ = γ₃ = 0` similarities do not.
///
/// **Removed.** A similarity of `-∞` or a bias of `-∞` removes a behaviour, whatever γ is; so does an `s` of `-∞` that is not left out,
/// and an `α` of `-∞`. What is removed may hold anything. Nothing else removes: a finite `α` of any size has its weight. A candidate
/// that keeps nothing, or whose kept behaviours are all removed, gets a row of zeros and `lse = -∞`.
///
/// **NaN and infinity.** A NaN among the `α` of a candidate and head, or one of `+∞`, gives NaN in their row. A behaviour that is not
/// removed counts even where its weight is 0, so a NaN in its value gives NaN in that number. Nothing reaches other candidates'
/// rows.
///
/// **Range.** The result is a mean of values, which may have any size. `⟨q, k⟩`, `s`, each term of `α` and `α` must be within `f32`.
///
/// Values, and keys, may also be rows of embedding tables: [`selected_table_attention`](crate::SelectedOps::selected_table_attention).
///
/// A selection may come from [`search`](crate::SearchOps::search), from
/// [`decoupled_search`](crate::DecoupledOps::decoupled_search) or from the caller; a position may occur more than once, and then counts as
/// often. (MUSE's published code adds 1e-7 to each weight after the softmax, and lets padding take weight where fewer than `K` are
/// kept; here weights add up to 1 and padding has none.)
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, Jagged, Search, SearchRows, SelectedAttention, SelectedAttentionInputs, SimilarityInputs};
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
/// // First stage: cosines of 8-bit rows. Of three behaviours, the first and the last are kept, with similarities 1 and 0.
/// let (candidate, history) = ([3_i8, 0], [5_i8, 0, -9, 0, 0, 2]);
/// let rows = |codes| SearchRows::Codes(Host::view(codes));
/// let kept = backend.search(
///     &Search::cosine(2).with_top_k(2),
///     &batch,
///     SimilarityInputs::new(rows(&candidate), rows(&history)),
/// )?;
/// assert_eq!(*kept.positions, [0, 2]);
/// // Second stage: the scores are equal, so similarities decide.
/// let (queries, keys, values) = ([0.0_f32], [1.0, 1.0, 1.0], [1.0, 50.0, 5.0]);
/// let gammas = [1.0, 3.0_f32.ln(), 0.0]; // exp(γ₂·1) = 3 times the weight of exp(γ₂·0)
/// let inputs = SelectedAttentionInputs::new(Host::view(&queries), Host::view(&keys), kept.selection())
///     .with_values(Host::view(&values))
///     .with_gammas(Host::view(&gammas));
/// let out = backend.selected_attention(&SelectedAttention::new(1).with_top_k(2), &batch, inputs)?;
/// assert!((out[0] - 2.0).abs() < 1e-6); // ¾·1 + ¼·5
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: MUSE, arXiv 2512.07216 (similarity-aware target attention); SIM, arXiv 2006.05639; ETA, arXiv 2108.04468; TWIN, arXiv
/// 2302.02352.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SelectedAttention {
    /// `H`: heads of a query. Default 1.
    pub heads: usize,
    /// `H_kv`: heads of a key and a value; must divide `heads`. Default 1.
    pub kv_heads: usize,
    /// `d`: width of one head of a query or key. Default 64.
    pub width: usize,
    /// `d_v`: width of one head of a value. Default 64.
    pub value_width: usize,
    /// Factor of the dot product; `None` (the default) means `1/√d`.
    pub scale: Option<f32>,
    /// `K`: the slots of the selection for each candidate. Default 50.
    pub top_k: usize,
    /// What happens to ids outside their table, where values are read from tables. Not used with rows.
    pub ids: IdPolicy,
}

impl Default for SelectedAttention {
    fn default() -> Self {
        Self {
            heads: 1,
            kv_heads: 1,
            width: 64,
            value_width: 64,
            scale: None,
            top_k: 50,
            ids: IdPolicy::Error,
        }
    }
}

impl SelectedAttention {
    /// One head, keys and values of the same width, `scale = 1/√width`, 50 slots.
    pub fn new(width: usize) -> Self {
        Self { width, value_width: width, ..Self::default() }
    }

    /// Sets the number of heads of queries, and of keys and values.
    pub fn with_heads(self, heads: usize, kv_heads: usize) -> Self {
        Self { heads, kv_heads, ..self }
    }

    /// Sets the width of a value.
    pub fn with_value_width(self, value_width: usize) -> Self {
        Self { value_width, ..self }
    }

    /// Sets the factor of the dot product.
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Sets the slots of the selection for each candidate: the `top_k` of the search.
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Sets what happens to ids outside their table, where values are read from tables. [`IdPolicy::Skip`] is refused there.
    pub fn with_ids(self, ids: IdPolicy) -> Self {
        Self { ids, ..self }
    }

    /// The factor of the dot product, with the default resolved.
    pub fn effective_scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| (1.0 / (self.width as f64).sqrt()) as f32)
    }

    /// The key/value head that serves a query head below `heads`.
    pub fn kv_head(&self, head: usize) -> usize {
        // In valid parameters `kv_heads` divides `heads`: the product of `head` and `kv_heads` could overflow.
        head / (self.heads / self.kv_heads.max(1)).max(1)
    }

    /// `M·H·d_v`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        let shape = [dim("M", batch.targets().rows()), dim("H", self.heads), dim("d_v", self.value_width)];
        elements(NAME, "out", &shape)
    }

    /// Checks the parameters alone, for the call that is named.
    pub(super) fn validate(&self, operation: &'static str) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation, argument, expected: expected.into(), got })
        };
        let sizes = [
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("width", self.width),
            ("value_width", self.value_width),
            ("top_k", self.top_k),
        ];
        for (argument, size) in sizes {
            if size == 0 {
                return wrong(argument, "at least 1", "0".into());
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of heads = {}", self.heads);
            return wrong("kv_heads", &expected, self.kv_heads.to_string());
        }
        match self.scale {
            Some(scale) if !scale.is_finite() => wrong("scale", "a finite number", scale.to_string()),
            _ => Ok(()),
        }
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a head count, a width or `top_k` is 0, `kv_heads` does not divide `heads`, or the scale is not finite;
    /// [`Error::Shape`] for an input of the wrong size, or without values if `d_v ≠ d`; [`Error::Limit`] for sizes that exceed the
    /// address space. A count above `K` and a counted position outside its history are
    /// [`Error::IndexOutOfRange`], which the call, or on a GPU the next wait, returns.
    pub fn check<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &SelectedAttentionInputs<'_, S, T>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &SelectedAttentionInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        let (n, m) = (dim("N", batch.histories().rows()), dim("M", batch.targets().rows()));
        let (heads, kv_heads) = (dim("H", self.heads), dim("H_kv", self.kv_heads));
        expect(operation, "queries", inputs.queries.len(), &[m, heads, dim("d", self.width)])?;
        expect(operation, "keys", inputs.keys.len(), &[n, kv_heads, dim("d", self.width)])?;
        match &inputs.values {
            Some(values) => {
                expect(operation, "values", values.len(), &[n, kv_heads, dim("d_v", self.value_width)])?;
            }
            None if self.value_width != self.width => {
                let (d, d_v) = (self.width, self.value_width);
                return Err(Error::Shape {
                    operation,
                    argument: "values",
                    expected: format!("values of their own, as d_v = {d_v} is not d = {d}"),
                    got: "none (the keys as values)".into(),
                });
            }
            None => {}
        }
        let given = [inputs.bias, inputs.gammas].map(|view| view.map(|view| view.len()));
        self.check_rest(operation, batch, given, &inputs.selection)
    }

    /// Checks the lengths of bias and `γ`, where they are given, and the selection.
    pub(super) fn check_rest<S: Memory>(
        &self,
        operation: &'static str,
        batch: &Batch,
        [bias, gammas]: [Option<usize>; 2],
        selection: &Selection<'_, S>,
    ) -> Result<()> {
        let heads = dim("H", self.heads);
        if let Some(bias) = bias {
            expect(operation, "bias", bias, &[dim("N", batch.histories().rows()), heads])?;
        }
        if let Some(gammas) = gammas {
            expect(operation, "gammas", gammas, &[heads, dim("3", 3)])?;
        }
        selection.check(operation, batch.targets().rows(), self.top_k)
    }

    /// Checks the outputs against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size.
    pub fn check_outputs<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        outputs: &SelectedAttentionOutputs<'_, S, T>,
    ) -> Result<()> {
        self.check_outputs_in(NAME, batch, outputs)
    }

    /// The same for the call that is named.
    pub(super) fn check_outputs_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        outputs: &SelectedAttentionOutputs<'_, S, T>,
    ) -> Result<()> {
        let (m, heads) = (dim("M", batch.targets().rows()), dim("H", self.heads));
        expect(operation, "out", outputs.out.len(), &[m, heads, dim("d_v", self.value_width)])?;
        if let Some(lse) = &outputs.lse {
            expect(operation, "lse", lse.len(), &[m, heads])?;
        }
        Ok(())
    }

    /// Multiplications and additions (exponentials not counted): `2·C·K·H·(d + d_v)`, summed over users. This and the other counts are
    /// at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let widths = sum([self.width as u64, self.value_width as u64]);
        product(&[2, self.kept(batch), self.heads as u64, widths])
    }

    /// The fewest bytes to move: a position, a similarity, a key and a value for each behaviour kept; each query and output once.
    /// `aliased` says that the keys are the values.
    pub fn bytes<T: Element>(&self, batch: &Batch, aliased: bool) -> u64 {
        let value_width = if aliased { 0 } else { self.value_width };
        let side = |heads: usize, value_width: usize| {
            product(&[heads as u64, sum([self.width as u64, value_width as u64]), size::<T>()])
        };
        let kept = product(&[self.kept(batch), sum([side(self.kv_heads, value_width), 8])]);
        sum([kept, product(&[batch.targets().total() as u64, side(self.heads, self.value_width)])])
    }

    /// The number of behaviours that a search keeps for all candidates.
    pub(super) fn kept(&self, batch: &Batch) -> u64 {
        let kept = |(history, targets): (Range<usize>, Range<usize>)| {
            product(&[targets.len() as u64, history.len().min(self.top_k) as u64])
        };
        sum(batch.requests().map(kept))
    }
}
