//! Cases of the gradients of attention over a selection.

use longseq::reference::SelectedAttentionGradientReference;
use longseq::*;

use super::SelectedCase;
use super::bounds::Errors;
use super::inputs::Inputs;
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;
use crate::target_attention::Bias;

/// A backward pass of attention over a selection.
#[derive(Debug, Clone)]
pub struct SelectedBackwardCase {
    /// The forward pass.
    pub forward: SelectedCase,
    /// Which gradients are asked for: queries, keys, values, bias, `γ`, similarities. What the forward pass does not have is not asked
    /// for.
    pub asked: [bool; 6],
    /// Gradients are stored as the inputs are, not as `f32`.
    pub narrow: bool,
    /// A gradient comes in for `lse` too.
    pub with_grad_lse: bool,
    /// A NaN in the gradient of this candidate's output.
    pub nan: Option<usize>,
}

impl Default for SelectedBackwardCase {
    fn default() -> Self {
        let forward = SelectedCase::default();
        Self { forward, asked: [true; 6], narrow: false, with_grad_lse: false, nan: None }
    }
}

const NAMES: [&str; 6] = ["queries", "keys", "values", "bias", "gammas", "similarities"];

impl SelectedBackwardCase {
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

    /// What is asked for and there.
    fn asked<T: Element>(&self, inputs: &Inputs<Host, T>) -> [bool; 6] {
        let [queries, keys, values, bias, gammas, similarities] = self.asked;
        let has = [inputs.values.is_some(), inputs.bias.is_some(), inputs.gammas.is_some()];
        [queries, keys, values && has[0], bias && has[1], gammas && has[2], similarities]
    }

    /// The rows that are written, those that are nobody's, and the width of a row.
    fn sizes(&self) -> [(usize, usize, usize); 6] {
        let (op, batch, tail) = (self.forward.op(), self.forward.batch(), self.forward.tail);
        let (n, m) = (batch.histories().total(), batch.targets().total());
        [
            (m, tail, op.heads * op.width),
            (n, tail, op.kv_heads * op.width),
            (n, tail, op.kv_heads * op.value_width),
            (n, tail, op.heads),
            (op.heads, 0, 3),
            (m, tail, op.top_k),
        ]
    }

    /// The gradients of the output and of the log-sum-exp.
    fn incoming<T: Element>(&self) -> (Vec<T>, Option<Vec<f32>>) {
        let (op, rows) = (self.forward.op(), self.forward.batch().targets().rows());
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let mut grad_out: Vec<T> = data::rows(&mut rng, Data::Normal, rows, op.heads * op.value_width);
        if let Some(candidate) = self.nan {
            grad_out[candidate * op.heads * op.value_width] = T::from_f32(f32::NAN);
        }
        (grad_out, self.with_grad_lse.then(|| data::rows(&mut rng, Data::Normal, rows, op.heads)))
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<GradientBits, Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let (asked, (grad_out, grad_lse)) = (self.asked(&inputs), self.incoming::<T>());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = inputs.upload(backend)?;
        let grad_out = backend.upload(&grad_out)?;
        let grad_lse = grad_lse.as_ref().map(|grad| backend.upload(grad)).transpose()?;
        let sizes = self.sizes();
        let size = |i: usize| {
            let (rows, unused, width) = if asked[i] { sizes[i] } else { (0, 0, 0) };
            (rows * width, unused * width)
        };
        let rows = |i: usize| Guarded::<B, G>::new(backend, size(i).0, size(i).1);
        let numbers = |i: usize| Guarded::<B, f32>::new(backend, size(i).0, size(i).1);
        let mut stored = [rows(0)?, rows(1)?, rows(2)?];
        let mut wide = [numbers(3)?, numbers(4)?, numbers(5)?];
        calls.make("selected_attention_backward", &mut || {
            let mut grad = SelectedAttentionGradOut::new(backend.view(&grad_out));
            grad.lse = grad_lse.as_ref().map(|grad_lse| backend.view(grad_lse));
            let mut grads = SelectedAttentionGradients::new();
            let ([queries, keys, values], [bias, gammas, similarities]) = (&mut stored, &mut wide);
            grads.queries = asked[0].then(|| queries.view_mut(backend)).transpose()?;
            grads.keys = asked[1].then(|| keys.view_mut(backend)).transpose()?;
            grads.values = asked[2].then(|| values.view_mut(backend)).transpose()?;
            grads.bias = asked[3].then(|| bias.view_mut(backend)).transpose()?;
            grads.gammas = asked[4].then(|| gammas.view_mut(backend)).transpose()?;
            grads.similarities = asked[5].then(|| similarities.view_mut(backend)).transpose()?;
            let views = inputs.views(backend);
            Ok(backend.selected_attention_backward_into(&op, &device_batch, views, grad, grads)?)
        })?;
        let mut bits = Vec::new();
        for (rows, name) in stored.into_iter().zip(NAMES) {
            bits.push(bytemuck::cast_slice(&rows.finish(backend, name)?).to_vec());
        }
        for (numbers, name) in wide.into_iter().zip(&NAMES[3..]) {
            bits.push(bytemuck::cast_slice(&numbers.finish(backend, name)?).to_vec());
        }
        Ok(bits)
    }

