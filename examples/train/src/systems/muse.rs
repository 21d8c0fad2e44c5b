//! MUSE: the 50 behaviours whose contents are most like the candidate's, attention that knows the similarities, and SimTier's histograms of them,
//! which a linear layer adds to the interest.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Linear, Module, linear};
use longseq::SelectedAttention;
use longseq_candle::SearchTensor;
use longseq_candle::layers::{MuseLayer, MuseTensors};

use super::{Interest, PREFIX, Sizes, attend_to_best, project};
use crate::contents::Contents;
use crate::inputs::{Inputs, Padded};
use crate::weights::Weights;

/// How many behaviours are kept for a candidate, and how many of the newest are counted.
const KEPT: usize = 50;
/// Steps of similarity from 0 to 1, and bins from −1 to 1.
const STEPS: usize = 10;
const BINS: usize = 2 * STEPS + 1;

pub(super) struct Muse {
    op: SelectedAttention,
    layer: MuseLayer,
    /// From both histograms' features to the interest.
    simtier: Linear,
    contents: Contents,
    weights: Weights,
}

impl Muse {
    pub(super) fn new(sizes: Sizes, contents: Option<&Contents>, weights: &Weights) -> Result<Self> {
        let Some(contents) = contents.cloned() else {
            candle_core::bail!("MUSE searches in the contents of items: give them with --contents");
        };
        let op = SelectedAttention::new(sizes.width).with_top_k(KEPT);
        let builder = weights.builder().pp(PREFIX);
        let layer = MuseLayer::new(sizes.width, contents.width()?, op, builder.clone())?;
        weights
            .begin_as_identity(&["query", "key", "value"].map(|name| format!("{PREFIX}.{name}.weight")))?;
        let simtier = linear(2 * BINS, sizes.width, builder.pp("simtier"))?;
        Ok(Self { op, layer, simtier, contents, weights: weights.clone() })
    }

    /// SimTier of similarities `[B, C, K]`, where `real` is 1 for those that count: `ln(1 + count)·b`, `[B, C, 21]`.
    fn histogram(&self, similarities: &Tensor, real: &Tensor, name: &str) -> Result<Tensor> {
        let bins = ((similarities * STEPS as f64)?.ceil()? + STEPS as f64)?.clamp(0.0, (BINS - 1) as f64)?;
        let counts: Vec<Tensor> = (0..BINS)
            .map(|bin| bins.eq(bin as f64)?.to_dtype(DType::F32)?.broadcast_mul(real)?.sum(2))
            .collect::<Result<_>>()?;
        let of_bins = self.weights.tensor(&format!("{PREFIX}.tiers.{name}"))?;
        (Tensor::stack(&counts, 2)? + 1.0)?.log()?.broadcast_mul(&of_bins)
    }
}

impl Interest for Muse {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        let contents = [&inputs.target_ids, &inputs.history_ids].map(|ids| self.contents.codes(ids));
        let [target_contents, history_contents] = contents;
        let (target_contents, history_contents, history) =
            (target_contents?, history_contents?, inputs.history()?);
        let tensors = MuseTensors {
            targets: &inputs.targets,
            history: &history,
            target_contents: SearchTensor::Codes(&target_contents),
            history_contents: SearchTensor::Codes(&history_contents),
        };
        let interest = self.layer.forward(inputs.longseq, &inputs.batch, tensors)?;
        let features = Tensor::cat(&[&interest.tiers, &interest.newest], 1)?;
        interest.interest.add(&self.simtier.forward(&features)?)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let history = padded.history()?;
        let (users, longest, _) = history.dims3()?;
        let unit = |ids: &Tensor| -> Result<Tensor> {
            let rows = self.contents.numbers(ids)?;
            let rows = rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)?;
            rows.reshape((users, ids.elem_count() / users, self.contents.width()?))
        };
        let similarities = unit(&padded.target_ids)?.matmul(&unit(&padded.history_ids)?.transpose(1, 2)?)?; // [B, C, L]
        let scores = super::scores(&self.op, &self.weights, padded, &history)?;
        let gamma = |name: &str| self.weights.tensor(&format!("{PREFIX}.gammas.{name}"));
        let of_score = scores.broadcast_mul(&gamma("score")?)?;
        let of_similarity = similarities.broadcast_mul(&gamma("similarity")?)?;
        let scores = of_score
            .add(&of_similarity)?
            .add(&scores.mul(&similarities)?.broadcast_mul(&gamma("product")?)?)?;
        let values = project(&self.weights, &history, "value")?;
        let interest = attend_to_best(&similarities, &scores, padded, &values, KEPT)?;

        let order = similarities.broadcast_add(&padded.mask)?.arg_sort_last_dim(false)?;
        let best = order.narrow(2, 0, KEPT.min(longest))?.contiguous()?;
        let real = padded.real.transpose(1, 2)?.contiguous()?; // [B, 1, L]
        let real_of_best = real.broadcast_as(similarities.shape())?.contiguous()?.gather(&best, 2)?;
        let kept = self.histogram(&similarities.gather(&best, 2)?, &real_of_best, "kept")?;
        let of_newest = padded.newest(KEPT)?.transpose(1, 2)?.contiguous()?;
        let newest = self.histogram(&similarities, &of_newest, "newest")?;
        interest.add(&self.simtier.forward(&Tensor::cat(&[kept, newest], 2)?)?)
    }
}
