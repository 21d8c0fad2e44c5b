//! The reference of interest channels. Formula: [`InterestChannels`].

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Batch;
use crate::ops::*;
use crate::reference::arithmetic::{dot, row};
use crate::reference::decoupled::{SelectionReference, ranked};
use crate::reference::widened::channels_in_f32;

const NAME: &str = "interest_channels";

/// Exact results of interest channels.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InterestChannelsReference {
    /// `[M, c, d]`.
    pub out: Vec<f64>,
    /// What each channel keeps: positions and scores `[M, c, K]`, counts `[M, c]`.
    pub kept: SelectionReference,
}

/// Axes at right angles.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InterestAxesReference {
    /// `O`: `[M, c, d]`, zeros where there is no channel, NaN where a candidate's axes are not finite.
    pub axes: Vec<f64>,
    /// `R`: `[M, c, c]`, upper triangular; a diagonal of 0 where there is no channel.
    pub triangle: Vec<f64>,
}

/// Interest channels in `f64`.
///
/// # Errors
/// Those of [`InterestChannels::check`]; [`Parameter`](crate::Error::Parameter) for axes that depend on each other.
pub fn interest_channels<T: Element>(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, T>,
) -> Result<InterestChannelsReference> {
    channels_in_f32(NAME, inputs, |inputs| {
        let axes = axes_of_all(NAME, op, batch, inputs)?;
        let kept = choose(op, batch, inputs, &axes)?;
        let lists = Lists { positions: &kept.positions, counts: &kept.counts };
        let out = pool(op, batch, inputs, &axes, &lists)?;
        Ok(InterestChannelsReference { out, kept })
    })
}

/// Interest channels of what is kept, which the caller gives: positions `[M, c, K]` and counts `[M, c]`; scores are not read. `[M, c, d]`.
///
/// # Errors
/// Those of [`InterestChannels::check`]; [`Parameter`](crate::Error::Parameter) for axes that depend on each other;
/// [`Shape`](crate::Error::Shape) and [`IndexOutOfRange`](crate::Error::IndexOutOfRange) for what is kept.
pub fn interest_channels_of<T: Element>(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, T>,
    kept: &Selection<'_, Host>,
) -> Result<Vec<f64>> {
    channels_in_f32(NAME, inputs, |inputs| {
        let axes = axes_of_all(NAME, op, batch, inputs)?;
        pool(op, batch, inputs, &axes, &Lists::given(NAME, op, batch, kept)?)
    })
}

/// The axes of all candidates at right angles, and what they were before in terms of those: `O` and `R`.
///
/// # Errors
/// Those of [`InterestChannels::check`]; [`Parameter`](crate::Error::Parameter) for axes that depend on each other.
pub fn interest_axes<T: Element>(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, T>,
) -> Result<InterestAxesReference> {
    channels_in_f32(NAME, inputs, |inputs| {
        let (rows, channels) = (batch.targets().rows(), op.channels);
        let each = axes_of_all(NAME, op, batch, inputs)?;
        let mut result = InterestAxesReference {
            axes: filled(NAME, rows * channels * op.width, 0.0)?,
            triangle: filled(NAME, rows * channels * channels, 0.0)?,
        };
        for (m, axes) in each.iter().enumerate() {
            for i in 0..channels {
                let first = (m * channels + i) * op.width;
                result.axes[first..first + op.width].copy_from_slice(&axes.rows[i]);
                for j in 0..channels {
                    result.triangle[(m * channels + i) * channels + j] = axes.triangle[i][j];
                }
            }
        }
        Ok(result)
    })
}

/// The axes of one candidate at right angles.
pub(super) struct Axes {
    /// `O`: `c` rows of `d`.
    pub(super) rows: Vec<Vec<f64>>,
    /// `R`: `c` rows of `c`.
    pub(super) triangle: Vec<Vec<f64>>,
    /// Whether every number is finite. If not, the rows are NaN.
    pub(super) is_finite: bool,
}

