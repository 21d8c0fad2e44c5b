//! Cases of the gradients of interest channels.

use longseq::reference::InterestChannelsGradientReference;
use longseq::*;

use super::bounds::{ExactAxes, Sizes};
use super::{ChannelsCase, Inputs};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// A backward pass of interest channels, of what the reference keeps.
#[derive(Debug, Clone)]
pub struct ChannelsBackwardCase {
    /// The forward pass.
    pub forward: ChannelsCase,
    /// Which gradients are asked for: axes, behaviours.
    pub asked: [bool; 2],
    /// Gradients are stored as the inputs are, not as `f32`.
    pub narrow: bool,
}

impl Default for ChannelsBackwardCase {
    fn default() -> Self {
        Self { forward: ChannelsCase::default(), asked: [true; 2], narrow: false }
    }
}

/// What comes into the backward pass.
struct Incoming<T> {
    positions: Vec<u32>,
    counts: Vec<u32>,
    grad_out: Vec<T>,
}

const NAMES: [&str; 2] = ["axes", "history"];

impl ChannelsBackwardCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the call must do: the bytes are those of the forward pass, and as many written.
    pub fn work(&self) -> Work {
        let forward = self.forward.work();
        Work { flops: self.forward.op().backward_flops(&self.forward.batch()), bytes: 2 * forward.bytes }
    }

    fn incoming<T: Element>(&self, inputs: &Inputs<Host, T>) -> Result<Incoming<T>, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let kept = reference::interest_channels(&op, &batch, &inputs.views(&Cpu::new()))?.kept;
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let rows = batch.targets().rows() * op.channels;
        let grad_out = data::rows(&mut rng, Data::Normal, rows, op.width);
        Ok(Incoming { positions: kept.positions, counts: kept.counts, grad_out })
    }

    /// The rows that are written, and those that are nobody's.
    fn rows(&self) -> [(usize, usize); 2] {
        let (batch, tail, channels) = (self.forward.batch(), self.forward.tail, self.forward.channels);
        [(batch.targets().total() * channels, tail * channels), (batch.histories().total(), tail)]
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<GradientBits, Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let incoming = self.incoming(&inputs)?;
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = inputs.upload(backend)?;
        // Scores are not read.
        let scores = backend.upload(&vec![f32::NAN; incoming.positions.len()])?;
        let (positions, counts) = (backend.upload(&incoming.positions)?, backend.upload(&incoming.counts)?);
        let grad_out = backend.upload(&incoming.grad_out)?;
        let rows = self.rows();
        let guarded = |i: usize| {
            let (used, unused) = if self.asked[i] { rows[i] } else { (0, 0) };
            Guarded::<B, G>::new(backend, used * op.width, unused * op.width)
        };
        let mut out = [guarded(0)?, guarded(1)?];
        calls.make("interest_channels_backward", &mut || {
            let [axes, history] = &mut out;
            let mut grads = InterestChannelsGradients::new();
            grads.axes = self.asked[0].then(|| axes.view_mut(backend)).transpose()?;
            grads.history = self.asked[1].then(|| history.view_mut(backend)).transpose()?;
            let kept = Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
            let (views, grad) = (inputs.views(backend), backend.view(&grad_out));
            let saved = InterestChannelsSaved::new(kept);
            Ok(backend.interest_channels_backward_into(&op, &device_batch, views, saved, grad, grads)?)
        })?;
        let mut bits = Vec::new();
        for (rows, name) in out.into_iter().zip(NAMES) {
            bits.push(bytemuck::cast_slice(&rows.finish(backend, name)?).to_vec());
        }
        Ok(bits)
    }

    fn compare_as<T: Element, G: Element>(&self, got: &GradientBits, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let incoming = self.incoming(&inputs)?;
        let scores = vec![0.0; incoming.positions.len()];
        let kept = Selection::new(
            Host::view(&incoming.positions),
            Host::view(&scores),
            Host::view(&incoming.counts),
        );
        let grad_out: Vec<f64> = incoming.grad_out.iter().map(|x| x.to_f32().into()).collect();
        let views = inputs.views(&Cpu::new());
        let InterestChannelsGradientReference { axes, history, .. } =
            reference::interest_channels_backward(&op, &batch, &views, &kept, &grad_out)?;
        let sums = reference::interest_channels_of(&op.with_normalise(false), &batch, &views, &kept)?;
        let bounds = self.bounds(&inputs, (&sums, &incoming.counts), &grad_out)?;
        for (i, (exact, bound)) in [axes, history].iter().zip(bounds).enumerate() {
            if self.asked[i] {
                let got = bytemuck::pod_collect_to_vec::<u8, G>(&got[i]);
                let exact = &exact[..self.rows()[i].0 * op.width];
                compare(NAMES[i], &got, exact, &Bound::of_each(bound, false), rules)?;
            }
        }
        Ok(())
    }

    /// The errors that `f32` arithmetic may make in the gradients of axes and behaviours, for each number.
    ///
    /// With `S` the length of `dr` and `E` that of the longest row, a slope `⟨dr, e⟩` is at most `S·E`, and off by what `dr` is off, and by
    /// `d + 2` roundings. `dr` is off by the relative error of the length that it is divided by, and of the unit row.
    fn bounds<T: Element>(
        &self,
        inputs: &Inputs<Host, T>,
        (sums, counts): (&[f64], &[u32]),
        grad_out: &[f64],
    ) -> Result<[Vec<f64>; 2], Failure> {
        let case = &self.forward;
        let (width, channels, batch) = (case.width, case.channels, case.batch());
        let (d, c) = (width as f64, channels as f64);
        let all = ExactAxes::of(case, &inputs.views(&Cpu::new()))?;
        let sizes = Sizes::new(case, &inputs.history);
        let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut bounds = [Vec::new(), vec![0.0; batch.histories().total() * width]];
        for (history, targets) in batch.requests() {
            let (mut of_behaviour, mut terms) = (0.0, 0.0);
            for m in targets.clone() {
                let axes = &all[m];
                let (mut of_axes, mut size_of_axes, mut largest) = (0.0f64, 0.0f64, [0.0f64; 2]);
                for list in m * channels..(m + 1) * channels {
                    let kept = counts[list] as usize;
                    if kept == 0 {
                        continue;
                    }
                    let share = kept as f64 / history.len() as f64;
                    let norm = length(&sums[list * width..(list + 1) * width]);
                    let relative = sizes.length_error(sizes.sum_error(axes, kept, history.len()), norm);
                    let grad = length(&grad_out[list * width..(list + 1) * width]) / sizes.divisor(norm);
                    // A sum whose length is lost to rounding has a gradient of any size.
                    let lost = if relative < 0.25 { 6.0 * relative } else { f64::INFINITY };
                    let grad_error = grad * (lost + (d + 16.0) * U) + f64::from(f32::MIN_POSITIVE);
                    let slope = grad * sizes.norm;
                    let slope_error = grad_error * sizes.norm + (d + 4.0) * U * slope;
                    of_axes += share
                        * d.sqrt()
                        * sizes.largest
                        * (slope_error + (additions(kept) + 4.0) * U * slope);
                    size_of_axes += share * slope * sizes.norm;
                    let once = sizes.score_error(axes) * grad
                        + sizes.norm * grad_error
                        + slope_error
                        + slope * (axes.error + 8.0 * U);
                    let once = once / history.len() as f64;
                    largest[0] = largest[0].max(once);
                    largest[1] = largest[1].max(2.0 * slope / history.len() as f64);
                }
                of_behaviour += largest[0];
                terms += largest[1];
                let through =
                    8.0 * axes.inverse * c.sqrt() * (of_axes + size_of_axes * (axes.error + 8.0 * U));
                let bound = if size_of_axes == 0.0 { 0.0 } else { through };
                bounds[0].extend(std::iter::repeat_n(bound, channels * width));
            }
            let of_behaviour = of_behaviour + (additions(2 * targets.len()) + 4.0) * U * terms;
            bounds[1][history.start * width..history.end * width].fill(of_behaviour);
        }
        bounds.iter_mut().filter(|bound| bound.is_empty()).for_each(|bound| bound.push(0.0));
        Ok(bounds)
    }
}

impl Case for ChannelsBackwardCase {
    type Output = GradientBits;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<GradientBits, Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.run_as::<B, T, T>(backend, calls)
        } else {
            self.run_as::<B, T, f32>(backend, calls)
        })
    }

    fn compare(&self, output: &GradientBits, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.compare_as::<T, T>(output, rules)
        } else {
            self.compare_as::<T, f32>(output, rules)
        })
    }
}
