//! Loops over rows of `f32`, written so that the compiler turns them into vector instructions.

use crate::element::{DType, Element};

/// How many partial sums a dot product keeps: two vectors of eight, so that additions overlap.
const LANES: usize = 16;

/// `⟨a, b⟩`, in `LANES` partial sums.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub(super) fn add_scaled(sum: &mut [f32], factor: f32, row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * value;
    }
}

/// `sum += row`.
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}

/// The elements as `f32`: themselves where they are, otherwise widened into `room`.
pub(super) fn widen<'a, T: Element>(elements: &'a [T], room: &'a mut Vec<f32>) -> &'a [f32] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(elements);
    }
    room.clear();
    room.extend(elements.iter().map(|element| element.to_f32()));
    room
}

/// `out = row`, rounded.
pub(super) fn store<T: Element>(out: &mut [T], row: &[f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = T::from_f32(*value);
    }
}

/// `1/(1 + exp(−x))`.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
