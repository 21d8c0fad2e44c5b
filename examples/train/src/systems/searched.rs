//! Systems that keep the best behaviours of each candidate and attend to those: TWIN keeps by the scores of its attention, ETA by the number of
//! equal signs of random projections.

use candle_core::{DType, Result, Tensor};
use longseq::SelectedAttention;
use longseq_candle::layers::{EtaLayer, TwinLayer};

use super::{Interest, PREFIX, Sizes, attend_to_best, project, scores};
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

/// How many behaviours are kept for a candidate.
const KEPT: usize = 50;
/// ETA's signs.
const BITS: usize = 64;

const NAMES: [&str; 4] =
    ["interest.query.weight", "interest.key.weight", "interest.value.weight", "interest.output.weight"];

/// TWIN with one head, without cross features, which this log does not have.
pub(super) struct Twin {
    op: SelectedAttention,
    layer: TwinLayer,
    weights: Weights,
}

impl Twin {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let op = SelectedAttention::new(sizes.width).with_top_k(KEPT);
        let layer = TwinLayer::new(sizes.width, op, None, weights.builder().pp(PREFIX))?;
        // Attention without projections, to begin with.
        weights.begin_as_identity(&NAMES)?;
        Ok(Self { op, layer, weights: weights.clone() })
    }
}

impl Interest for Twin {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?, None)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let history = padded.history()?;
        let scores = scores(&self.op, &self.weights, padded, &history)?;
        let values = project(&self.weights, &history, "value")?;
        project(&self.weights, &attend_to_best(&scores, &scores, padded, &values, KEPT)?, "output")
    }
}

/// ETA.
pub(super) struct Eta {
    op: SelectedAttention,
    layer: EtaLayer,
    weights: Weights,
}

impl Eta {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let op = SelectedAttention::new(sizes.width).with_top_k(KEPT);
        let layer = EtaLayer::new(sizes.width, BITS, op, weights.builder().pp(PREFIX))?;
        weights.begin_as_identity(&NAMES)?;
        Ok(Self { op, layer, weights: weights.clone() })
    }
}

impl Interest for Eta {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        self.layer.forward(inputs.longseq, &inputs.batch, &inputs.targets, &inputs.history()?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let rotations = self.weights.var("interest.rotations")?.as_detached_tensor();
        // 1 for a positive projection, else -1: products count equal signs.
        let signs = |rows: &Tensor| {
            let (users, count, width) = rows.dims3()?;
            let projected = rows.detach().reshape((users * count, width))?.matmul(&rotations)?;
            ((projected.gt(0.0)?.to_dtype(DType::F32)? * 2.0)? - 1.0)?.reshape((users, count, BITS))
        };
        let history = padded.history()?;
        let equal = signs(&padded.targets)?.matmul(&signs(&history)?.transpose(1, 2)?)?;
        let scores = scores(&self.op, &self.weights, padded, &history)?;
        let values = project(&self.weights, &history, "value")?;
        project(&self.weights, &attend_to_best(&equal, &scores, padded, &values, KEPT)?, "output")
    }
}
