//! Cases of the gradients of TIN.

use longseq::reference::{TinGradientReference, TinReference};
use longseq::*;

use super::{Inputs, TinCase};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// A backward pass of TIN, with what the reference saved.
#[derive(Debug, Clone)]
pub struct TinBackwardCase {
    /// The forward pass.
    pub forward: TinCase,
    /// Which gradients are asked for: candidates, behaviours, positions.
    pub asked: [bool; 3],
    /// Gradients are stored as the inputs are, not as `f32`.
    pub narrow: bool,
}

impl Default for TinBackwardCase {
    fn default() -> Self {
        Self { forward: TinCase::default(), asked: [true; 3], narrow: false }
    }
}

/// What comes into the backward pass.
struct Incoming<T> {
    pooled: Vec<T>,
    lse: Vec<f32>,
    grad_out: Vec<T>,
}

const NAMES: [&str; 3] = ["targets", "history", "positions"];

impl TinBackwardCase {
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
        let TinReference { pooled, lse, .. } = reference::tin(&op, &batch, &inputs.views(&Cpu::new()))?;
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        Ok(Incoming {
            pooled: pooled.into_iter().map(|x| T::from_f32(x as f32)).collect(),
            lse: lse.into_iter().map(|x| x as f32).collect(),
            grad_out: data::rows(&mut rng, Data::Normal, batch.targets().rows(), op.width),
        })
    }

    /// The rows that are written, and those that are nobody's.
    fn rows(&self) -> [(usize, usize); 3] {
        let (batch, tail) = (self.forward.batch(), self.forward.tail);
        [(batch.targets().total(), tail), (batch.histories().total(), tail), (self.forward.positions, 0)]
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
        let (pooled, lse) = (backend.upload(&incoming.pooled)?, backend.upload(&incoming.lse)?);
        let grad_out = backend.upload(&incoming.grad_out)?;
        let rows = self.rows();
        let guarded = |i: usize| {
            let (used, unused) = if self.asked[i] { rows[i] } else { (0, 0) };
            Guarded::<B, G>::new(backend, used * op.width, unused * op.width)
        };
        let mut out = [guarded(0)?, guarded(1)?, guarded(2)?];
        calls.make("tin_backward", &mut || {
            let [targets, history, positions] = &mut out;
            let mut grads = TinGradients::new();
            grads.targets = self.asked[0].then(|| targets.view_mut(backend)).transpose()?;
            grads.history = self.asked[1].then(|| history.view_mut(backend)).transpose()?;
            grads.positions = self.asked[2].then(|| positions.view_mut(backend)).transpose()?;
            let saved = TinSaved::new(backend.view(&pooled), backend.view(&lse));
            let (views, grad) = (inputs.views(backend), backend.view(&grad_out));
            Ok(backend.tin_backward_into(&op, &device_batch, views, saved, grad, grads)?)
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
        let grad_out: Vec<f64> = incoming.grad_out.iter().map(|x| x.to_f32().into()).collect();
        let TinGradientReference { targets, history, positions, .. } =
            reference::tin_backward(&op, &batch, &inputs.views(&Cpu::new()), &grad_out)?;
        let bounds = self.bounds::<T>(&inputs, &incoming, rules);
        for (i, exact) in [targets, history, positions].iter().enumerate().filter(|&(i, _)| self.asked[i]) {
            let got = bytemuck::pod_collect_to_vec::<u8, G>(&got[i]);
            let exact = &exact[..self.rows()[i].0 * op.width];
            compare(NAMES[i], &got, exact, &Bound::uniform(bounds[i], false), rules)?;
        }
        Ok(())
    }

    /// The errors that `f32` arithmetic may make in the gradients of candidates, behaviours and positions.
    ///
    /// With `A` the largest `|⟨da, ẽ⟩|`, a score's gradient is a weight times at most `2A`. Its error is that of the weight (of the score
    /// and of the saved `lse`), those of two products, `d + 2` roundings of `A` each, and that of the rounded `pooled`. Where subnormal
    /// numbers are flushed to 0, a row, its position and their sum may lose one each, and so may `da`, a product and a sum of each term.
    fn bounds<T: Element>(&self, inputs: &Inputs<Host, T>, incoming: &Incoming<T>, rules: Rules) -> [f64; 3] {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let (norm, max) = (|rows: &[T]| data::max_norm(rows, op.width), |rows: &[T]| data::max_abs(rows));
        let scale = f64::from(op.effective_scale()).abs();
        let width = op.width as f64;
        let of_positions = (norm(&inputs.positions), max(&inputs.positions));
        let target = (norm(&inputs.targets) + of_positions.0, max(&inputs.targets) + of_positions.1);
        let behaviour = (norm(&inputs.history) + of_positions.0, max(&inputs.history) + of_positions.1);
        let factor = if op.multiply_target { target.1 } else { 1.0 };
        let grad_pooled = (norm(&incoming.grad_out) * factor, max(&incoming.grad_out) * factor);
        let score = scale * target.0 * behaviour.0;
        let lse = data::max_abs(&incoming.lse);
        let score_error = (width + 5.0) * U * score + U * lse + f64::from(f32::MIN_POSITIVE);
        let longest = batch.histories().max_length();
        let sum = |length: usize| (additions(length) + 4.0) * U;
        let relative = (2.0 * score_error).exp_m1() + sum(longest) + 24.0 * U;
        let (weight_error, total) = if relative < 1.0 { (relative, 1.0) } else { (1.0, longest as f64) };
        let a = grad_pooled.0 * behaviour.0;
        let rounded = crate::compare::rounding(T::DTYPE).0 + U;
        let grad = 2.0 * a;
        let grad_error = weight_error * grad + 2.0 * (width + 3.0) * U * a + rounded * a + 4.0 * U * grad;
        let candidates = batch.targets().max_length();
        let c = candidates as f64;
        let flushed = if rules.subnormal { 0.0 } else { f64::from(f32::MIN_POSITIVE) };
        let lost = 3.0 * flushed * (1.0 + max(&incoming.grad_out));
        let of_one = grad_pooled.1 * (weight_error + sum(candidates + 2))
            + scale * target.1 * (grad_error + grad * sum(candidates + 2));
        let of_history = c * (of_one + lost);
        let of_pooled = max(&incoming.grad_out) * behaviour.1 * (rounded + 3.0 * U);
        let of_targets = total * scale * behaviour.1 * (grad_error + grad * sum(longest))
            + of_pooled
            + U * grad * c
            + (longest as f64 + 1.0) * lost;
        let (n, m) = (batch.histories().total(), batch.targets().total());
        // A candidate's weights sum up to 1: it gives all behaviours together no more than it could give one. Then rows are added up.
        let of_behaviours = total * (grad_pooled.1 + scale * target.1 * grad);
        let of_candidate = max(&incoming.grad_out) * behaviour.1 + scale * total * behaviour.1 * grad;
        let of_position = m as f64
            * (total * of_one + of_targets + sum(n + m) * (of_behaviours + of_candidate))
            + n as f64 * c * lost;
        [of_targets, of_history, of_position]
    }
}

impl Case for TinBackwardCase {
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
