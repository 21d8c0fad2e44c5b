//! DIN's activation unit: one hidden layer of 36 units with PReLU, softmax over the behaviours.

use candle_core::{Result, Tensor};
use longseq::DinPooling;
use longseq_candle::layers::{DinActivation, DinLayer};

use super::{Interest, PREFIX, Sizes, attend};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

const UNITS: usize = 36;

pub(super) struct Din {
    layer: DinLayer,
    weights: Weights,
}

impl Din {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let op = longseq::Din::new(sizes.width).with_pooling(DinPooling::Softmax);
        let layer = DinLayer::new(op, &[UNITS], DinActivation::Prelu, weights.builder().pp(PREFIX))?;
        Ok(Self { layer, weights: weights.clone() })
    }
}

impl Interest for Din {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let weight = |name: &str| self.weights.tensor(&format!("{PREFIX}.{name}"));
        let history = padded.history()?;
        let (users, count, width) = padded.targets.dims3()?;
        let pairs = (users, count, padded.longest, width);
        let q = padded.targets.unsqueeze(2)?.broadcast_as(pairs)?.contiguous()?;
        let s = history.unsqueeze(1)?.broadcast_as(pairs)?.contiguous()?;
        let x = Tensor::cat(&[&q, &s, &q.sub(&s)?, &q.mul(&s)?], 3)?;
        let x = x.reshape((users * count * padded.longest, 4 * width))?;
        let x = x.matmul(&weight("hidden.0.weight")?.t()?)?.broadcast_add(&weight("hidden.0.bias")?)?;
        let x = x.relu()?.sub(&x.neg()?.relu()?.broadcast_mul(&weight("hidden.0.alpha")?)?)?;
        let scores = x.matmul(&weight("output.weight")?.t()?)?.broadcast_add(&weight("output.bias")?)?;
        attend(&scores.reshape((users, count, padded.longest))?, padded, &history)
    }
}
