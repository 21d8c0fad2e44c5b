//! DIN with sums.

use longseq::*;

use super::{CANDIDATES, Sum, TENTH, all, batch, check_all, download, length};
use crate::case::Rules;

/// A network of two units, of which one is 1 for every pair, and so is the score: the first layer reads the candidate's first number,
/// which is 0.
struct Network<B: Backend> {
    width: usize,
    targets: Buffer<B, f32>,
    history: Buffer<B, f32>,
    weight: Buffer<B, f32>,
    bias: Buffer<B, f32>,
    output_weight: Buffer<B, f32>,
    output_bias: Buffer<B, f32>,
}

impl<B: Backend> Network<B> {
    fn new(backend: &B, width: usize, behaviours: usize, candidates: usize) -> Result<Self> {
        let mut weight = vec![0.0f32; 2 * 4 * width];
        weight[0] = 1.0;
        Ok(Self {
            width,
            targets: backend.zeros(candidates * width)?,
            history: all::<B, f32>(backend, TENTH, behaviours * width)?,
            weight: backend.upload(&weight)?,
            bias: backend.upload(&[1.0f32, 0.0])?,
            output_weight: backend.upload(&[1.0f32, 0.0])?,
            output_bias: backend.zeros(1)?,
        })
    }

    /// Runs `with` on the operation and its inputs.
    fn with<R>(
        &self,
        backend: &B,
        with: impl FnOnce(&Din, DinInputs<'_, B::Memory, f32>) -> Result<R>,
    ) -> Result<R> {
        let hidden = [DinLayer::new(backend.view(&self.weight), backend.view(&self.bias), Activation::Relu)];
        let inputs = DinInputs::new(
            backend.view(&self.targets),
            backend.view(&self.history),
            &hidden,
            backend.view(&self.output_weight),
            backend.view(&self.output_bias),
        );
        with(&Din::new(self.width).with_pooling(DinPooling::Sum), inputs)
    }
}

pub(super) fn adds_up_din<B: Backend>(backend: &B, rules: Rules) {
    for (width, candidates) in [(1, 1), (8, 3)] {
        let length = length(rules);
        let run = || -> Result<Vec<Sum>> {
            let network = Network::new(backend, width, length, candidates)?;
            let batch = batch(backend, length, candidates)?;
            let out = network.with(backend, |op, inputs| backend.din(op, &batch, inputs))?;
            Ok(vec![Sum::new("out", download(backend, &out)?, length as f64 * f64::from(TENTH), length)])
        };
        check_all(&format!("width {width}, {candidates} candidates"), run(), rules);
    }
}

/// The gradients for a `grad_out` of 1: of each pair's score it is a tenth for each number of a row.
fn gradients<B: Backend>(
    backend: &B,
    (width, behaviours, candidates): (usize, usize, usize),
) -> Result<Vec<Sum>> {
    let network = Network::new(backend, width, behaviours, candidates)?;
    let grad_out = all::<B, f32>(backend, TENTH, candidates * width)?;
    let batch = batch(backend, behaviours, candidates)?;
    let zeros = |count: usize| backend.zeros::<f32>(count);
    let (mut targets, mut history) = (zeros(candidates * width)?, zeros(behaviours * width)?);
    let (mut weight, mut bias) = (zeros(2 * 4 * width)?, zeros(2)?);
    let (mut output_weight, mut output_bias) = (zeros(2)?, zeros(1)?);
    network.with(backend, |op, inputs| {
        let mut layers = [DinLayerGradients::<B::Memory, f32>::new()
            .with_weight(backend.view_mut(&mut weight))
            .with_bias(backend.view_mut(&mut bias))];
        let grads = DinGradients::new()
            .with_targets(backend.view_mut(&mut targets))
            .with_history(backend.view_mut(&mut history))
            .with_output_weight(backend.view_mut(&mut output_weight))
            .with_output_bias(backend.view_mut(&mut output_bias))
            .with_hidden(&mut layers);
        backend.din_backward_into(op, &batch, inputs, backend.view(&grad_out), grads)
    })?;
    let (l, m, tenth) = (behaviours as f64, candidates as f64, f64::from(TENTH));
    let (of_score, pairs) = (width as f64 * tenth * tenth, behaviours * candidates);
    let first = |numbers: Vec<f32>, count: usize| numbers[..count].to_vec();
    let weight = download(backend, &weight)?;
    let targets: Vec<f32> = download(backend, &targets)?.into_iter().step_by(width).collect();
    Ok(vec![
        Sum::new("targets", targets, l * of_score, behaviours),
        Sum::new("history", download(backend, &history)?, m * tenth, candidates),
        // The blocks of the behaviour and of the difference.
        Sum::new("weight", weight[width..2 * width].to_vec(), l * m * of_score * tenth, pairs),
        Sum::new("weight", weight[2 * width..3 * width].to_vec(), -l * m * of_score * tenth, pairs),
        Sum::new("bias", first(download(backend, &bias)?, 1), l * m * of_score, pairs),
        Sum::new("output_weight", first(download(backend, &output_weight)?, 1), l * m * of_score, pairs),
        Sum::new("output_bias", download(backend, &output_bias)?, l * m * of_score, pairs),
    ])
}

/// Sums over a long history, and over many candidates.
pub(super) fn adds_up_gradients_of_din<B: Backend>(backend: &B, rules: Rules) {
    let long = length(rules);
    for shape in [(1, long, 1), (8, long, 2), (8, 2, CANDIDATES.min(long))] {
        check_all(&format!("{shape:?}"), gradients(backend, shape), rules);
    }
}
