//! QIN's attention with ReLU and a residual.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use longseq::{TargetAttention, Weighting};

use super::sides;
use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::target_attention::TargetAttentionTensors;

const NAME: &str = "QinLayer";

/// QIN's adaptive sparse target attention: weights are `ReLU` of the scores, so that what does not point the candidate's way has none at all, and
/// the candidate is added.
///
/// With candidates `t` and behaviours `s` of a user:
///
/// ```text
/// out = W_O·Σ_l max(⟨W_Q·t, W_K·s_l⟩/√d_a, 0)·(W_V·s_l) + t
/// ```
///
/// One head, and no division by the length of the history, so that a user without behaviours has the candidate itself. Weights, without biases: `query.weight`,
/// `key.weight`, `value.weight` `[d_a, width]`, `output.weight` `[width, d_a]`. All of them get gradients, as do candidates and behaviours.
///
/// Source: QIN, "Quadratic Interest Network for Multimodal Click-Through Rate Prediction", arXiv 2504.17699 (adaptive sparse target attention).
/// The output's projection is the published code's, where `d_a` is twice the width; the paper's formula has none.
pub struct QinLayer {
    op: TargetAttention,
    width: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl QinLayer {
    /// A layer over rows of `width` numbers, with queries, keys and values of `attention_width`.
    ///
    /// # Errors
    /// A width of 0; those of candle, such as a weight that the builder has not.
    pub fn new(width: usize, attention_width: usize, builder: VarBuilder<'_>) -> Result<Self> {
        let op = TargetAttention::new(attention_width).with_weighting(Weighting::Relu);
        op.validate().wrapped()?;
        Ok(Self {
            op,
            width,
            query: linear_no_bias(width, attention_width, builder.pp("query"))?,
            key: linear_no_bias(width, attention_width, builder.pp("key"))?,
            value: linear_no_bias(width, attention_width, builder.pp("value"))?,
            output: linear_no_bias(attention_width, width, builder.pp("output"))?,
        })
    }

    /// Each candidate with its user's interest in it, `[M, width]`, from candidates `[M, width]` and behaviours `[N, width]`.
    ///
    /// # Errors
    /// Candidates or behaviours of another shape or type; those of [`Longseq::target_attention`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<Tensor> {
        let dtype = self.query.weight().dtype();
        let [targets, history] = sides(NAME, batch, (self.width, dtype), targets, history)?;
        let (queries, keys) = (self.query.forward(&targets)?, self.key.forward(&history)?);
        let values = self.value.forward(&history)?;
        let inputs = TargetAttentionTensors::new(&queries, &keys).with_values(&values);
        let pooled = longseq.target_attention(&self.op, batch, inputs)?;
        self.output.forward(&pooled)?.add(&targets)
    }
}
