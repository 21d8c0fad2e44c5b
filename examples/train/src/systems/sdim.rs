//! SDIM: 16 groups of 3 bits, as in the paper.

use candle_core::{DType, Device, Result, Tensor};
use longseq_candle::layers::SdimLayer;

use super::{Interest, PREFIX, Sizes};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

pub(super) struct Sdim {
    op: longseq::Sdim,
    layer: SdimLayer,
    weights: Weights,
}

impl Sdim {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let op = longseq::Sdim::new(sizes.width);
        let layer = SdimLayer::new(op, weights.builder().pp(PREFIX))?;
        Ok(Self { op, layer, weights: weights.clone() })
    }

    /// The signatures of rows `[B, R, d]`: `[B, R, G]` of `f32`.
    fn signatures(&self, rows: &Tensor) -> Result<Tensor> {
        let (users, count, width) = rows.dims3()?;
        let (groups, bits) = (self.op.groups, self.op.bits);
        let rotations = self.weights.var("interest.rotations")?.as_detached_tensor();
        let products = rows.detach().reshape((users * count, width))?;
        let products = products.matmul(&rotations.reshape((width, groups * bits))?)?;
        let ones = products.gt(0.0)?.to_dtype(DType::F32)?.reshape((users, count, groups, bits))?;
        let places: Vec<f32> = (0..bits).map(|bit| (1u32 << bit) as f32).collect();
        ones.broadcast_mul(&Tensor::from_vec(places, bits, &Device::Cpu)?)?.sum(3)
    }
}

impl Interest for Sdim {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let history = padded.history()?;
        let (users, count, width) = padded.targets.dims3()?;
        let groups = self.op.groups;
        let of_targets = self.signatures(&padded.targets)?.unsqueeze(2)?;
        let of_history = self.signatures(&history)?.unsqueeze(1)?;
        let hits = of_targets.broadcast_eq(&of_history)?.to_dtype(DType::F32)?; // [B, C, L, G]
        let hits =
            hits.permute((0, 1, 3, 2))?.contiguous()?.reshape((users, count * groups, padded.longest))?;
        let real = padded.real.transpose(1, 2)?.contiguous()?; // [B, 1, L]
        let sums = hits.broadcast_mul(&real)?.matmul(&history)?.reshape((users, count, groups, width))?;
        // The number keeps the root of an empty bucket, and its gradient, finite.
        let lengths = (sums.sqr()?.sum_keepdim(3)? + 1e-24)?.sqrt()?;
        sums.broadcast_div(&lengths)?.mean(2)
    }
}
