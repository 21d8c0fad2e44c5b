//! How interest channels are compared with the reference: what is kept by exact scores, the output by what is kept.

use std::collections::{HashMap, HashSet};

use longseq::*;

use super::bounds::{ExactAxes, Sizes};
use super::{ChannelsCase, ChannelsOutput};
use crate::case::{Failure, Rules};
use crate::compare::{Bound, compare};
use crate::data::Data;

/// The behaviours of a user as one candidate sees them.
struct Scored<'a> {
    axes: &'a ExactAxes,
    /// `[L]`, along each axis: NaN where one is not finite.
    scores: Vec<Vec<f64>>,
    /// `[c]`: the numbers among them, descending.
    sorted: Vec<Vec<f64>>,
    /// Rows whose numbers are all 0: their scores are 0 on every device.
    zeros: &'a [bool],
    same: &'a Same,
    error: f64,
}

impl<'a> Scored<'a> {
    fn new(axes: &'a ExactAxes, rows: &[Vec<f64>], zeros: &'a [bool], same: &'a Same, error: f64) -> Self {
        let score = |row: &[f64], axis: &[f64]| -> f64 {
            let score: f64 = row.iter().zip(axis).map(|(a, b)| a * b).sum();
            if score.is_finite() { score } else { f64::NAN }
        };
        let of_row = |row: &Vec<f64>| axes.rows.iter().map(|axis| score(row, axis)).collect();
        let scores: Vec<Vec<f64>> = rows.iter().map(of_row).collect();
        let sorted = (0..axes.rows.len()).map(|i| {
            let mut along: Vec<f64> =
                scores.iter().map(|row| row[i]).filter(|score| !score.is_nan()).collect();
            along.sort_by(|a, b| b.total_cmp(a));
            along
        });
        let sorted = sorted.collect();
        Self { axes, scores, sorted, zeros, same, error }
    }

    /// The first channel that there is.
    fn first(&self) -> Option<usize> {
        self.axes.exists.iter().position(|&exists| exists)
    }

    /// How far the score along an axis is above those along all others.
    fn lead(&self, l: usize, i: usize) -> f64 {
        let others = (0..self.axes.exists.len()).filter(|&j| j != i && self.axes.exists[j]);
        self.scores[l][i] - others.map(|j| self.scores[l][j]).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Whether a behaviour goes to the first channel whatever rounding does.
    fn stays_first(&self, l: usize) -> bool {
        self.zeros[l] || self.scores[l].iter().any(|score| score.is_nan())
    }

    /// Whether a behaviour may go to a channel.
    fn may_go(&self, l: usize, i: usize) -> bool {
        if self.stays_first(l) { self.first() == Some(i) } else { self.lead(l, i) >= -2.0 * self.error }
    }

    /// Whether it must.
    fn must_go(&self, l: usize, i: usize) -> bool {
        if self.stays_first(l) { self.first() == Some(i) } else { self.lead(l, i) > 2.0 * self.error }
    }

    /// How many behaviours are above this one along an axis, at least and at most.
    fn above(&self, l: usize, i: usize) -> [usize; 2] {
        let score = self.scores[l][i];
        if score.is_nan() {
            let earlier = (0..l).filter(|&other| self.scores[other][i].is_nan()).count();
            return [self.sorted[i].len() + earlier; 2];
        }
        let count = |bar: f64| self.sorted[i].partition_point(|&other| other > bar);
        let most = self.sorted[i].partition_point(|&other| other >= score - 2.0 * self.error);
        [count(score + 2.0 * self.error), most - 1 - self.same.later[l]]
    }
}

/// What one channel keeps.
struct List<'a> {
    positions: &'a [u32],
    scores: Vec<f32>,
    count: usize,
}

