//! The weighted sums of sixteen candidates over a history that is read in blocks.

use crate::cpu::vector::{FEW, LANES, Lanes, Row, exp, sigmoid, weighted_sum, weighted_sum_of_few};
use crate::ops::Weighting;

/// `Σ_l w_l·v_l` in one pass, one lane per candidate. With softmax, weights are relative to the largest score so far, and
/// older sums are rescaled when a larger score appears (Milakov and Gimelshein, "Online normalizer calculation for
/// softmax", arXiv 1805.02867). Sums are computed within each block, then over blocks, so that rounding errors grow with
/// the block's length plus the number of blocks, not with their product.
pub(super) struct TilePooling {
    weighting: Weighting,
    /// The number of lanes that have a candidate.
    used: usize,
    /// With softmax, the state of each lane: the largest score so far, and `Σ_l exp(s_l − max)`.
    max: Row,
    sum: Row,
    /// `[d_v]`: `Σ_l w_l·v_l` over all blocks so far, and over the current one.
    weighted_values: Vec<Row>,
    block: Vec<Row>,
}

impl TilePooling {
    pub(super) fn new(weighting: Weighting, used: usize, width: usize) -> Self {
        let (max, sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
        let (weighted_values, block) = (vec![[0.0; LANES]; width], vec![[0.0; LANES]; width]);
        Self { weighting, used, max, sum, weighted_values, block }
    }

    /// Adds a block: its scores, which are overwritten with the weights, and its values, whose rows are `stride` apart.
    #[inline(always)]
    pub(super) fn add<L: Lanes>(&mut self, l: L, scores: &mut [Row], values: &[f32], stride: usize) {
        let rescale = match self.weighting {
            Weighting::Softmax => self.softmax_weights(l, scores),
            Weighting::Relu => {
                let zero = l.splat(0.0);
                // Not `max`, which may turn NaN into 0.
                for_each(l, scores, |s| l.if_less(s, zero, zero, s));
                l.splat(1.0)
            }
            Weighting::Silu { divisor } => {
                let (lowest, zero, divisor) = (l.splat(f32::MIN), l.splat(0.0), l.splat(divisor));
                // At -∞ the product is NaN, but its limit is 0.
                for_each(l, scores, |s| l.if_less(s, lowest, zero, l.div(l.mul(s, sigmoid(l, s)), divisor)));
                l.splat(1.0)
            }
            Weighting::Identity => l.splat(1.0),
        };
        // Becomes NaN if any sum is infinite or NaN.
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
            self.sum_without_removed(scores, values, stride);
        }
        for (all, block) in self.weighted_values.iter_mut().zip(&self.block) {
            l.store(all, l.mul_add(l.load(all), rescale, l.load(block)));
        }
    }

    /// Recomputes the block's sums without the removed behaviours (those of weight 0), whose values may hold anything.
    #[cold]
    fn sum_without_removed(&mut self, weights: &[Row], values: &[f32], stride: usize) {
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

    /// Turns scores into `exp(score − max)`, and returns the factors that rescale the older sums.
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
        let sum = l.mul_add(l.load(&self.sum), rescale, sum);
        l.store(&mut self.max, max);
        l.store(&mut self.sum, sum);
        rescale
    }

    /// Combines these sums with those of the next piece.
    #[inline(always)]
    pub(super) fn combine<L: Lanes>(&mut self, l: L, other: &Self) {
        let mut factors = [l.splat(1.0); 2];
        if self.weighting == Weighting::Softmax {
            let maxima = [l.load(&self.max), l.load(&other.max)];
            let max = l.max(maxima[0], maxima[1]);
            let shift = finite_shift(l, max);
            factors = maxima.map(|max| exp(l, l.sub(max, shift)));
            let sum = l.mul(l.load(&self.sum), factors[0]);
            let sum = l.mul_add(l.load(&other.sum), factors[1], sum);
            l.store(&mut self.max, max);
            l.store(&mut self.sum, sum);
        }
        for (all, other) in self.weighted_values.iter_mut().zip(&other.weighted_values) {
            let scaled = l.mul(l.load(all), factors[0]);
            l.store(all, l.mul_add(l.load(other), factors[1], scaled));
        }
    }

    /// With softmax, divides by the sum of the weights and returns the log-sum-exp of the scores.
    #[inline(always)]
    pub(super) fn finish<L: Lanes>(&mut self, l: L) -> Row {
        let mut lse = [f32::NEG_INFINITY; LANES];
        if self.weighting == Weighting::Softmax {
            // Without behaviours, or with all of them removed, the row stays zeros. (NaN is not equal to 0 and stays NaN.)
            let divisors = l.load(&self.sum.map(|sum| if sum == 0.0 { 1.0 } else { sum }));
            for values in &mut self.weighted_values {
                l.store(values, l.div(l.load(values), divisors));
            }
            for ((lse, max), sum) in lse.iter_mut().zip(self.max).zip(self.sum) {
                *lse = max + sum.ln();
            }
        }
        lse
    }

    /// `[d_v]`: the weighted sums of the values.
    pub(super) fn weighted_values(&self) -> &[Row] {
        &self.weighted_values
    }
}

#[inline(always)]
fn for_each<L: Lanes>(l: L, rows: &mut [Row], f: impl Fn(L::V) -> L::V) {
    for row in rows {
        l.store(row, f(l.load(row)));
    }
}

/// The number to subtract from scores: `max`, or 0 if no score is above -∞, where any finite number gives weights of 0
/// (and NaN for NaN).
#[inline(always)]
fn finite_shift<L: Lanes>(l: L, max: L::V) -> L::V {
    l.if_less(max, l.splat(f32::MIN), l.splat(0.0), max)
}
