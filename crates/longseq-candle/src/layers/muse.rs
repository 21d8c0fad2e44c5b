//! MUSE: a search by contents, a histogram of similarities, attention that knows them.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder, linear_no_bias};
use longseq::{Search, SelectedAttention, SimilarityHistogram};

use super::sides;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::search::{SearchTensor, SelectionTensors};
use crate::selected::SelectedAttentionTensors;

const NAME: &str = "MuseLayer";

/// MUSE: the behaviours whose contents (frozen embeddings of images and texts) are most like the candidate's are kept; the similarities are counted,
/// and take part in the attention over ids.
///
/// With rows `t` and `s` of ids and `c` of contents, and formulas of [`Search`] (cosine), [`SimilarityHistogram`] and [`SelectedAttention`]:
///
/// ```text
/// R[m,l]   = cos(c_m, c_l)                        kept: the K behaviours of highest R
/// tiers    = ln(1 + histogram of R)·b             of what is kept; newest: of the user's newest K, with b of its own
/// s[m,l,h] = ⟨W_Q,h·t_m, W_K,h·s_l⟩/√d
/// interest = softmax(γ₁·s + γ₂·R + γ₃·s·R)·(W_V·s)
/// ```
///
/// Weights: `query.weight` `[H·d, width]`, `key.weight` `[H_kv·d, width]`, `value.weight` `[H_kv·d_v, width]`, `gammas.score`, `gammas.similarity` and `gammas.product`
/// `[H]` (γ₁ to γ₃), at first 1, 10 and 10 as in the published code, and `tiers.kept` and `tiers.newest` `[21]`, at first between 0 and 1. All of them get gradients, as do candidates and
/// behaviours; contents, histograms and the choice have none.
///
/// Source: MUSE, arXiv 2512.07216: the general search unit, SimTier and similarity-aware target attention (SA-TA). The published code passes no mask
/// to either of the last two, so that padding is counted and takes weight, adds 1e-7 to weights after the softmax, and has SiLU and
/// biases in its projections and no `1/√d`; here is the paper's form. What it calls `R/a`, with a learnt `a` of 0.1 at first, is in `γ₂` and `γ₃`.
pub struct MuseLayer {
    op: SelectedAttention,
    width: usize,
    search: Search,
    histogram: SimilarityHistogram,
    query: Linear,
    key: Linear,
    value: Linear,
    /// `[H]` each.
    gammas: [Tensor; 3],
    of_kept: Tensor,
    of_newest: Tensor,
}

/// The inputs of [`MuseLayer`].
#[derive(Clone, Copy)]
pub struct MuseTensors<'a> {
    /// `[M, width]`.
    pub targets: &'a Tensor,
    /// `[N, width]`.
    pub history: &'a Tensor,
    /// The contents of candidates: `[M, a]`, rows or codes.
    pub target_contents: SearchTensor<'a>,
    /// The contents of behaviours: `[N, a]`, stored alike.
    pub history_contents: SearchTensor<'a>,
}

/// What [`MuseLayer`] makes of a history.
#[derive(Debug, Clone)]
pub struct MuseInterest {
    /// `[M, H·d_v]`: what the attention pooled.
    pub interest: Tensor,
    /// `[M, 21]`, of `f32`: how many of the kept behaviours are how similar.
    pub tiers: Tensor,
    /// `[M, 21]`, of `f32`: the same of the user's newest behaviours.
    pub newest: Tensor,
}

impl MuseLayer {
    /// A layer over rows of `width` numbers with contents of `content_width`; heads, their widths, scale and the number of behaviours to keep (and of the
    /// newest ones to count) are those of `op`. MUSE keeps 50.
    ///
    /// # Errors
    /// Those of candle, such as a weight that the builder has not.
    pub fn new(
        width: usize,
        content_width: usize,
        op: SelectedAttention,
        builder: VarBuilder<'_>,
    ) -> Result<Self> {
        let histogram = SimilarityHistogram::new(10).with_top_k(op.top_k);
        let tiers = |name| {
            let uniform = Init::Uniform { lo: 0.0, up: 1.0 };
            builder.pp("tiers").get_with_hints(histogram.bins(), name, uniform)
        };
        let gamma = |name, value| builder.pp("gammas").get_with_hints(op.heads, name, Init::Const(value));
        Ok(Self {
            op,
            width,
            search: Search::cosine(content_width).with_top_k(op.top_k),
            histogram,
            query: linear_no_bias(width, op.heads * op.width, builder.pp("query"))?,
            key: linear_no_bias(width, op.kv_heads * op.width, builder.pp("key"))?,
            value: linear_no_bias(width, op.kv_heads * op.value_width, builder.pp("value"))?,
            gammas: [gamma("score", 1.0)?, gamma("similarity", 10.0)?, gamma("product", 10.0)?],
            of_kept: tiers("kept")?,
            of_newest: tiers("newest")?,
        })
    }

    /// The behaviours of each candidate with the most similar contents, `[M, K]`.
    ///
    /// # Errors
    /// Those of [`Longseq::search`].
    pub fn search<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        target_contents: SearchTensor<'_>,
        history_contents: SearchTensor<'_>,
    ) -> Result<SelectionTensors> {
        longseq.search(&self.search, batch, target_contents, history_contents, None)
    }

    /// The interest of each candidate's user in it.
    ///
    /// # Errors
    /// Candidates or behaviours of another shape or type; those of [`Longseq::search`], [`Longseq::newest_histogram`] and
    /// [`Longseq::selected_attention`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        inputs: MuseTensors<'_>,
    ) -> Result<MuseInterest> {
        let dtype = self.query.weight().dtype();
        let [targets, history] = sides(NAME, batch, (self.width, dtype), inputs.targets, inputs.history)?;
        let contents = [inputs.target_contents, inputs.history_contents];
        let kept = self.search(longseq, batch, contents[0], contents[1])?;
        let newest =
            longseq.newest_histogram(&self.histogram, &self.search, batch, contents[0], contents[1])?;
        let tiers = longseq.similarity_histogram(&self.histogram, batch, &kept)?;
        let (queries, keys) = (self.query.forward(&targets)?, self.key.forward(&history)?);
        let values = self.value.forward(&history)?;
        let given = SelectedAttentionTensors::new(&queries, &keys, &kept).with_values(&values);
        let gammas = Tensor::stack(&self.gammas, 1)?;
        let interest = longseq.selected_attention(&self.op, batch, given.with_gammas(&gammas))?;
        Ok(MuseInterest {
            interest,
            tiers: tiered(&tiers, &self.of_kept)?,
            newest: tiered(&newest, &self.of_newest)?,
        })
    }
}

/// SimTier: `ln(1 + count)` times what each bin has learnt.
fn tiered(counts: &Tensor, of_bins: &Tensor) -> Result<Tensor> {
    (counts.to_dtype(DType::F32)? + 1.0)?.log()?.broadcast_mul(&of_bins.to_dtype(DType::F32)?)
}
