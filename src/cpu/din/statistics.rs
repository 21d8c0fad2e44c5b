//! Statistics of a hidden layer's numbers before its activation.

use std::ops::Range;

use crate::cpu::din::cut::{Part, cut};
use crate::cpu::din::layers::{BLOCK, Candidate, Layers, Units};
use crate::cpu::din::rows::WideInputs;
use crate::cpu::din::span::Widen;
use crate::cpu::threads::map;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Matrix};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{Din, DinInputs, DinStatistics};

pub(super) fn din_statistics<T: Element>(
    instructions: Instructions,
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, Host, T>,
    layer: usize,
    mut out: DinStatistics<'_, Host>,
) -> Result<()> {
    op.check_statistics(batch, inputs, layer, &out)?;
    let layers = Layers::new(op, inputs);
    let all = measure(instructions, batch, WideInputs::new(inputs, op.width), (&layers, layer));
    for (channel, sums) in all.channels.iter().enumerate() {
        out.mean[channel] = sums.mean as f32;
        out.centred_squares[channel] = sums.squares as f32;
    }
    Ok(())
}

/// The moments of a layer's units over all pairs.
fn measure(
    instructions: Instructions,
    batch: &Batch,
    inputs: WideInputs<'_>,
    (layers, layer): (&Layers, usize),
) -> Moments {
    let channels = layers.units[layer];
    let moments = map(cut(batch, BLOCK, 0), |parts| {
        let mut moments = Moments::new(channels);
        let [mut history, mut targets] = [BLOCK, 1].map(|rows| Matrix::zeros(rows, inputs.width));
        let (mut units, mut candidate) = (Units::new(layers), Candidate::new(layers));
        for Part { history: behaviours, targets: candidates, .. } in parts {
            for m in candidates {
                for start in behaviours.clone().step_by(BLOCK) {
                    let rows = start..behaviours.end.min(start + BLOCK);
                    instructions.run(Measure {
                        layers,
                        layer,
                        inputs,
                        target: m,
                        behaviours: rows,
                        scratch: (&mut targets, &mut history, &mut candidate, &mut units),
                        moments: &mut moments,
                        is_new: start == behaviours.start,
                    });
                }
            }
        }
        moments
    });
    let mut all = Moments::new(channels);
    for later in &moments {
        for (channel, sums) in all.channels.iter_mut().enumerate() {
            sums.add(all.count, later.count, later.channels[channel]);
        }
        all.count += later.count;
    }
    all
}

/// Mean and sum of squared distances from it.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    mean: f64,
    squares: f64,
}

impl Moment {
    /// Adds those of `later` numbers to those of `count`.
    fn add(&mut self, count: u64, later: u64, other: Self) {
        let (count, later) = (count as f64, later as f64);
        let all = count + later;
        if later == 0.0 {
            return;
        }
        let distance = other.mean - self.mean;
        self.mean += distance * (later / all);
        self.squares += other.squares + distance * distance * (count / all * later);
    }
}

/// The moments of every channel.
struct Moments {
    count: u64,
    channels: Vec<Moment>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Self { count: 0, channels: vec![Moment::default(); channels] }
    }
}

/// Adds the pairs of a block of behaviours and a candidate.
struct Measure<'a> {
    layers: &'a Layers,
    layer: usize,
    inputs: WideInputs<'a>,
    target: usize,
    behaviours: Range<usize>,
    /// The candidate's row, the behaviours' rows, the candidate's network and its units.
    scratch: (&'a mut Matrix, &'a mut Matrix, &'a mut Candidate, &'a mut Units),
    moments: &'a mut Moments,
    /// Whether the candidate is not that of the block before.
    is_new: bool,
}

impl Kernel for Measure<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { layers, layer, inputs, target, behaviours, scratch, moments, is_new } = self;
        let (targets, history, candidate, units) = scratch;
        let (width, rows) = (inputs.width, behaviours.len());
        if is_new {
            Widen { from: inputs.targets, rows: target..target + 1, width, out: targets }.run(l);
            candidate.set(l, layers, targets.row(0), false);
        }
        Widen { from: inputs.history, rows: behaviours, width, out: history }.run(l);
        units.forward(l, layers, candidate, &history.data()[..rows * history.vectors()], layer + 1);
        let numbers = &units.before[layer];
        let n = numbers.vectors();
        let share = l.splat(1.0 / rows as f32);
        for v in 0..n {
            let rows_of = || numbers.data()[..rows * n].chunks_exact(n).map(|row| l.load(&row[v]));
            let mut mean = l.splat(0.0);
            for y in rows_of() {
                mean = l.mul_add(y, share, mean);
            }
            // The sum of the distances makes up for the rounding of the mean.
            let (mut rest, mut squares) = (l.splat(0.0), l.splat(0.0));
            for y in rows_of() {
                let distance = l.sub(y, mean);
                rest = l.add(rest, distance);
                squares = l.mul_add(distance, distance, squares);
            }
            let mut stored = [[0.0; LANES]; 3];
            for (out, sum) in stored.iter_mut().zip([mean, rest, squares]) {
                l.store(out, sum);
            }
            let channels = moments.channels.iter_mut().skip(v * LANES);
            for (lane, channel) in channels.take(LANES).enumerate() {
                let [mean, rest, squares] = stored.map(|row| f64::from(row[lane]));
                let rest = rest / rows as f64;
                let block =
                    Moment { mean: mean + rest, squares: (squares - rest * rest * rows as f64).max(0.0) };
                let block = if squares.is_nan() { Moment { squares, ..block } } else { block };
                channel.add(moments.count, rows as u64, block);
            }
        }
        moments.count += rows as u64;
    }
}
