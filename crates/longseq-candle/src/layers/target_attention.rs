//! Multi-head target attention with projections.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use longseq::TargetAttention;

use super::sides;
use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::target_attention::TargetAttentionTensors;

const NAME: &str = "TargetAttentionLayer";

/// Multi-head target attention: candidates attend to their user's behaviours.
///
/// With candidates `t` and behaviours `s`, rows of the same width, and `attention` the formula of [`TargetAttention`]:
///
/// ```text
/// q = t·W_Qᵀ    k = s·W_Kᵀ    v = s·W_Vᵀ
/// out = attention(q, k, v)·W_Oᵀ
/// ```
///
/// Weights, without biases: `query.weight` `[H·d, width]`, `key.weight` `[H_kv·d, width]`, `value.weight` `[H_kv·d_v, width]`,
/// `output.weight` `[width, H·d_v]`. All of them get gradients, as do candidates and behaviours.
///
/// Sources: "Attention Is All You Need", arXiv 1706.03762, eq. 1 and §3.2.2, with one query per candidate; so in TWIN's exact search unit,
/// arXiv 2302.02352, eq. 4 (whose cross features are a bias of the operation, which this layer leaves out).
pub struct TargetAttentionLayer {
    op: TargetAttention,
    width: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl TargetAttentionLayer {
    /// A layer over rows of `width` numbers; heads, their widths, scale and weighting are those of `op`.
    ///
    /// # Errors
    /// Those of [`TargetAttention::validate`], and of candle, such as a weight that the builder has not.
    pub fn new(width: usize, op: TargetAttention, builder: VarBuilder<'_>) -> Result<Self> {
        op.validate().wrapped()?;
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

    /// The interest of each candidate's user in it, `[M, width]`, from candidates `[M, width]` and behaviours `[N, width]`.
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
        self.output.forward(&longseq.target_attention(&self.op, batch, inputs)?)
    }
}
