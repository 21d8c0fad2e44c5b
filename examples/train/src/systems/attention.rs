//! Target attention with projections, one head.

use candle_core::{Result, Tensor};
use longseq::TargetAttention;
use longseq_candle::layers::TargetAttentionLayer;

use super::{Interest, PREFIX, Sizes, attend, project};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

pub(super) struct Attention {
    op: TargetAttention,
    layer: TargetAttentionLayer,
    weights: Weights,
}

const NAMES: [&str; 4] =
    ["interest.query.weight", "interest.key.weight", "interest.value.weight", "interest.output.weight"];

impl Attention {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let op = TargetAttention::new(sizes.width);
        let layer = TargetAttentionLayer::new(sizes.width, op, weights.builder().pp(PREFIX))?;
        // It begins as attention without projections, whose scores near 0 make it nearly a mean, and learns from there.
        weights.begin_as_identity(&NAMES)?;
        Ok(Self { op, layer, weights: weights.clone() })
    }
}

impl Interest for Attention {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let of = |rows: &Tensor, name: &str| project(&self.weights, rows, name);
        let history = padded.history()?;
        let (queries, keys) = (of(&padded.targets, "query")?, of(&history, "key")?);
        let scores = (queries.matmul(&keys.transpose(1, 2)?)? * f64::from(self.op.effective_scale()))?;
        of(&attend(&scores, padded, &of(&history, "value")?)?, "output")
    }
}
