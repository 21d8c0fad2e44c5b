//! The weighted sums of sixteen candidates over a history that is read in blocks.

use crate::cpu::vector::{FEW, LANES, Lanes, Row, exp, sigmoid, weighted_sum, weighted_sum_of_few};
use crate::ops::Weighting;

/// `Σ_l w_l·v_l` in one pass, one lane per candidate. With softmax, weights are relative to the largest score so far, and
/// older sums are rescaled when a larger score appears (Milakov and Gimelshein, "Online normalizer calculation for
/// softmax", arXiv 1805.02867). Sums are computed within each block, then over blocks, so that rounding errors grow with
/// the block's length plus the number of blocks, not with their product.
///
/// A behaviour whose score is `-∞` is removed, whatever its value holds. With softmax, the result is at most the largest
/// value, but a sum may exceed `f32`: then the sums are computed scaled by [`SMALL`] from there on.
pub(super) struct TilePooling {
    weighting: Weighting,
    /// What weights of SiLU are divided by.
    divisor: f32,
    /// The number of lanes that have a candidate.
    used: usize,
    /// With softmax, the state of each lane: the largest score so far, and `Σ_l exp(s_l − max)`.
    max: Row,
    sum: Row,
    /// `[d_v]`: `Σ_l w_l·v_l` over all blocks so far, times [`SMALL`] if `scaled`.
    weighted_values: Vec<Row>,
    scaled: bool,
    /// `[d_v]`: scratch for the next `weighted_values`, and, with few candidates, for the sums of a block.
    next: Vec<Row>,
    block: Vec<Row>,
}

/// The factor of scaled sums: the sum of 2³² of the largest numbers is finite. A power of two, so that it adds no rounding.
const SMALL: f32 = 1.0 / (1u64 << 32) as f32;

/// Sums of fewer than 2³² numbers of at most this magnitude are finite, and they leave the largest numbers as they are.
const HARMLESS: f32 = (1u128 << 90) as f32;

