//! TIN: target attention whose rows know their position, counted from the newest behaviour.

use candle_core::{Device, Result, Tensor};
use longseq_candle::layers::TinLayer;

use super::{Interest, PREFIX, Sizes, attend};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

pub(super) struct Tin {
    op: longseq::Tin,
    layer: TinLayer,
    weights: Weights,
}

impl Tin {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        // The product with the candidate is among the tower's inputs, for every system.
        let op = longseq::Tin::new(sizes.width).with_positions(sizes.history + 1).with_multiply_target(false);
        let layer = TinLayer::new(op, weights.builder().pp(PREFIX))?;
        Ok(Self { op, layer, weights: weights.clone() })
    }
}

impl Interest for Tin {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let positions = self.weights.tensor("interest.positions")?;
        let mut places = Vec::with_capacity(padded.users * padded.longest);
        for &length in padded.real_lengths {
            places.extend(
                (0..padded.longest).map(|l| length.saturating_sub(l).min(self.op.positions - 1) as u32),
            );
        }
        let count = places.len();
        let places = positions.index_select(&Tensor::from_vec(places, count, &Device::Cpu)?, 0)?;
        let history = padded.history()?;
        let history = history.add(&places.reshape(history.shape())?)?;
        let targets = padded.targets.broadcast_add(&positions.narrow(0, 0, 1)?)?;
        let scores = (targets.matmul(&history.transpose(1, 2)?)? * f64::from(self.op.effective_scale()))?;
        attend(&scores, padded, &history)
    }
}
