//! Wrong interest channels: a plain computation in `f64`, with the fault in it.

use std::ops::Range;

use longseq::*;

use super::{Fault, Mutant};

/// A candidate's axes: `O` and `R`.
struct Axes {
    rows: Vec<Vec<f64>>,
    triangle: Vec<Vec<f64>>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sum += factor·row`.
fn add(sum: &mut [f64], factor: f64, row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}

/// Rows of a matrix.
fn wide<T: Element>(numbers: &[T], rows: Range<usize>, width: usize) -> Vec<Vec<f64>> {
    let part = &numbers[rows.start * width..rows.end * width];
    part.chunks(width).map(|row| row.iter().map(|x| x.to_f32().into()).collect()).collect()
}

impl Mutant {
    fn axes(&self, matrix: &[Vec<f64>]) -> Axes {
        let c = matrix.len();
        let mut axes = Axes { rows: Vec::new(), triangle: vec![vec![0.0; c]; c] };
        for (i, column) in matrix.iter().enumerate() {
            let mut rest = column.clone();
            let before = if self.is(Fault::AxesNotAtRightAngles) { 0 } else { i };
            for j in (0..before).chain(0..before) {
                let along = dot(&axes.rows[j], &rest);
                axes.triangle[j][i] += along;
                add(&mut rest, -along, &axes.rows[j]);
            }
            let length = dot(&rest, &rest).sqrt();
            let depends = length <= 1e-5 * dot(column, column).sqrt();
            axes.triangle[i][i] = if depends { 0.0 } else { length };
            let mut factor = if self.is(Fault::AxesNotOfLengthOne) { 1.0 } else { 1.0 / length };
            if self.is(Fault::SignsOfAxesFlipped) && i % 2 == 1 {
                factor = -factor;
            }
            let factor = if depends { 0.0 } else { factor };
            axes.rows.push(rest.iter().map(|x| factor * x).collect());
        }
        axes
    }

    /// The channel of a behaviour.
    fn channel(&self, axes: &Axes, scores: &[f64]) -> Option<usize> {
        let exists = |&i: &usize| axes.triangle[i][i] > 0.0 || self.is(Fault::ZeroChannelsRouted);
        let rank = |i: usize| if self.is(Fault::MagnitudesRouted) { scores[i].abs() } else { scores[i] };
        let mut best: Option<usize> = None;
        for i in (0..scores.len()).filter(exists) {
            let wins = best.is_none_or(|best| {
                rank(i) > rank(best) || rank(i) == rank(best) && self.is(Fault::LastOfEqualChannels)
            });
            best = if wins { Some(i) } else { best };
        }
        best
    }

    /// What a channel keeps, of all behaviours' scores.
    fn kept(&self, op: &InterestChannels, axes: &Axes, scores: &[Vec<f64>], i: usize) -> Vec<usize> {
        let routed =
            |&l: &usize| self.is(Fault::RoutingForgotten) || self.channel(axes, &scores[l]) == Some(i);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if self.is(Fault::TiesReversed) {
            order.reverse();
        }
        order.sort_by(|&a, &b| scores[b][i].total_cmp(&scores[a][i]));
        let top_k = op.top_k - usize::from(self.is(Fault::KeepsOneLess));
        if (op.among == KeptAmong::All) == self.is(Fault::KeptAmongOthers) {
            order.into_iter().filter(routed).take(top_k).collect()
        } else {
            order.into_iter().take(top_k).filter(routed).collect()
        }
    }

    /// `r` of a channel, before it is divided by its length.
    fn sum_of(&self, rows: &[Vec<f64>], axis: &[f64], kept: &[usize]) -> Vec<f64> {
        let mut sum = vec![0.0; axis.len()];
        let length = match self.0 {
            Fault::DividedByKept => kept.len(),
            Fault::MeanIsSum => 1,
            _ => rows.len(),
        };
        for &l in kept {
            let score = if self.is(Fault::ScoresNotMultiplied) { 1.0 } else { dot(&rows[l], axis) };
            add(&mut sum, score / length as f64, &rows[l]);
        }
        sum
    }
}

/// The length of a row that it is divided by.
fn divisor(op: &InterestChannels, sum: &[f64]) -> f64 {
    if op.normalise { dot(sum, sum).sqrt().max(InterestChannels::MIN_NORM) } else { 1.0 }
}

/// Through right angles, from the gradient of `O` to that of the matrix.
fn through(axes: &Axes, matrix: &[Vec<f64>], mut grad: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for i in (0..matrix.len()).rev() {
        let along = dot(&axes.rows[i], &grad[i]);
        add(&mut grad[i], -along, &axes.rows[i]);
        grad[i].iter_mut().for_each(|x| *x /= axes.triangle[i][i]);
        let rest = grad[i].clone();
        for j in 0..i {
            let along = dot(&axes.rows[j], &rest);
            add(&mut grad[i], -along, &axes.rows[j]);
            add(&mut grad[j], -axes.triangle[j][i], &rest);
            add(&mut grad[j], -along, &matrix[i]);
        }
    }
    grad
}

impl InterestChannelsOps for Mutant {
    fn interest_channels_into<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &Batch,
        inputs: InterestChannelsInputs<'_, Host, T>,
        mut outputs: InterestChannelsOutputs<'_, Host, T>,
    ) -> Result<()> {
        let (channels, width, top_k) = (op.channels, op.width, op.top_k);
        for (history, targets) in batch.requests() {
            let rows = wide(&inputs.history, history, width);
            for m in targets {
                let axes = self.axes(&wide(&inputs.axes, m * channels..(m + 1) * channels, width));
                let scores: Vec<Vec<f64>> =
                    rows.iter().map(|row| axes.rows.iter().map(|axis| dot(row, axis)).collect()).collect();
                for i in 0..channels {
                    let list = m * channels + i;
                    let exists = axes.triangle[i][i] > 0.0;
                    let kept = if exists { self.kept(op, &axes, &scores, i) } else { Vec::new() };
                    let sum = self.sum_of(&rows, &axes.rows[i], &kept);
                    let divisor = divisor(op, &sum);
                    for (out, sum) in outputs.out[list * width..(list + 1) * width].iter_mut().zip(&sum) {
                        *out = T::from_f32((sum / divisor) as f32);
                    }
                    let Some(lists) = &mut outputs.kept else { continue };
                    lists.counts[list] = kept.len() as u32;
                    for slot in 0..top_k {
                        let found = kept.get(slot);
                        lists.positions[list * top_k + slot] = found.map_or(EMPTY_SLOT, |&l| l as u32);
                        lists.scores[list * top_k + slot] =
                            found.map_or(f32::NEG_INFINITY, |&l| scores[l][i] as f32);
                    }
                }
            }
        }
        Ok(())
    }

    fn interest_channels_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &InterestChannels,
        batch: &Batch,
        inputs: InterestChannelsInputs<'_, Host, T>,
        saved: InterestChannelsSaved<'_, Host>,
        grad_out: View<'_, Host, T>,
        grads: InterestChannelsGradients<'_, Host, G>,
    ) -> Result<()> {
        let (channels, width) = (op.channels, op.width);
        let mut of_history = vec![vec![0.0; width]; batch.histories().rows()];
        let mut of_axes = Vec::new();
        for (history, targets) in batch.requests() {
            let rows = wide(&inputs.history, history.clone(), width);
            let (last, length) = (targets.end, rows.len().max(1) as f64);
            let length = if self.is(Fault::MeanIsSum) { 1.0 } else { length };
            for m in targets {
                let lists = m * channels..(m + 1) * channels;
                let matrix = wide(&inputs.axes, lists.clone(), width);
                let axes = self.axes(&matrix);
                let mut grad = vec![vec![0.0; width]; channels];
                for (i, mut of_sum) in wide(&grad_out, lists, width).into_iter().enumerate() {
                    let list = m * channels + i;
                    let kept = &saved.kept.positions[list * op.top_k..][..saved.kept.counts[list] as usize];
                    let kept: Vec<usize> = kept.iter().map(|&position| position as usize).collect();
                    let sum = self.sum_of(&rows, &axes.rows[i], &kept);
                    let norm = divisor(op, &sum);
                    if op.normalise && !self.is(Fault::ProjectionDropped) {
                        let along = dot(&sum, &of_sum) / norm.powi(2);
                        add(&mut of_sum, -along, &sum);
                    }
                    of_sum.iter_mut().for_each(|x| *x /= norm);
                    for l in kept {
                        let (score, slope) = (dot(&rows[l], &axes.rows[i]), dot(&rows[l], &of_sum));
                        add(&mut grad[i], slope / length, &rows[l]);
                        let own = &mut of_history[history.start + l];
                        if self.is(Fault::OneReaderOnly) && m + 1 < last {
                            continue;
                        }
                        add(own, score / length, &of_sum);
                        if !self.is(Fault::SlopesForgotten) {
                            add(own, slope / length, &axes.rows[i]);
                        }
                    }
                }
                let wrong = self.is(Fault::TriangleForgotten);
                of_axes.extend(if wrong { grad } else { through(&axes, &matrix, grad) });
            }
        }
        of_history.truncate(batch.histories().total());
        for (out, rows) in [(grads.axes, of_axes), (grads.history, of_history)] {
            if let Some(mut out) = out {
                let numbers = rows.iter().flatten().map(|&x| G::from_f32(x as f32));
                out.iter_mut().zip(numbers).for_each(|(out, x)| *out = x);
            }
        }
        Ok(())
    }
}
