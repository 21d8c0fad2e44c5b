//! What softmax over a whole history needs to know of it, for each candidate.

use crate::cpu::vector::{LANES, Lanes, exp};

/// The scores `a_l` of some behaviours and the gradients `dw_l` of their weights, summed up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normaliser {
    /// The largest score.
    max: f32,
    /// `Σ exp(a_l − max)`.
    pub(super) sum: f32,
    /// `Σ exp(a_l − max)·dw_l`.
    pub(super) weighted: f32,
}

impl Normaliser {
    /// Of no behaviour.
    pub(super) const NONE: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };

    /// Of behaviours with these scores and gradients; a score of `-∞` removes one, whatever its gradient is.
    #[inline(always)]
    pub(super) fn new<L: Lanes>(l: L, scores: &[f32], grad_weights: &[f32]) -> Self {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shift = l.splat(Self { max, ..Self::NONE }.shift());
        let (mut sum, mut weighted) = (l.splat(0.0), l.splat(0.0));
        for (scores, grads) in scores.chunks(LANES).zip(grad_weights.chunks(LANES)) {
            let (mut score, mut grad) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
            for (i, (&from, &grad_weight)) in scores.iter().zip(grads).enumerate() {
                if from != f32::NEG_INFINITY {
                    (score[i], grad[i]) = (from, grad_weight);
                }
            }
            let exponential = exp(l, l.sub(l.load(&score), shift));
            sum = l.add(sum, exponential);
            weighted = l.mul_add(exponential, l.load(&grad), weighted);
        }
        Self { max, sum: l.sum(sum), weighted: l.sum(weighted) }
    }

    /// The number to subtract from scores: the largest, or 0 if none is above `-∞`.
    pub(super) fn shift(&self) -> f32 {
        if self.max < f32::MIN { 0.0 } else { self.max }
    }

    /// Adds later behaviours.
    pub(super) fn add(&mut self, later: &Self) {
        let all = Self { max: self.max.max(later.max), ..Self::NONE };
        let shift = all.shift();
        let factors = [self.max, later.max].map(|max| (max - shift).exp());
        let both = |of: fn(&Self) -> f32| of(self) * factors[0] + of(later) * factors[1];
        *self = Self { sum: both(|part| part.sum), weighted: both(|part| part.weighted), ..all };
    }
}
