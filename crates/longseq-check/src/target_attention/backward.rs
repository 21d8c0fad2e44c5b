//! Cases of the gradients of target attention.

use longseq::reference::{TargetAttentionGradientReference, TargetAttentionReference};
use longseq::*;

use super::{AttentionCase, DOMINANT, Inputs};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// A backward pass of target attention, with what the reference saved.
#[derive(Debug, Clone)]
pub struct AttentionBackwardCase {
    /// The forward pass.
    pub forward: AttentionCase,
    /// Which gradients are asked for: queries, keys, values, bias. What the forward pass does not have is not asked for.
    pub asked: [bool; 4],
    /// Gradients are stored as the inputs are, not as `f32`.
    pub narrow: bool,
    /// What the gradient that comes in looks like.
    pub grad: Data,
    /// A gradient comes in for `lse` too.
    pub with_grad_lse: bool,
    /// A NaN in the gradient of this candidate's output.
    pub nan: Option<usize>,
}

impl Default for AttentionBackwardCase {
    fn default() -> Self {
        let forward = AttentionCase::default();
        Self { forward, asked: [true; 4], narrow: false, grad: Data::Normal, with_grad_lse: false, nan: None }
    }
}

/// What comes into the backward pass.
struct Incoming<T> {
    /// `[M, H]`: `⟨grad_out, out⟩` of the exact output, less that of the saved one.
    lost: Vec<f64>,
    out: Vec<T>,
    lse: Vec<f32>,
    grad_out: Vec<T>,
    grad_lse: Option<Vec<f32>>,
}

/// Above this magnitude an `lse` is too coarse for weights (docs/decisions/gradients.md).
const COARSE: f32 = 256.0;

const NAMES: [&str; 4] = ["queries", "keys", "values", "bias"];