impl Axes {
    /// Gram–Schmidt, each projection taken out twice: what rounding leaves of the first time would be large against a short rest.
    fn new(op: &InterestChannels, matrix: &[Vec<f64>]) -> Self {
        let channels = op.channels;
        let is_finite = matrix.iter().flatten().all(|number| number.is_finite());
        let mut axes = Self { rows: Vec::new(), triangle: vec![vec![0.0; channels]; channels], is_finite };
        for (i, column) in matrix.iter().enumerate() {
            let mut rest = column.clone();
            for _ in 0..2 {
                for j in 0..i {
                    let along = dot(&axes.rows[j], &rest);
                    axes.triangle[j][i] += along;
                    rest.iter_mut().zip(&axes.rows[j]).for_each(|(rest, axis)| *rest -= along * axis);
                }
            }
            let (length, whole) = (dot(&rest, &rest).sqrt(), dot(column, column).sqrt());
            let depends = length <= InterestChannels::DEPENDENT * whole;
            axes.triangle[i][i] = if depends { 0.0 } else { length };
            let unit = |number: f64| if depends { 0.0 } else { number / length };
            axes.rows.push(rest.into_iter().map(unit).collect());
        }
        if !is_finite {
            axes.rows.iter_mut().chain(&mut axes.triangle).flatten().for_each(|number| *number = f64::NAN);
        }
        axes
    }

    /// Whether there is a channel `i` that behaviours can go to.
    pub(super) fn exists(&self, i: usize) -> bool {
        self.is_finite && self.triangle[i][i] > 0.0
    }
}

/// The axes of every candidate, those of nobody's rows as zeros.
pub(super) fn axes_of_all(
    operation: &'static str,
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, f32>,
) -> Result<Vec<Axes>> {
    op.check_in(operation, batch, inputs)?;
    let axes = |m: usize| -> Result<Axes> {
        let of_nobody = m >= batch.targets().total();
        let column = |i: usize| match of_nobody {
            true => vec![0.0; op.width],
            false => row(&inputs.axes, m * op.channels + i, op.width),
        };
        let columns: Vec<Vec<f64>> = (0..op.channels).map(column).collect();
        let axes = Axes::new(op, &columns);
        let depends = |&i: &usize| axes.is_finite && !axes.exists(i);
        match (0..op.channels).find(depends) {
            Some(i) if op.dependent == DependentAxes::Error && !of_nobody => {
                Err(InterestChannels::dependent_axis(operation, m, i))
            }
            _ => Ok(axes),
        }
    };
    (0..batch.targets().rows()).map(axes).collect()
}

/// The scores of a behaviour along each axis: NaN where one is not finite.
fn scores(axes: &Axes, behaviour: &[f64]) -> Vec<f64> {
    let finite = |score: f64| if score.is_finite() { score } else { f64::NAN };
    axes.rows.iter().map(|axis| finite(dot(axis, behaviour))).collect()
}

/// The channel of a behaviour; `None` where there is none at all.
fn channel(axes: &Axes, scores: &[f64]) -> Option<usize> {
    let channels = (0..scores.len()).filter(|&i| axes.exists(i));
    // Not `max_by`, which takes the last of equal ones. A score of NaN is larger than none.
    channels.reduce(|best, i| if scores[i] > scores[best] { i } else { best })
}

/// What every channel keeps.
fn choose(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, f32>,
    axes: &[Axes],
) -> Result<SelectionReference> {
    let (slots, top_k) = (op.kept_length(batch)?, op.top_k);
    let mut kept = SelectionReference {
        positions: filled(NAME, slots, EMPTY_SLOT)?,
        scores: filled(NAME, slots, f64::NEG_INFINITY)?,
        counts: filled(NAME, batch.targets().rows() * op.channels, 0)?,
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let all: Vec<Vec<f64>> =
                history.clone().map(|l| scores(&axes[m], &row(&inputs.history, l, op.width))).collect();
            let channels: Vec<Option<usize>> = all.iter().map(|scores| channel(&axes[m], scores)).collect();
            for i in (0..op.channels).filter(|&i| axes[m].exists(i)) {
                let list = m * op.channels + i;
                let best = best(op.among, top_k, &all, &channels, i);
                kept.counts[list] = best.len() as u32;
                for (slot, position) in best.into_iter().enumerate() {
                    kept.positions[list * top_k + slot] = position as u32;
                    kept.scores[list * top_k + slot] = all[position][i];
                }
            }
        }
    }
    Ok(kept)
}