impl List<'_> {
    /// Slots past the last are empty, scores descend, ties by position; returns the positions.
    fn kept(&self, scored: &Scored<'_>, i: usize) -> Result<Vec<usize>, String> {
        let Self { positions, scores, count } = self;
        if *count > positions.len() {
            return Err(format!("{count} are kept in {} slots", positions.len()));
        }
        for slot in *count..positions.len() {
            if positions[slot] != EMPTY_SLOT || scores[slot] != f32::NEG_INFINITY {
                return Err(format!("slot {slot} is not empty: {} {}", positions[slot], scores[slot]));
            }
        }
        for slot in 0..*count {
            let (position, score) = (positions[slot] as usize, scores[slot]);
            let Some(exact) = scored.scores.get(position).map(|scores| scores[i]) else {
                return Err(format!("slot {slot} has position {position}, past the history"));
            };
            let is_near = (f64::from(score) - exact).abs() <= scored.error;
            if !is_near && !(score.is_nan() && exact.is_nan()) {
                return Err(format!("position {position} has score {score:e}, reference {exact:e}"));
            }
            if slot > 0 {
                let before = (scores[slot - 1], positions[slot - 1] as usize);
                if score > before.0 || before.0.is_nan() && !score.is_nan() {
                    return Err(format!("slot {slot} has a higher score than the one before"));
                }
                let ties = score == before.0 || score.is_nan() && before.0.is_nan();
                if ties && position <= before.1 {
                    return Err(format!(
                        "slots {} and {slot} tie, but the later position is first",
                        slot - 1
                    ));
                }
            }
        }
        Ok(positions[..*count].iter().map(|&position| position as usize).collect())
    }
}

impl ChannelsCase {
    /// Whether a channel keeps what it is to keep, as far as rounding leaves no doubt.
    fn check_choice(&self, scored: &Scored<'_>, i: usize, kept: &[usize]) -> Result<(), String> {
        if !scored.axes.exists[i] && !kept.is_empty() {
            return Err("there is no such channel".to_owned());
        }
        if !scored.axes.exists[i] {
            return Ok(());
        }
        let set: HashSet<usize> = kept.iter().copied().collect();
        // Of behaviours with the same row the last that is kept, by the last that there is.
        let mut latest: HashMap<usize, usize> = HashMap::new();
        for &l in kept {
            let latest = latest.entry(scored.same.last[l]).or_insert(l);
            *latest = l.max(*latest);
        }
        let worst = kept.iter().map(|&l| scored.scores[l][i]);
        // NaN is worse than any number.
        let worst =
            worst.fold(
                f64::INFINITY,
                |worst: f64, score| if score.is_nan() { f64::NEG_INFINITY } else { worst.min(score) },
            );
        for &l in kept {
            if !scored.may_go(l, i) {
                return Err(format!("position {l} goes to another channel"));
            }
            if self.among == KeptAmong::All && scored.above(l, i)[0] >= self.top_k {
                return Err(format!("position {l} is not among the best {} of all", self.top_k));
            }
        }
        for l in (0..scored.scores.len()).filter(|&l| scored.must_go(l, i) && !set.contains(&l)) {
            let is_missing = match self.among {
                KeptAmong::All => scored.above(l, i)[1] < self.top_k,
                _ => kept.len() < self.top_k || scored.scores[l][i] > worst + 2.0 * scored.error,
            };
            let is_passed_over = latest.get(&scored.same.last[l]).is_some_and(|&latest| latest > l);
            if is_missing || is_passed_over {
                return Err(format!("position {l} is not kept"));
            }
        }
        Ok(())
    }

