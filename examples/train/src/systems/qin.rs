//! QIN's attention: `ReLU` of the scores instead of a softmax, and the candidate added; queries, keys and values are twice as wide as the rows.

use candle_core::{Result, Tensor};
use longseq_candle::layers::QinLayer;

use super::{Interest, PREFIX, Sizes, project};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

pub(super) struct Qin {
    width: usize,
    layer: QinLayer,
    weights: Weights,
}

impl Qin {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let width = 2 * sizes.width;
        let layer = QinLayer::new(sizes.width, width, weights.builder().pp(PREFIX))?;
        Ok(Self { width, layer, weights: weights.clone() })
    }
}

impl Interest for Qin {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let of = |rows: &Tensor, name: &str| project(&self.weights, rows, name);
        let history = padded.history()?;
        let (queries, keys) = (of(&padded.targets, "query")?, of(&history, "key")?);
        let scale = 1.0 / (self.width as f64).sqrt();
        let scores = (queries.matmul(&keys.transpose(1, 2)?)? * scale)?.relu()?;
        let real = padded.real.transpose(1, 2)?.contiguous()?; // [B, 1, L]
        let pooled = scores.broadcast_mul(&real)?.matmul(&of(&history, "value")?)?;
        of(&pooled, "output")?.add(&padded.targets)
    }
}
