//! The weighted sum of one candidate over a history that arrives in chunks.

use crate::cpu::vector::{add_scaled, sigmoid_of};
use crate::ops::Weighting;

/// How many behaviours make a chunk. Sums are taken within a chunk, then over chunks, so that rounding grows with
/// the chunk's length plus the number of chunks, not with their product.
pub(super) const CHUNK: usize = 256;

/// `Σ_l w_l·v_l` in one pass. With softmax, weights are kept relative to the largest score so far and rescaled when
/// a larger one comes (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867).
pub(super) struct Pooling {
    weighting: Weighting,
    max: f32,
    weights: f32,
    total: Vec<f32>,
    chunk: Vec<f32>,
}

impl Pooling {
    pub(super) fn new(weighting: Weighting, width: usize) -> Self {
        let (total, chunk) = (vec![0.0; width], vec![0.0; width]);
        Self { weighting, max: f32::NEG_INFINITY, weights: 0.0, total, chunk }
    }

    /// Adds a chunk: its scores, which are overwritten by weights, and its values.
    pub(super) fn add<'a>(&mut self, scores: &mut [f32], value: impl Fn(usize) -> &'a [f32]) {
        let rescale = match self.weighting {
            Weighting::Softmax => self.softmax_weights(scores),
            Weighting::Relu => {
                // Not f32::max: it would turn NaN into 0.
                scores.iter_mut().for_each(|s| *s = if *s < 0.0 { 0.0 } else { *s });
                1.0
            }
            Weighting::Silu { divisor } => {
                // At -∞ the product is NaN, its limit 0.
                let silu = |s: f32| if s == f32::NEG_INFINITY { 0.0 } else { s * sigmoid_of(s) / divisor };
                scores.iter_mut().for_each(|s| *s = silu(*s));
                1.0
            }
            Weighting::Identity => 1.0,
        };
        self.chunk.fill(0.0);
        for (l, &weight) in scores.iter().enumerate() {
            // A removed behaviour (a score of -∞) takes no part, whatever its value holds.
            if weight != 0.0 {
                add_scaled(&mut self.chunk, weight, value(l));
            }
        }
        for (total, chunk) in self.total.iter_mut().zip(&self.chunk) {
            *total = *total * rescale + chunk;
        }
    }

    /// Turns scores into `exp(score − max)` and returns the factor that what came before must take.
    fn softmax_weights(&mut self, scores: &mut [f32]) -> f32 {
        let max = scores.iter().copied().fold(self.max, f32::max);
        // With nothing above -∞ yet, any finite shift will do: the weights are 0, or NaN for a NaN.
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let rescale = (self.max - shift).exp();
        let mut sum = 0.0;
        for score in scores {
            *score = (*score - shift).exp();
            sum += *score;
        }
        self.max = max;
        self.weights = self.weights * rescale + sum;
        rescale
    }

    /// The weighted sum, and the log-sum-exp of the scores with softmax.
    pub(super) fn finish(mut self) -> (Vec<f32>, f32) {
        if self.weighting != Weighting::Softmax {
            return (self.total, f32::NEG_INFINITY);
        }
        // No behaviours, or none that takes part. (A NaN fails the comparison and stays NaN.)
        if self.weights == 0.0 {
            return (self.total, f32::NEG_INFINITY);
        }
        self.total.iter_mut().for_each(|value| *value /= self.weights);
        (self.total, self.max + self.weights.ln())
    }
}
