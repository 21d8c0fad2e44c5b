//! Multi-head attention over a selection, with projections.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use longseq::SelectedAttention;

use super::sides;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::search::SelectionTensors;
use crate::selected::SelectedAttentionTensors;

const NAME: &str = "SelectedAttentionLayer";

/// Multi-head attention of candidates over what a search kept for them: SIM's exact search unit, and the second stage of
/// [`EtaLayer`](super::EtaLayer).
///
/// With candidates `t` and behaviours `s`, rows of the same width, and `attention` the formula of [`SelectedAttention`] without γ:
///
/// ```text
/// q = t·W_Qᵀ    k = s·W_Kᵀ    v = s·W_Vᵀ
/// out = attention(q, k, v, selection)·W_Oᵀ
/// ```
///
/// Weights, without biases: `query.weight` `[H·d, width]`, `key.weight` `[H_kv·d, width]`, `value.weight` `[H_kv·d_v, width]`,
/// `output.weight` `[width, H·d_v]`. All of them get gradients, as do candidates and behaviours; the selection has none. All behaviours are
/// projected, since a behaviour may be kept for several candidates.
///
/// SIM's soft search is [`Longseq::search`] by dot products of two more projections, which its auxiliary loss trains, its hard search one by keys. SIM's
/// keys also hold the embedding of the time since the behaviour: a part of the caller's rows.
///
/// Source: Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data for Click-Through Rate Prediction" (SIM),
/// CIKM 2020, arXiv 2006.05639, §3.3 (multi-head attention over the retrieved behaviours). FuxiCTR's code, which this is compared with, lets padding
/// take a place from a behaviour with a negative score; here there is no padding.
pub struct SelectedAttentionLayer {
    op: SelectedAttention,
    width: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl SelectedAttentionLayer {
    /// A layer over rows of `width` numbers; heads, their widths, scale and the slots of a selection are those of `op`.
    ///
    /// # Errors
    /// Those of candle, such as a weight that the builder has not.
    pub fn new(width: usize, op: SelectedAttention, builder: VarBuilder<'_>) -> Result<Self> {
        let (of_keys, of_values) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        Ok(Self {
            op,
            width,
            query: linear_no_bias(width, op.heads * op.width, builder.pp("query"))?,
            key: linear_no_bias(width, of_keys, builder.pp("key"))?,
            value: linear_no_bias(width, of_values, builder.pp("value"))?,
            output: linear_no_bias(op.heads * op.value_width, width, builder.pp("output"))?,
        })
    }

    /// The interest of each candidate's user in it, `[M, width]`, from candidates `[M, width]`, behaviours `[N, width]` and what a search kept,
    /// `[M, K]`.
    ///
    /// # Errors
    /// Candidates or behaviours of another shape or type; those of [`Longseq::selected_attention`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
        selection: &SelectionTensors,
    ) -> Result<Tensor> {
        let dtype = self.query.weight().dtype();
        let [targets, history] = sides(NAME, batch, (self.width, dtype), targets, history)?;
        let (queries, keys) = (self.query.forward(&targets)?, self.key.forward(&history)?);
        let values = self.value.forward(&history)?;
        let inputs = SelectedAttentionTensors::new(&queries, &keys, selection).with_values(&values);
        self.output.forward(&longseq.selected_attention(&self.op, batch, inputs)?)
    }
}
