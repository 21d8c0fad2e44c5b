//! The errors that `f32` arithmetic may make in axes, scores and sums.

use longseq::*;

use super::ChannelsCase;
use crate::compare::{U, additions};
use crate::data;

/// One candidate's axes as the reference has them.
pub(super) struct ExactAxes {
    /// `O`: `c` rows, and whether there is such a channel.
    pub(super) rows: Vec<Vec<f64>>,
    pub(super) exists: Vec<bool>,
    /// Whether the candidate's axes are finite.
    pub(super) is_finite: bool,
    /// The length of `R⁻¹`, of the channels that there are (Frobenius).
    pub(super) inverse: f64,
    /// How far a computed axis may be from the exact one.
    pub(super) error: f64,
}

impl ExactAxes {
    /// Those of all candidates of a case.
    pub(super) fn of<T: Element>(
        case: &ChannelsCase,
        inputs: &InterestChannelsInputs<'_, Host, T>,
    ) -> Result<Vec<Self>> {
        let exact = reference::interest_axes(&case.op(), &case.batch(), inputs)?;
        let (width, channels) = (case.width, case.channels);
        let each = exact.axes.chunks(channels * width).zip(exact.triangle.chunks(channels * channels));
        let axes = each.take(case.batch().targets().total());
        Ok(axes.map(|(axes, triangle)| Self::new(case, axes, triangle)).collect())
    }

    /// Gram–Schmidt that takes each projection out twice solves a problem whose columns are off by a few roundings for each product of
    /// `d` terms and each of the `c` projections. Axes move by that times the condition of the matrix whose columns are made equally
    /// long: it does not matter how long they are.
    fn new(case: &ChannelsCase, axes: &[f64], triangle: &[f64]) -> Self {
        let channels = case.channels;
        let number = |row: usize, column: usize| triangle[row * channels + column];
        let exists: Vec<bool> = (0..channels).map(|i| number(i, i) > 0.0).collect();
        let there: Vec<usize> = (0..channels).filter(|&i| exists[i]).collect();
        let length = |column: usize| -> f64 {
            there.iter().map(|&row| number(row, column).powi(2)).sum::<f64>().sqrt()
        };
        let inverse = inverse(&there, &number);
        let squares = |scaled: bool| -> f64 {
            let entries = inverse.iter().enumerate().flat_map(|(row, columns)| {
                let factor = if scaled { length(there[row]) } else { 1.0 };
                columns.iter().map(move |entry| (factor * entry).powi(2))
            });
            entries.sum::<f64>().sqrt()
        };
        let condition = (there.len() as f64).sqrt() * squares(true);
        let roundings = 2.0 * channels as f64 * (additions(case.width) + 4.0);
        Self {
            rows: axes.chunks(case.width).map(<[f64]>::to_vec).collect(),
            is_finite: axes.iter().all(|number| number.is_finite()),
            exists,
            inverse: squares(false),
            error: roundings * U * condition.max(1.0),
        }
    }
}

/// The inverse of the part of an upper triangle that these rows and columns are.
fn inverse(there: &[usize], number: &impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    let n = there.len();
    let mut inverse = vec![vec![0.0; n]; n];
    for column in 0..n {
        for row in (0..=column).rev() {
            let known: f64 =
                (row + 1..=column).map(|k| number(there[row], there[k]) * inverse[k][column]).sum();
            let one = if row == column { 1.0 } else { 0.0 };
            inverse[row][column] = (one - known) / number(there[row], there[row]);
        }
    }
    inverse
}

/// The sizes that bounds are made of.
pub(super) struct Sizes {
    /// The longest row of the history, and its largest number.
    pub(super) norm: f64,
    pub(super) largest: f64,
    width: f64,
    normalise: bool,
}

impl Sizes {
    pub(super) fn new<T: Element>(case: &ChannelsCase, history: &[T]) -> Self {
        Self {
            norm: data::max_norm(history, case.width),
            largest: data::max_abs(history),
            width: case.width as f64,
            normalise: case.normalise,
        }
    }

    /// Of a score: a product of `d` terms whose one factor is off by the axis' error.
    pub(super) fn score_error(&self, axes: &ExactAxes) -> f64 {
        let roundings = (self.width + 4.0) * U + axes.error;
        roundings * self.norm + self.width * f64::from(f32::MIN_POSITIVE) * (1.0 + self.largest)
    }

    /// Of a number of the sum over so many of a history's behaviours, before it is divided by its length.
    pub(super) fn sum_error(&self, axes: &ExactAxes, kept: usize, length: usize) -> f64 {
        let share = kept as f64 / length.max(1) as f64;
        let roundings = (additions(kept) + 6.0) * U * self.norm;
        let lost = 3.0 * kept as f64 * f64::from(f32::MIN_POSITIVE) * (1.0 + self.largest);
        share * self.largest * (self.score_error(axes) + roundings) + lost
    }

    /// What the length of a row of the output is divided by: 1 without `normalise`.
    pub(super) fn divisor(&self, norm: f64) -> f64 {
        if self.normalise { norm.max(InterestChannels::MIN_NORM) } else { 1.0 }
    }

    /// The relative error of the length of a sum of this length, whose numbers are off by so much.
    pub(super) fn length_error(&self, sum_error: f64, norm: f64) -> f64 {
        if self.normalise { self.width.sqrt() * sum_error / self.divisor(norm) + 4.0 * U } else { 0.0 }
    }

    /// Of a number of the output.
    pub(super) fn out_error(&self, sum_error: f64, norm: f64) -> f64 {
        if !self.normalise {
            return sum_error;
        }
        let relative = self.length_error(sum_error, norm);
        let error = sum_error / self.divisor(norm) + 2.0 * relative;
        // A sum whose length is lost to rounding has any direction.
        if relative < 0.25 { error } else { error.max(2.0) }
    }
}
