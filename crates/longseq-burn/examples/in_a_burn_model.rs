//! Target attention in a burn model: the code of the README.

use burn::module::Module;
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use longseq_burn::longseq::{Result, TargetAttention};
use longseq_burn::{Batch, Longseq, TargetAttentionTensors};

#[derive(Module, Debug)]
struct Model {
    query: Linear,
    key: Linear,
    score: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        let linear = |to| LinearConfig::new(16, to).init(device);
        Self { query: linear(16), key: linear(16), score: linear(1) }
    }

    /// The log-odds of a click for each candidate.
    fn forward(
        &self,
        longseq: &Longseq,
        batch: &Batch,
        candidates: &Tensor<2>,
        history: &Tensor<2>,
    ) -> Result<Tensor<1>> {
        let op = TargetAttention::new(8).with_heads(2, 2); // two heads of width 8, softmax
        let (queries, keys) = (self.query.forward(candidates.clone()), self.key.forward(history.clone()));
        let inputs = TargetAttentionTensors::new(&queries, &keys).with_values(history);
        let interest = longseq.target_attention(&op, batch, inputs)?; // [3, 16]
        Ok(self.score.forward(interest).squeeze_dim(1))
    }
}

fn main() -> Result<()> {
    let (longseq, device) = (Longseq::cpu(), Device::flex().autodiff());
    // Two users with 3 and 2 behaviours, 1 and 2 candidates.
    let batch = longseq.batch(&[0u32, 3, 5][..], &[0u32, 1, 3][..])?;
    let history = Tensor::random([5, 16], Distribution::Normal(0.0, 1.0), &device);
    let candidates = Tensor::random([3, 16], Distribution::Normal(0.0, 1.0), &device);
    let clicks = Tensor::<1, Int>::from_data([1, 0, 1], &device);

    let mut model = Model::new(&device);
    let criterion = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
    let mut optimiser = AdamWConfig::new().init();
    let mut losses = Vec::new();
    for _ in 0..30 {
        let logits = model.forward(&longseq, &batch, &candidates, &history)?;
        let loss = criterion.forward(logits, clicks.clone());
        losses.push(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimiser.step(0.05, model, grads);
    }
    assert!(losses[29] < losses[0], "{losses:?}");
    Ok(())
}