    pub(super) fn compare_as<T: Element>(
        &self,
        output: &ChannelsOutput,
        rules: Rules,
    ) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>());
        let views = inputs.views(&Cpu::new());
        let axes = ExactAxes::of(self, &views)?;
        let sizes = Sizes::new(self, &inputs.history);
        let (channels, width, top_k) = (self.channels, self.width, self.top_k);
        for (history, targets) in batch.requests() {
            let rows: Vec<&[T]> =
                inputs.history[history.start * width..history.end * width].chunks(width).collect();
            let wide = |row: &&[T]| -> Vec<f64> { row.iter().map(|x| x.to_f32().into()).collect() };
            let (wide, same): (Vec<Vec<f64>>, Same) = (rows.iter().map(wide).collect(), Same::new(&rows));
            let zeros: Vec<bool> = wide.iter().map(|row| row.iter().all(|&x| x == 0.0)).collect();
            for m in targets {
                let error = sizes.score_error(&axes[m]);
                let scored = Scored::new(&axes[m], &wide, &zeros, &same, error);
                if !axes[m].is_finite && !rules.nan {
                    continue;
                }
                let mut channel_of = HashMap::new();
                for i in 0..channels {
                    let (list, wrong) = (m * channels + i, |what: String| {
                        Failure::new(format!("candidate {m}, channel {i}: {what}"))
                    });
                    let slots = list * top_k..(list + 1) * top_k;
                    let scores =
                        output.scores[slots.clone()].iter().map(|&bits| f32::from_bits(bits)).collect();
                    let count = output.counts[list] as usize;
                    let kept = List { positions: &output.positions[slots], scores, count };
                    let kept = kept.kept(&scored, i).map_err(wrong)?;
                    self.check_choice(&scored, i, &kept).map_err(wrong)?;
                    for position in kept {
                        if let Some(other) = channel_of.insert(position, i) {
                            return Err(wrong(format!("position {position} is in channel {other}, too")));
                        }
                    }
                }
            }
        }
        self.compare_rows::<T>(&op, &batch, output, (&views, &axes, &sizes), rules)
    }

    /// Compares the output with the reference of what is kept.
    fn compare_rows<T: Element>(
        &self,
        op: &InterestChannels,
        batch: &Batch,
        output: &ChannelsOutput,
        (views, axes, sizes): (&InterestChannelsInputs<'_, Host, T>, &[ExactAxes], &Sizes),
        rules: Rules,
    ) -> Result<(), Failure> {
        let lists = batch.targets().rows() * self.channels;
        let (mut positions, mut counts) = (output.positions.clone(), output.counts.clone());
        positions.resize(lists * self.top_k, EMPTY_SLOT);
        counts.resize(lists, 0);
        if !rules.nan {
            // What such candidates keep may be anything, and so may their rows.
            let nan = axes.iter().enumerate().filter(|(_, axes)| !axes.is_finite);
            nan.for_each(|(m, _)| counts[m * self.channels..(m + 1) * self.channels].fill(0));
        }
        let scores = vec![0.0; positions.len()];
        let kept = Selection::new(Host::view(&positions), Host::view(&scores), Host::view(&counts));
        let exact = reference::interest_channels_of(op, batch, views, &kept)?;
        let sums = reference::interest_channels_of(&op.with_normalise(false), batch, views, &kept)?;
        let mut bounds = Vec::new();
        for (history, targets) in batch.requests() {
            for list in targets.start * self.channels..targets.end * self.channels {
                let axes = &axes[list / self.channels];
                let sum = &sums[list * self.width..(list + 1) * self.width];
                let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
                let error = sizes.sum_error(axes, counts[list] as usize, history.len());
                bounds.extend(std::iter::repeat_n(sizes.out_error(error, norm), self.width));
            }
        }
        let plain = [Data::Normal, Data::Equal].contains(&self.data) && self.shared <= 1.0;
        let nmse = plain && !self.normalise && self.nan.is_none() && self.nan_behaviour.is_none();
        let bound = Bound::of_each(if bounds.is_empty() { vec![0.0] } else { bounds }, nmse);
        let out = bytemuck::pod_collect_to_vec::<u8, T>(&output.out);
        compare("out", &out, &exact[..out.len().min(exact.len())], &bound, rules)
    }
}

/// Behaviours with the same row: their scores are equal on every device.
struct Same {
    /// For each the last of them.
    last: Vec<usize>,
    /// For each how many of them are later.
    later: Vec<usize>,
}

impl Same {
    fn new<T: Element>(rows: &[&[T]]) -> Self {
        let mut found: HashMap<&[u8], (usize, usize)> = HashMap::new();
        let (mut last, mut later) = (vec![0; rows.len()], vec![0; rows.len()]);
        for (l, row) in rows.iter().enumerate().rev() {
            let (end, count) = found.entry(bytemuck::cast_slice::<T, u8>(row)).or_insert((l, 0));
            (last[l], later[l]) = (*end, *count);
            *count += 1;
        }
        Self { last, later }
    }
}