/// The positions that channel `i` keeps, best first.
fn best(
    among: KeptAmong,
    top_k: usize,
    scores: &[Vec<f64>],
    channels: &[Option<usize>],
    i: usize,
) -> Vec<usize> {
    let routed = |&position: &usize| channels[position] == Some(i);
    let candidates: Vec<usize> = match among {
        KeptAmong::Routed => (0..scores.len()).filter(routed).collect(),
        KeptAmong::All => (0..scores.len()).collect(),
    };
    let order: Vec<f64> = candidates.iter().map(|&position| scores[position][i]).collect();
    let best = ranked(&order, top_k).into_iter().map(|(place, _)| candidates[place]);
    best.filter(routed).collect()
}

/// What channels keep.
pub(super) struct Lists<'a> {
    positions: &'a [u32],
    counts: &'a [u32],
}

impl<'a> Lists<'a> {
    /// What the caller gives, if it is inside slots and histories.
    pub(super) fn given(
        operation: &'static str,
        op: &InterestChannels,
        batch: &Batch,
        kept: &Selection<'a, Host>,
    ) -> Result<Self> {
        op.check_given(operation, batch, kept)?;
        Ok(Self { positions: kept.positions.as_slice(), counts: kept.counts.as_slice() })
    }

    /// The rows of a user's history in a list.
    pub(super) fn rows(&self, op: &InterestChannels, history: &Range<usize>, list: usize) -> Vec<usize> {
        let positions = &self.positions[list * op.top_k..][..self.counts[list] as usize];
        positions.iter().map(|&position| history.start + position as usize).collect()
    }
}

/// `r_i` of what a channel keeps, before it is divided by its length.
pub(super) fn sum_of_kept(
    inputs: &InterestChannelsInputs<'_, Host, f32>,
    axis: &[f64],
    length: usize,
    rows: &[usize],
) -> Vec<f64> {
    let mut sum = vec![0.0; axis.len()];
    for &l in rows {
        let behaviour = row(&inputs.history, l, axis.len());
        let score = dot(axis, &behaviour);
        let score = if score.is_finite() { score } else { f64::NAN };
        sum.iter_mut().zip(&behaviour).for_each(|(sum, e)| *sum += score * e / length as f64);
    }
    sum
}

/// The output.
fn pool(
    op: &InterestChannels,
    batch: &Batch,
    inputs: &InterestChannelsInputs<'_, Host, f32>,
    axes: &[Axes],
    kept: &Lists<'_>,
) -> Result<Vec<f64>> {
    let mut out = filled(NAME, op.output_length(batch)?, 0.0)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            for i in 0..op.channels {
                let list = m * op.channels + i;
                let out = &mut out[list * op.width..(list + 1) * op.width];
                if !axes[m].is_finite {
                    out.fill(f64::NAN);
                } else if axes[m].exists(i) {
                    let rows = kept.rows(op, &history, list);
                    let sum = sum_of_kept(inputs, &axes[m].rows[i], history.len(), &rows);
                    let norm = dot(&sum, &sum).sqrt();
                    let divisor = if op.normalise { norm.max(InterestChannels::MIN_NORM) } else { 1.0 };
                    // Not `max` alone, which would turn NaN into the floor.
                    let divisor = if op.normalise && !norm.is_finite() { f64::NAN } else { divisor };
                    out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum / divisor);
                }
            }
        }
    }
    Ok(out)
}