impl AttentionBackwardCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let aliased = self.forward.value_width.is_none();
        let bytes = by_dtype!(self.forward.dtype, T => if self.narrow {
            op.backward_bytes::<T, T>(&batch, aliased)
        } else {
            op.backward_bytes::<T, f32>(&batch, aliased)
        });
        Work { flops: op.backward_flops(&batch), bytes }
    }

    fn softmax(&self) -> bool {
        self.forward.weighting == Weighting::Softmax
    }

    /// What is asked for and there.
    fn asked<T>(&self, inputs: &Inputs<T>) -> [bool; 4] {
        let [queries, keys, values, bias] = self.asked;
        [queries, keys, values && inputs.values.is_some(), bias && inputs.bias.is_some()]
    }

    fn reference_inputs<'a, T: Element>(inputs: &'a Inputs<T>) -> TargetAttentionInputs<'a, Host, T> {
        let mut views = TargetAttentionInputs::new(Host::view(&inputs.queries), Host::view(&inputs.keys));
        views.values = inputs.values.as_deref().map(Host::view);
        views.bias = inputs.bias.as_deref().map(Host::view);
        views
    }

    fn incoming<T: Element>(&self, inputs: &Inputs<T>) -> Result<Incoming<T>, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let TargetAttentionReference { out, lse, .. } =
            reference::target_attention(&op, &batch, &Self::reference_inputs(inputs))?;
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let rows = batch.targets().rows();
        let mut grad_out: Vec<T> = data::rows(&mut rng, self.grad, rows, op.heads * op.value_width);
        if let Some(candidate) = self.nan {
            grad_out[candidate * op.heads * op.value_width] = T::from_f32(f32::NAN);
        }
        let grad_lse = (self.with_grad_lse && self.softmax())
            .then(|| data::rows(&mut rng, Data::Normal, rows, op.heads));
        let saved: Vec<T> = out.iter().map(|&x| T::from_f32(x as f32)).collect();
        let widen = |x: &T| f64::from(x.to_f32());
        let differences = out.iter().zip(&saved).map(|(exact, saved)| exact - widen(saved));
        let products: Vec<f64> = differences.zip(&grad_out).map(|(x, grad)| x * widen(grad)).collect();
        let lost = |row: &[f64]| row.iter().sum::<f64>();
        Ok(Incoming {
            lost: products
                .chunks(op.value_width)
                .map(lost)
                .map(|x| if x.is_finite() { x } else { 0.0 })
                .collect(),
            out: saved,
            lse: lse.into_iter().map(|x| x as f32).collect(),
            grad_out,
            grad_lse,
        })
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<GradientBits, Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let incoming = self.incoming(&inputs)?;
        let asked = self.asked(&inputs);
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (queries, keys) = (backend.upload(&inputs.queries)?, backend.upload(&inputs.keys)?);
        let values = inputs.values.as_ref().map(|values| backend.upload(values)).transpose()?;
        let bias = inputs.bias.as_ref().map(|bias| backend.upload(bias)).transpose()?;
        let (out, lse) = (backend.upload(&incoming.out)?, backend.upload(&incoming.lse)?);
        let grad_out = backend.upload(&incoming.grad_out)?;
        let grad_lse = incoming.grad_lse.as_ref().map(|grad| backend.upload(grad)).transpose()?;
        let mut views = TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys));
        views.values = values.as_ref().map(|values| backend.view(values));
        views.bias = bias.as_ref().map(|bias| backend.view(bias));
        let saved = match self.softmax() {
            true => TargetAttentionSaved::new(backend.view(&out), backend.view(&lse)),
            false => TargetAttentionSaved::none(),
        };
        let mut grad = TargetAttentionGradOut::new(backend.view(&grad_out));
        grad.lse = grad_lse.as_ref().map(|grad_lse| backend.view(grad_lse));
        let (n, m) = (batch.histories().total(), batch.targets().total());
        let sizes =
            [(m, op.heads * op.width), (n, op.kv_heads * op.width), (n, op.kv_heads * op.value_width)];
        let guarded = |i: usize| -> Result<Guarded<B, G>, Failure> {
            let (rows, width) = if asked[i] { sizes[i] } else { (0, 0) };
            Guarded::new(backend, rows * width, self.forward.tail * width)
        };
        let mut rows = [guarded(0)?, guarded(1)?, guarded(2)?];
        let bias_rows = if asked[3] { op.heads } else { 0 };
        let mut bias_grad = Guarded::<B, f32>::new(backend, n * bias_rows, self.forward.tail * bias_rows)?;
        calls.make("target_attention_backward", &mut || {
            let mut grads = TargetAttentionGradients::new();
            let [queries, keys, values] = &mut rows;
            grads.queries = asked[0].then(|| queries.view_mut(backend)).transpose()?;
            grads.keys = asked[1].then(|| keys.view_mut(backend)).transpose()?;
            grads.values = asked[2].then(|| values.view_mut(backend)).transpose()?;
            grads.bias = asked[3].then(|| bias_grad.view_mut(backend)).transpose()?;
            Ok(backend.target_attention_backward_into(&op, &device_batch, views, saved, grad, grads)?)
        })?;
        let [queries, keys, values] = rows;
        let bits = |rows: Guarded<B, G>, name| -> Result<Vec<u8>, Failure> {
            Ok(bytemuck::cast_slice(&rows.finish(backend, name)?).to_vec())
        };
        let bias = bias_grad.finish(backend, "bias")?;
        Ok(vec![
            bits(queries, "queries")?,
            bits(keys, "keys")?,
            bits(values, "values")?,
            bytemuck::cast_slice(&bias).to_vec(),
        ])
    }

    fn compare_as<T: Element, G: Element>(&self, got: &GradientBits, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let incoming = self.incoming(&inputs)?;
        let grad_out: Vec<f64> = incoming.grad_out.iter().map(|x| x.to_f32().into()).collect();
        // A saved output that was rounded changes `D`, as a gradient of `lse` would.
        let grad_lse =
            incoming.lost.iter().enumerate().map(|(row, lost)| {
                lost + incoming.grad_lse.as_ref().map_or(0.0, |grad| f64::from(grad[row]))
            });
        let grad_lse: Option<Vec<f64>> = self.softmax().then(|| grad_lse.collect());
        let TargetAttentionGradientReference { queries, keys, values, bias, .. } =
            reference::target_attention_backward(
                &op,
                &batch,
                &Self::reference_inputs(&inputs),
                &grad_out,
                grad_lse.as_deref(),
            )?;
        let exact = [queries, keys, values.unwrap_or_default(), bias.unwrap_or_default()];
        let bounds = self.bounds(&inputs, &incoming);
        let asked = self.asked(&inputs);
        let (n, m) = (batch.histories().total(), batch.targets().total());
        let lengths = [
            m * op.heads * op.width,
            n * op.kv_heads * op.width,
            n * op.kv_heads * op.value_width,
            n * op.heads,
        ];
        // Differences of nearly equal numbers (equal values, one behaviour, scores far apart) have no small relative error.
        let long = batch.histories().max_length() >= 4;
        let plain = [self.forward.data, self.grad] == [Data::Normal; 2] && self.forward.inputs == [None; 3];
        let plain = plain && self.forward.puts.is_empty() && self.forward.nan.is_none() && self.nan.is_none();
        let nmse = plain
            && long
            && self.forward.scale.is_none()
            && matches!(self.forward.bias, super::Bias::None | super::Bias::Normal);
        for i in (0..4).filter(|&i| asked[i]) {
            let bound = Bound::uniform(bounds[i], nmse);
            let exact = &exact[i][..lengths[i]];
            match i {
                3 => compare(
                    NAMES[i],
                    &bytemuck::pod_collect_to_vec::<u8, f32>(&got[i]),
                    exact,
                    &bound,
                    rules,
                )?,
                _ => {
                    compare(NAMES[i], &bytemuck::pod_collect_to_vec::<u8, G>(&got[i]), exact, &bound, rules)?
                }
            }
        }
        Ok(())
    }

    /// The errors that `f32` arithmetic may make in the four gradients.
    ///
    /// With `A` the largest `|⟨grad_out, v⟩|`, a score's gradient is its derivative times `⟨grad_out, v⟩`, less `D`, a mean of
    /// those. The errors of weights and derivatives come from the scores' (see the forward pass), those of the products are
    /// `d_v + 1` roundings of at most `A`.
    fn bounds<T: Element>(&self, inputs: &Inputs<T>, incoming: &Incoming<T>) -> [f64; 4] {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let norm = data::max_norm::<T>;
        let scale = f64::from(op.effective_scale()).abs();
        let weak = |x: &f32| if x.abs() < DOMINANT { x.abs() } else { 0.0 };
        let max_bias = f64::from(inputs.bias.iter().flatten().map(weak).fold(0.0, f32::max));
        let max_dot = scale * norm(&inputs.queries, op.width) * norm(&inputs.keys, op.width);
        let underflow = op.width as f64 * scale * 2f64.powi(-149) + f64::from(f32::MIN_POSITIVE);
        let max_score = max_dot + max_bias;
        // A bias alone is exact.
        let rounding = if max_dot > 0.0 { U * max_score } else { 0.0 };
        let score_error = (op.width as f64 + 2.0) * U * max_dot + rounding + underflow;
        let values = inputs.values.as_ref().unwrap_or(&inputs.keys);
        let a = norm(&incoming.grad_out, op.value_width) * norm(values, op.value_width);
        let max = data::max_abs::<T>;
        let max_grad = max(&incoming.grad_out);
        let product_error = (op.value_width as f64 + 1.0) * U * a;
        let longest = batch.histories().max_length();
        let rows = batch.targets().max_length() * op.heads / op.kv_heads;
        // (weight, its error, derivative times the gradient of the weight, its error, weights of all behaviours)
        let (weight, weight_error, grad, grad_error, total) = match op.weighting {
            Weighting::Softmax => {
                let grad_lse = incoming.grad_lse.as_deref().map_or(0.0, data::max_abs);
                let relative = self.weight_error(incoming, score_error) + 24.0 * U;
                let grad = 2.0 * a + grad_lse;
                (1.0, relative, grad, relative * grad + 2.0 * product_error + 4.0 * U * grad, 1.0)
            }
            weighting => {
                // The slope of SiLU is at most 1.1 and changes by at most half of the score's change.
                let (divisor, curvature, slope) = match weighting {
                    Weighting::Silu { divisor: SiluDivisor::Number(divisor) } => {
                        (f64::from(divisor).abs(), 0.5, 1.1)
                    }
                    // A history that has any behaviour divides by 1 at least.
                    Weighting::Silu { .. } => (1.0, 0.5, 1.1),
                    _ => (1.0, 0.0, 1.0),
                };
                let (weight, error) =
                    (max_score / divisor, (slope * score_error + 8.0 * U * max_score) / divisor);
                let flips = if weighting == Weighting::Relu && self.has_score_below(inputs, score_error) {
                    a
                } else {
                    0.0
                };
                let grad_error = (curvature * score_error + 8.0 * U) * a + slope * product_error;
                (weight, error, slope * a / divisor, grad_error / divisor + flips, longest as f64)
            }
        };
        let sum_error = |length: usize| (additions(length) + 4.0) * U;
        let (rows, candidates) = (rows as f64 * (1.0 + sum_error(rows)), batch.targets().max_length());
        let row_error = sum_error(rows as usize + 1);
        let dv = rows * max_grad * (weight_error + weight * row_error);
        let dk = rows * scale * max(&inputs.queries) * (grad_error + grad * row_error);
        let dq = total * scale * max(&inputs.keys) * (grad_error + grad * sum_error(longest));
        let dbias = candidates as f64 * (grad_error + grad * sum_error(candidates));
        [dq, if self.forward.value_width.is_none() { dk + dv } else { dk }, dv, dbias]
    }

    /// The error of a softmax weight `w` whose score has this error.
    ///
    /// Up to 256 in magnitude the saved `lse` is subtracted, with its rounding error. Above, weights come from the scores' own
    /// maximum and sum, so that they add up to 1: an error of `ε` in each score then moves `w` by `w(1 − w)(e^2ε − 1)` at most, and
    /// the weight of an only behaviour not at all.
    fn weight_error<T>(&self, incoming: &Incoming<T>, score_error: f64) -> f64 {
        let finite = || incoming.lse.iter().filter(|lse| lse.is_finite()).map(|lse| lse.abs());
        let fine =
            finite().filter(|&lse| lse <= COARSE).map(|lse| (score_error + U * f64::from(lse)).exp_m1());
        let is_alone = self.forward.batch().histories().max_length() <= 1;
        let coarse = if is_alone || finite().all(|lse| lse <= COARSE) {
            0.0
        } else {
            (0.25 * (2.0 * score_error).exp_m1()).min(1.0)
        };
        fine.fold(coarse, f64::max)
    }

    /// Whether a score is so near 0 that `f32` may get its sign wrong, or 0 for another number.
    fn has_score_below<T: Element>(&self, inputs: &Inputs<T>, error: f64) -> bool {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let row = |rows: &[T], row: usize| -> Vec<f64> {
            rows[row * op.width..(row + 1) * op.width].iter().map(|x| x.to_f32().into()).collect()
        };
        batch.requests().any(|(history, targets)| {
            let mut heads = targets.flat_map(|m| (0..op.heads).map(move |h| (m, h)));
            heads.any(|(m, h)| {
                let query = row(&inputs.queries, m * op.heads + h);
                history.clone().any(|l| {
                    let key = row(&inputs.keys, l * op.kv_heads + op.kv_head(h));
                    let dot: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                    let bias = inputs.bias.as_ref().map_or(0.0, |bias| f64::from(bias[l * op.heads + h]));
                    let score = f64::from(op.effective_scale()) * dot + bias;
                    score != 0.0 && score.abs() <= error
                })
            })
        })
    }
}

impl Case for AttentionBackwardCase {
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
