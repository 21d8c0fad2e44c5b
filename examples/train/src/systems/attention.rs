//! Target attention, one head. Candidates alone are projected: a key's projection would fold into theirs, `(W_Q·t)·(W_K·s) = (W_Kᵀ·W_Q·t)·s`, and
//! a value's projection would in part fold into the tower. So no row of a history is made twice, and keys and values are the same rows.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, linear_no_bias};
use longseq::TargetAttention;
use longseq_candle::TargetAttentionTensors;

use super::{Interest, PREFIX, Sizes, attend, project};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

pub(super) struct Attention {
    op: TargetAttention,
    query: Linear,
    weights: Weights,
}

impl Attention {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let query = linear_no_bias(sizes.width, sizes.width, weights.builder().pp(PREFIX).pp("query"))?;
        Ok(Self { op: TargetAttention::new(sizes.width), query, weights: weights.clone() })
    }
}

impl Interest for Attention {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        let (queries, history) = (self.query.forward(&inputs.targets)?, inputs.history()?);
        let tensors = TargetAttentionTensors::new(&queries, &history);
        inputs.longseq.target_attention(&self.op, &inputs.batch, tensors)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let (history, queries) = (padded.history()?, project(&self.weights, &padded.targets, "query")?);
        let scores = (queries.matmul(&history.transpose(1, 2)?)? * f64::from(self.op.effective_scale()))?;
        attend(&scores, padded, &history)
    }
}
