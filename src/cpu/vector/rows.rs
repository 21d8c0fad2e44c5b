//! Sums over rows of `f32`.

use super::lanes::{LANES, Lanes};
use crate::element::Element;

/// `⟨a, b⟩`, in [`LANES`] partial sums.
#[inline(always)]
pub(in crate::cpu) fn dot_lanes<L: Lanes>(l: L, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    let mut sum = l.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = l.mul_add(l.load(a), l.load(b), sum);
    }
    l.sum(sum) + tail
}

/// `sum += factor · row`.
#[inline(always)]
pub(in crate::cpu) fn axpy<L: Lanes>(l: L, sum: &mut [f32], factor: f32, row: &[f32]) {
    let ((sum, sum_tail), (row, row_tail)) = (sum.as_chunks_mut::<LANES>(), row.as_chunks::<LANES>());
    let factors = l.splat(factor);
    for (sum, row) in sum.iter_mut().zip(row) {
        l.store(sum, l.mul_add(factors, l.load(row), l.load(sum)));
    }
    for (sum, value) in sum_tail.iter_mut().zip(row_tail) {
        *sum += factor * value;
    }
}

/// `⟨a, b⟩`, in [`LANES`] partial sums, with what instructions the compiler may assume.
pub(in crate::cpu) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0] + tail
}

/// `sum += factor · row`.
pub(in crate::cpu) fn add_scaled(sum: &mut [f32], factor: f32, row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * value;
    }
}

/// `sum += row`.
pub(in crate::cpu) fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}

/// `out = row`, rounded.
pub(in crate::cpu) fn store<T: Element>(out: &mut [T], row: &[f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = T::from_f32(*value);
    }
}

/// `1/(1 + exp(−x))`, of one number.
pub(in crate::cpu) fn sigmoid_of(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
