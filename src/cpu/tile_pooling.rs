//! The weighted sums of sixteen candidates over a history that arrives in blocks.

use crate::cpu::vector::{FEW, LANES, Lanes, Row, exp, sigmoid, weighted_sum, weighted_sum_of_few};
use crate::ops::Weighting;

/// `Σ_l w_l·v_l` in one pass, a lane for each candidate. With softmax, weights are kept relative to the largest score
/// so far and rescaled when a larger one comes (Milakov and Gimelshein, "Online normalizer calculation for softmax",
/// arXiv 1805.02867). Sums are taken within a block, then over blocks, so that rounding grows with the block's length
/// plus the number of blocks.
pub(super) struct TilePooling {
    weighting: Weighting,
    /// How many lanes have a candidate.
    used: usize,
    max: Row,
    weights: Row,
    /// `[d_v]`.
    total: Vec<Row>,
    block: Vec<Row>,
}

impl TilePooling {
    pub(super) fn new(weighting: Weighting, used: usize, width: usize) -> Self {
        let (max, weights) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
        let (total, block) = (vec![[0.0; LANES]; width], vec![[0.0; LANES]; width]);
        Self { weighting, used, max, weights, total, block }
    }

    /// Adds a block: its scores, which are overwritten by weights, and its values, `stride` apart.
    #[inline(always)]
    pub(super) fn add<L: Lanes>(&mut self, l: L, scores: &mut [Row], values: &[f32], stride: usize) {
        let rescale = match self.weighting {
            Weighting::Softmax => self.softmax_weights(l, scores),
            Weighting::Relu => {
                let zero = l.splat(0.0);
                // Not max, which may turn NaN into 0.
                for_each(l, scores, |s| l.if_less(s, zero, zero, s));
                l.splat(1.0)
            }
            Weighting::Silu { divisor } => {
                let (lowest, zero, divisor) = (l.splat(f32::MIN), l.splat(0.0), l.splat(divisor));
                // At -∞ the product is NaN, its limit 0.
                for_each(l, scores, |s| l.if_less(s, lowest, zero, l.div(l.mul(s, sigmoid(l, s)), divisor)));
                l.splat(1.0)
            }
            Weighting::Identity => l.splat(1.0),
        };
        // NaN where a sum is infinite or NaN.
        let mut finite = l.splat(0.0);
        let block = &mut self.block;
        let width = block.len();
        if self.used <= FEW && width.is_multiple_of(LANES) {
            weighted_sum_of_few(l, values, stride, width, (scores, self.used), |first, lane, sums| {
                let sum = l.load(sums);
                finite = l.add(finite, l.sub(sum, sum));
                for (block, sum) in block[first..].iter_mut().zip(sums) {
                    block[lane] = *sum;
                }
            });
        } else {
            weighted_sum(l, values, stride, width, scores, |j, sum| {
                finite = l.add(finite, l.sub(sum, sum));
                l.store(&mut block[j], sum);
            });
        }
        if l.sum(finite).is_nan() {
            self.add_up_without_removed(scores, values, stride);
        }
        for (total, block) in self.total.iter_mut().zip(&self.block) {
            l.store(total, l.mul_add(l.load(total), rescale, l.load(block)));
        }
    }

    /// The block's sums once more: a removed behaviour (a weight of 0) takes no part, whatever its value holds.
    #[cold]
    fn add_up_without_removed(&mut self, weights: &[Row], values: &[f32], stride: usize) {
        for (j, sums) in self.block.iter_mut().enumerate() {
            *sums = [0.0; LANES];
            for (weights, row) in weights.iter().zip(values.chunks(stride)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    if *weight != 0.0 {
                        *sum += weight * row[j];
                    }
                }
            }
        }
    }

    /// Turns scores into `exp(score − max)` and returns the factors that what came before must take.
    #[inline(always)]
    fn softmax_weights<L: Lanes>(&mut self, l: L, scores: &mut [Row]) -> L::V {
        let before = l.load(&self.max);
        let max = scores.iter().fold(before, |max, score| l.max(l.load(score), max));
        let shift = finite_shift(l, max);
        let rescale = exp(l, l.sub(before, shift));
        let mut sum = l.splat(0.0);
        for score in scores {
            let weight = exp(l, l.sub(l.load(score), shift));
            sum = l.add(sum, weight);
            l.store(score, weight);
        }
        let weights = l.mul_add(l.load(&self.weights), rescale, sum);
        l.store(&mut self.max, max);
        l.store(&mut self.weights, weights);
        rescale
    }

    /// Takes in the sums over another part of the history.
    #[inline(always)]
    pub(super) fn merge<L: Lanes>(&mut self, l: L, other: &Self) {
        let mut factors = [l.splat(1.0); 2];
        if self.weighting == Weighting::Softmax {
            let maxima = [l.load(&self.max), l.load(&other.max)];
            let max = l.max(maxima[0], maxima[1]);
            let shift = finite_shift(l, max);
            factors = maxima.map(|max| exp(l, l.sub(max, shift)));
            let weights = l.mul(l.load(&self.weights), factors[0]);
            let weights = l.mul_add(l.load(&other.weights), factors[1], weights);
            l.store(&mut self.max, max);
            l.store(&mut self.weights, weights);
        }
        for (total, other) in self.total.iter_mut().zip(&other.total) {
            let scaled = l.mul(l.load(total), factors[0]);
            l.store(total, l.mul_add(l.load(other), factors[1], scaled));
        }
    }

    /// Turns the sums into the result, and returns the log-sum-exp of the scores with softmax.
    #[inline(always)]
    pub(super) fn finish<L: Lanes>(&mut self, l: L) -> Row {
        let mut lse = [f32::NEG_INFINITY; LANES];
        if self.weighting == Weighting::Softmax {
            // No behaviours, or none that takes part: a row of zeros. (NaN is not equal to 0 and stays.)
            let divisors = l.load(&self.weights.map(|weights| if weights == 0.0 { 1.0 } else { weights }));
            for total in &mut self.total {
                l.store(total, l.div(l.load(total), divisors));
            }
            for ((lse, max), weights) in lse.iter_mut().zip(self.max).zip(self.weights) {
                *lse = max + weights.ln();
            }
        }
        lse
    }

    /// The weighted sums, `[d_v]`.
    pub(super) fn sums(&self) -> &[Row] {
        &self.total
    }
}

#[inline(always)]
fn for_each<L: Lanes>(l: L, rows: &mut [Row], f: impl Fn(L::V) -> L::V) {
    for row in rows {
        l.store(row, f(l.load(row)));
    }
}

/// What to subtract from scores: the largest, but with nothing above -∞ any finite number will do: the weights are 0,
/// or NaN for a NaN.
#[inline(always)]
fn finite_shift<L: Lanes>(l: L, max: L::V) -> L::V {
    l.if_less(max, l.splat(f32::MIN), l.splat(0.0), max)
}
