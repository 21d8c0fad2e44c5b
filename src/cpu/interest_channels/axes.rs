//! Axes at right angles, in `f64`: they are few, and their rounding errors would be those of every score.

use crate::cpu::threads::map;
use crate::cpu::vector::WideRows;
use crate::error::Result;
use crate::host::filled;
use crate::ops::{DependentAxes, InterestChannels};

/// The axes of one candidate at right angles.
pub(super) struct RightAngles {
    width: usize,
    channels: usize,
    /// `M`: `[c, d]`.
    matrix: Vec<f64>,
    /// `O`: `[c, d]`, zeros where there is no channel.
    rows: Vec<f64>,
    /// `R`: `[c, c]`, a diagonal of 0 where there is no channel.
    triangle: Vec<f64>,
    /// Whether every number of the matrix is finite. If not, there are no channels.
    pub(super) is_finite: bool,
}

impl RightAngles {
    /// Of a matrix `[c, d]`. Each projection is taken out twice: what rounding leaves of the first time would be large against a short rest.
    pub(super) fn new(op: &InterestChannels, matrix: &[f32]) -> Self {
        let (width, channels) = (op.width, op.channels);
        let is_finite = matrix.iter().all(|number| number.is_finite());
        let matrix: Vec<f64> = matrix.iter().map(|&number| number.into()).collect();
        let (mut rows, mut triangle) = (matrix.clone(), vec![0.0; channels * channels]);
        for i in 0..if is_finite { channels } else { 0 } {
            let (axes, rest) = rows.split_at_mut(i * width);
            let rest = &mut rest[..width];
            let whole = dot(rest, rest).sqrt();
            for _ in 0..2 {
                for (j, axis) in axes.chunks_exact(width).enumerate() {
                    let along = dot(axis, rest);
                    triangle[j * channels + i] += along;
                    add(rest, -along, axis);
                }
            }
            let length = dot(rest, rest).sqrt();
            if length <= InterestChannels::DEPENDENT * whole {
                rest.fill(0.0);
            } else {
                triangle[i * channels + i] = length;
                rest.iter_mut().for_each(|number| *number /= length);
            }
        }
        Self { width, channels, matrix, rows, triangle, is_finite }
    }

    /// Whether there is a channel `i`.
    pub(super) fn exists(&self, i: usize) -> bool {
        self.triangle[i * self.channels + i] > 0.0
    }

    /// The gradient of the matrix, from that of the axes at right angles, `[c, d]` both.
    pub(super) fn backward(&self, mut grad: Vec<f64>) -> Vec<f64> {
        let (width, channels) = (self.width, self.channels);
        for i in (0..channels).rev() {
            let (before, own) = grad.split_at_mut(i * width);
            let own = &mut own[..width];
            if !self.exists(i) {
                own.fill(0.0);
                continue;
            }
            let axis = &self.rows[i * width..(i + 1) * width];
            add(own, -dot(axis, own), axis);
            own.iter_mut().for_each(|number| *number /= self.triangle[i * channels + i]);
            // Until its part along the axes before is taken out, this is the gradient of what is at right angles to them.
            let rest = own.to_vec();
            let column = &self.matrix[i * width..(i + 1) * width];
            for (j, (axis, grad)) in
                self.rows.chunks_exact(width).zip(before.chunks_exact_mut(width)).enumerate()
            {
                let along = dot(axis, &rest);
                add(own, -along, axis);
                add(grad, -self.triangle[j * channels + i], &rest);
                add(grad, -along, column);
            }
        }
        grad
    }
}

/// The axes of all candidates.
pub(super) struct Axes {
    /// `O`: `[M, c, d]`.
    pub(super) rows: Vec<f32>,
    /// `[M, c]`: whether there is such a channel.
    pub(super) exists: Vec<bool>,
    /// `[M]`: whether the candidate's axes are finite.
    pub(super) is_finite: Vec<bool>,
}

/// The candidates of a task.
const CANDIDATES: usize = 16;

impl Axes {
    /// The axes of so many candidates, or the error of the first candidate whose axes depend on each other.
    pub(super) fn new(
        operation: &'static str,
        op: &InterestChannels,
        matrices: WideRows<'_>,
        candidates: usize,
    ) -> Result<Self> {
        let (channels, numbers) = (op.channels, op.channels * op.width);
        let mut all = Self {
            rows: filled(operation, candidates * numbers, 0.0)?,
            exists: filled(operation, candidates * channels, false)?,
            is_finite: filled(operation, candidates, false)?,
        };
        // Saturating: without candidates, rows may have any length.
        let of_task = |length: usize| CANDIDATES.saturating_mul(length);
        let rows = all.rows.chunks_mut(of_task(numbers));
        let tasks =
            rows.zip(all.exists.chunks_mut(of_task(channels))).zip(all.is_finite.chunks_mut(CANDIDATES));
        let results =
            map(tasks.enumerate().collect(), |(chunk, ((rows, exists), is_finite))| -> Result<()> {
                let each =
                    rows.chunks_exact_mut(numbers).zip(exists.chunks_exact_mut(channels)).zip(is_finite);
                for (m, ((rows, exists), is_finite)) in (chunk * CANDIDATES..).zip(each) {
                    let axes = RightAngles::new(op, &matrices.to_vec(m * numbers..(m + 1) * numbers));
                    rows.iter_mut().zip(&axes.rows).for_each(|(out, number)| *out = *number as f32);
                    exists.iter_mut().enumerate().for_each(|(i, exists)| *exists = axes.exists(i));
                    *is_finite = axes.is_finite;
                    let depends = exists.iter().position(|exists| !exists).filter(|_| axes.is_finite);
                    if let (DependentAxes::Error, Some(i)) = (op.dependent, depends) {
                        return Err(InterestChannels::dependent_axis(operation, m, i));
                    }
                }
                Ok(())
            });
        results.into_iter().collect::<Result<()>>()?;
        Ok(all)
    }
}

/// `⟨a, b⟩`, in eight partial sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + tail
}

/// `sum += factor·row`.
fn add(sum: &mut [f64], factor: f64, row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += factor * number);
}
