//! Softmax over a list of scores.

use crate::cpu::vector::{LANES, Lanes, exp};

/// The numbers whose sum is computed in one chain; the sums are added up in order.
pub(super) const PART: usize = 256;

/// Turns scores, none of which is `-∞`, into `exp(score − max)`; returns the largest score and the sum.
#[inline(always)]
pub(super) fn softmax_weights<L: Lanes>(l: L, scores: &mut [f32]) -> (f32, f32) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (max, mut sum) = (l.splat(largest), 0.0);
    for scores in scores.chunks_mut(PART) {
        let mut sums = l.splat(0.0);
        for scores in scores.chunks_mut(LANES) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            lanes[..scores.len()].copy_from_slice(scores);
            let weights = exp(l, l.sub(l.load(&lanes), max));
            sums = l.add(sums, weights);
            l.store(&mut lanes, weights);
            scores.copy_from_slice(&lanes[..scores.len()]);
        }
        sum += l.sum(sums);
    }
    (largest, sum)
}