    fn compare_as<T: Element, G: Element>(&self, got: &GradientBits, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>());
        let (grad_out, grad_lse) = self.incoming::<T>();
        let wide_out: Vec<f64> = grad_out.iter().map(|x| x.to_f32().into()).collect();
        let wide_lse: Option<Vec<f64>> =
            grad_lse.as_ref().map(|grad| grad.iter().map(|&x| x.into()).collect());
        let views = inputs.views(&Cpu::new());
        let exact =
            reference::selected_attention_backward(&op, &batch, &views, &wide_out, wide_lse.as_deref())?;
        let SelectedAttentionGradientReference { queries, keys, values, bias, gammas, similarities, .. } =
            exact;
        let (values, bias, gammas) =
            (values.unwrap_or_default(), bias.unwrap_or_default(), gammas.unwrap_or_default());
        let exact = [queries, keys, values, bias, gammas, similarities];
        let (max, norm) = (data::max_abs(&grad_out), data::max_norm(&grad_out, op.value_width));
        let max_lse = grad_lse.as_deref().map_or(0.0, data::max_abs);
        let bounds = Errors::new(&self.forward, &inputs).gradients(max, norm, max_lse, rules);
        let (asked, sizes) = (self.asked(&inputs), self.sizes());
        for i in (0..6).filter(|&i| asked[i]) {
            // Differences of nearly equal numbers (equal values, one behaviour, scores far apart) have no small relative error.
            let plain = self.forward.data == Data::Normal && self.forward.nan.or(self.nan).is_none();
            let nmse = i < 3 && plain && self.has_common_scores();
            let bound = Bound::uniform(bounds[i], nmse);
            let exact = &exact[i][..sizes[i].0 * sizes[i].2];
            if i < 3 {
                let rows = bytemuck::pod_collect_to_vec::<u8, G>(&got[i]);
                compare(NAMES[i], &rows, exact, &bound, rules)?;
            } else {
                let numbers = bytemuck::pod_collect_to_vec::<u8, f32>(&got[i]);
                compare(NAMES[i], &numbers, exact, &bound, rules)?;
            }
        }
        Ok(())
    }

    /// Whether some candidates keep several behaviours of about the same `α`.
    fn has_common_scores(&self) -> bool {
        let SelectedCase { scale, bias, choice, histories, targets, removed, top_k, .. } = &self.forward;
        let is_long = histories.iter().all(|&length| length == 0 || length >= 30);
        scale.is_none()
            && removed.is_none()
            && is_long
            && *top_k >= 12
            && targets.iter().sum::<usize>() >= 3
            && *choice != super::Choice::Same
            && matches!(bias, Bias::None | Bias::Normal)
    }
}

impl Case for SelectedBackwardCase {
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
