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

/// [`add`], with the instructions of the lanes.
#[inline(always)]
pub(in crate::cpu) fn add_lanes<L: Lanes>(_: L, sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

/// `out = a + b`.
#[inline(always)]
pub(in crate::cpu) fn sum_lanes<L: Lanes>(l: L, a: &[f32], b: &[f32], out: &mut [f32]) {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (out, out_tail) = out.as_chunks_mut::<LANES>();
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        l.store(out, l.add(l.load(a), l.load(b)));
    }
    out_tail.iter_mut().zip(a_tail.iter().zip(b_tail)).for_each(|(out, (a, b))| *out = a + b);
}

/// `sum += row`.
pub(in crate::cpu) fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}

/// Adds up rows by pairs, into the first one.
pub(in crate::cpu) fn add_pairs(rows: &mut [f32], width: usize) {
    let mut count = rows.len() / width;
    while count > 1 {
        let half = count.div_ceil(2);
        let (first, second) = rows[..count * width].split_at_mut(half * width);
        add(first, second);
        count = half;
    }
}

/// `out = row`, rounded to the element type.
pub(in crate::cpu) fn store<T: Element>(out: &mut [T], row: &[f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = T::from_f32(*value);
    }
}