impl TilePooling {
    pub(super) fn new(weighting: Weighting, used: usize, width: usize) -> Self {
        let (max, sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
        let zeros = |width: usize| vec![[0.0; LANES]; width];
        let (weighted_values, next) = (zeros(width), zeros(width));
        let block = zeros(if used <= FEW && width.is_multiple_of(LANES) { width } else { 0 });
        Self { weighting, divisor: 1.0, used, max, sum, weighted_values, scaled: false, next, block }
    }

    /// Divides weights of SiLU as it is to be done for a history of this length.
    pub(super) fn with_history(self, length: usize) -> Self {
        match self.weighting {
            Weighting::Silu { divisor } => Self { divisor: divisor.value(length), ..self },
            _ => self,
        }
    }

    /// Adds a block: its scores, and its values, whose rows are `stride` apart. `weights` is scratch of the length of the
    /// scores.
    #[inline(always)]
    pub(super) fn add<L: Lanes>(
        &mut self,
        l: L,
        scores: &[Row],
        weights: &mut [Row],
        values: &[f32],
        stride: usize,
    ) {
        let rescale = self.weights(l, scores, weights);
        let is_identity = self.weighting == Weighting::Identity;
        let factors = if is_identity { scores } else { &*weights };
        // Becomes NaN if any sum is infinite or NaN.
        let mut finite = l.splat(0.0);
        let Self { weighted_values, next, block, .. } = self;
        let width = next.len();
        if !block.is_empty() {
            weighted_sum_of_few(l, values, stride, width, (factors, self.used), |first, lane, sums| {
                for (block, sum) in block[first..].iter_mut().zip(sums) {
                    block[lane] = *sum;
                }
            });
            for ((next, all), block) in next.iter_mut().zip(weighted_values).zip(block) {
                let sum = l.mul_add(l.load(all), rescale, l.load(block));
                finite = l.add(finite, l.sub(sum, sum));
                l.store(next, sum);
            }
        } else {
            // The sums of the block alone: more would leave too few registers for them.
            weighted_sum(l, values, stride, width, factors, |j, sum| l.store(&mut next[j], sum));
            for (next, all) in next.iter_mut().zip(weighted_values) {
                let sum = l.mul_add(l.load(all), rescale, l.load(next));
                finite = l.add(finite, l.sub(sum, sum));
                l.store(next, sum);
            }
        }
        if (l.sum(finite).is_nan() || self.scaled) && !is_identity {
            let mut factors = [0.0; LANES];
            l.store(&mut factors, rescale);
            self.add_carefully(scores, weights, values, stride, &factors);
        }
        std::mem::swap(&mut self.weighted_values, &mut self.next);
    }

    /// Computes the weights of a block, and returns the factors that rescale the older sums.
    #[inline(always)]
    fn weights<L: Lanes>(&mut self, l: L, scores: &[Row], weights: &mut [Row]) -> L::V {
        match self.weighting {
            Weighting::Softmax => return self.softmax_weights(l, scores, weights),
            Weighting::Relu => {
                let zero = l.splat(0.0);
                // Not `max`, which may turn NaN into 0.
                map(l, scores, weights, |s| l.if_less(s, zero, zero, s));
            }
            Weighting::Silu { .. } => silu(l, scores, weights, self.divisor),
            // The scores are the weights.
            Weighting::Identity => {}
        }
        l.splat(1.0)
    }

    /// [`Self::weights`] of softmax: `exp(score − max)`.
    #[inline(always)]
    fn softmax_weights<L: Lanes>(&mut self, l: L, scores: &[Row], weights: &mut [Row]) -> L::V {
        let before = l.load(&self.max);
        let max = scores.iter().fold(before, |max, score| l.max(l.load(score), max));
        let shift = finite_shift(l, max);
        let rescale = exp(l, l.sub(before, shift));
        let mut sum = l.splat(0.0);
        for (score, weight) in scores.iter().zip(&mut *weights) {
            let exponential = exp(l, l.sub(l.load(score), shift));
            sum = l.add(sum, exponential);
            l.store(weight, exponential);
        }
        let sum = l.mul_add(l.load(&self.sum), rescale, sum);
        l.store(&mut self.max, max);
        l.store(&mut self.sum, sum);
        rescale
    }

    /// Recomputes `next`, in which a number is not finite or not scaled, without the removed behaviours, and scaled if the sums
    /// overflowed. Values are scaled and not weights, which may be as small as normal numbers go.
    #[cold]
    fn add_carefully(
        &mut self,
        scores: &[Row],
        weights: &[Row],
        values: &[f32],
        stride: usize,
        rescale: &Row,
    ) {
        let width = self.next.len();
        let is_large = |value: &f32| value.is_finite() && value.abs() > HARMLESS;
        let mut rows = values.chunks(stride).take(scores.len());
        let overflows = self.weighting == Weighting::Softmax
            && !self.scaled
            && rows.any(|row| row[..width].iter().any(is_large));
        if overflows {
            self.scale();
        } else if !self.scaled && !scores.as_flattened().contains(&f32::NEG_INFINITY) {
            return;
        }
        let scale = if self.scaled { SMALL } else { 1.0 };
        for (j, (next, all)) in self.next.iter_mut().zip(&self.weighted_values).enumerate() {
            let mut sums = [0.0; LANES];
            for ((scores, weights), row) in scores.iter().zip(weights).zip(values.chunks(stride)) {
                let value = row[j] * scale;
                for (sum, (score, weight)) in sums.iter_mut().zip(scores.iter().zip(weights)) {
                    if *score != f32::NEG_INFINITY {
                        *sum += weight * value;
                    }
                }
            }
            *next = std::array::from_fn(|lane| all[lane] * rescale[lane] + sums[lane]);
        }
    }

    /// Turns the sums into scaled ones.
    fn scale(&mut self) {
        if !self.scaled {
            scale(&mut self.weighted_values);
            self.scaled = true;
        }
    }

    /// Combines these sums with those of the next piece.
    #[inline(always)]
    pub(super) fn combine<L: Lanes>(&mut self, l: L, mut other: Self) {
        let mut factors = [l.splat(1.0); 2];
        if self.weighting == Weighting::Softmax {
            let maxima = [l.load(&self.max), l.load(&other.max)];
            let max = l.max(maxima[0], maxima[1]);
            let shift = finite_shift(l, max);
            factors = [exp(l, l.sub(maxima[0], shift)), exp(l, l.sub(maxima[1], shift))];
            let sum = l.mul(l.load(&self.sum), factors[0]);
            let sum = l.mul_add(l.load(&other.sum), factors[1], sum);
            l.store(&mut self.max, max);
            l.store(&mut self.sum, sum);
        }
        if self.scaled || other.scaled {
            self.scale();
            other.scale();
        }
        if !self.add_sums(l, &other, factors) && self.overflowed(&other) {
            self.scale();
            other.scale();
            self.add_sums(l, &other, factors);
        }
        std::mem::swap(&mut self.weighted_values, &mut self.next);
    }

    /// Computes `next` from the sums of both pieces; returns whether all are finite.
    #[inline(always)]
    fn add_sums<L: Lanes>(&mut self, l: L, other: &Self, factors: [L::V; 2]) -> bool {
        let mut finite = l.splat(0.0);
        let sums = self.weighted_values.iter().zip(&other.weighted_values);
        for (next, (all, other)) in self.next.iter_mut().zip(sums) {
            let scaled = l.mul(l.load(all), factors[0]);
            let sum = l.mul_add(l.load(other), factors[1], scaled);
            finite = l.add(finite, l.sub(sum, sum));
            l.store(next, sum);
        }
        !l.sum(finite).is_nan()
    }

    /// Whether a sum of finite numbers in `next` is not finite.
    #[cold]
    fn overflowed(&self, other: &Self) -> bool {
        let sums = self.weighted_values.iter().zip(&other.weighted_values).zip(&self.next);
        let numbers = sums.flat_map(|((all, other), next)| all.iter().zip(other).zip(next));
        let overflowed = |((all, other), next): ((&f32, &f32), &f32)| {
            all.is_finite() && other.is_finite() && next.is_infinite()
        };
        self.weighting == Weighting::Softmax && !self.scaled && numbers.into_iter().any(overflowed)
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
        if self.scaled {
            self.weighted_values.as_flattened_mut().iter_mut().for_each(|value| *value = unscaled(*value));
        }
        lse
    }

    /// With softmax, the largest score of each lane and `Σ_l exp(s_l − max)`.
    pub(super) fn softmax_state(&self) -> (Row, Row) {
        (self.max, self.sum)
    }

    /// `[d_v]`: the weighted sums of the values.
    pub(super) fn weighted_values(&self) -> &[Row] {
        &self.weighted_values
    }
}

fn scale(rows: &mut [Row]) {
    rows.as_flattened_mut().iter_mut().for_each(|value| *value *= SMALL);
}

/// A mean of values from its scaled sum. It is at most the largest value, which a rounding error may exceed.
fn unscaled(mean: f32) -> f32 {
    let value = mean / SMALL;
    if mean.is_finite() { value.clamp(f32::MIN, f32::MAX) } else { value }
}

#[inline(always)]
fn map<L: Lanes>(l: L, from: &[Row], to: &mut [Row], f: impl Fn(L::V) -> L::V) {
    for (from, to) in from.iter().zip(to) {
        l.store(to, f(l.load(from)));
    }
}

/// `s·σ(s)/divisor`. (Not a closure: one of this size is not inlined, and compiled without the kernel's instructions.)
#[inline(always)]
fn silu<L: Lanes>(l: L, scores: &[Row], weights: &mut [Row], divisor: f32) {
    let (lowest, zero, divisor) = (l.splat(f32::MIN), l.splat(0.0), l.splat(divisor));
    for (score, weight) in scores.iter().zip(weights) {
        let s = l.load(score);
        // At -∞ the product is NaN, but its limit is 0.
        l.store(weight, l.if_less(s, lowest, zero, l.div(l.mul(s, sigmoid(l, s)), divisor)));
    }
}

/// The number to subtract from scores: `max`, or 0 if no score is above -∞, where any finite number gives weights of 0
/// (and NaN for NaN).
#[inline(always)]
fn finite_shift<L: Lanes>(l: L, max: L::V) -> L::V {
    l.if_less(max, l.splat(f32::MIN), l.splat(0.0), max)
}
