//! Cases of the gradients of merging partial results.

use longseq::*;

use super::MergeCase;
use super::merge::Part;
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, U, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The gradients of a merge of two partial results.
#[derive(Debug, Clone)]
pub struct MergeBackwardCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// The number of rows.
    pub rows: usize,
    /// The width of a row.
    pub value_width: usize,
    /// Rows and `lse` at the limits; see [`MergeCase`].
    pub dead_parts: bool,
    /// Which gradients are asked for: the first part's output and `lse`, the second's.
    pub asked: [bool; 4],
}

const NAMES: [&str; 4] = ["first.out", "first.lse", "second.out", "second.lse"];

impl Default for MergeBackwardCase {
    fn default() -> Self {
        let MergeCase { seed, dtype, rows, value_width, dead_parts } = MergeCase::default();
        Self { seed, dtype, rows, value_width, dead_parts, asked: [true; 4] }
    }
}

impl MergeBackwardCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    /// The least that the call must do: for both parts a product of rows and a product with its weight; both parts and the gradient
    /// read, two gradients written.
    pub fn work(&self) -> Work {
        let op = TargetAttention::new(self.value_width);
        let bytes = by_dtype!(self.dtype, T => op.merge_bytes::<T>(self.rows));
        Work { flops: 2 * op.merge_flops(self.rows), bytes: 5 * (bytes / 3) }
    }

    fn parts<T: Element>(&self) -> [Part<T>; 2] {
        let Self { seed, dtype, rows, value_width, dead_parts, .. } = *self;
        MergeCase { seed, dtype, rows, value_width, dead_parts }.parts()
    }

    fn incoming<T: Element>(&self) -> Part<T> {
        let mut rng = data::rng(self.seed ^ 0x9e37);
        let out = data::rows(&mut rng, Data::Normal, self.rows, self.value_width);
        (out, data::rows(&mut rng, Data::Normal, self.rows, 1))
    }
}

impl MergeBackwardCase {
    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<GradientBits, Failure> {
        let op = TargetAttention::new(self.value_width);
        let ([a, b], (grad_out, grad_lse)) = (self.parts::<T>(), self.incoming::<T>());
        let [a_out, b_out, grad_out] = [&a.0, &b.0, &grad_out].map(|rows| backend.upload(rows));
        let [a_lse, b_lse, grad_lse] = [&a.1, &b.1, &grad_lse].map(|lse| backend.upload(lse));
        let (a_out, a_lse, b_out, b_lse) = (a_out?, a_lse?, b_out?, b_lse?);
        let (grad_out, grad_lse) = (grad_out?, grad_lse?);
        let guarded = |i: usize| {
            let row = if i.is_multiple_of(2) { self.value_width } else { 1 };
            Guarded::<B, f32>::new(backend, if self.asked[i] { self.rows * row } else { 0 }, 0)
        };
        let mut grads = [guarded(0)?, guarded(1)?, guarded(2)?, guarded(3)?];
        calls.make("merge_attention_backward", &mut || {
            let [first_out, first_lse, second_out, second_lse] = &mut grads;
            let (mut first, mut second) =
                (PartialAttentionGradients::new(), PartialAttentionGradients::new());
            first.out = self.asked[0].then(|| first_out.view_mut(backend)).transpose()?;
            first.lse = self.asked[1].then(|| first_lse.view_mut(backend)).transpose()?;
            second.out = self.asked[2].then(|| second_out.view_mut(backend)).transpose()?;
            second.lse = self.asked[3].then(|| second_lse.view_mut(backend)).transpose()?;
            Ok(backend.merge_attention_backward_into::<T, f32>(
                &op,
                PartialAttention::new(backend.view(&a_out), backend.view(&a_lse)),
                PartialAttention::new(backend.view(&b_out), backend.view(&b_lse)),
                TargetAttentionGradOut::new(backend.view(&grad_out)).with_lse(backend.view(&grad_lse)),
                first,
                second,
            )?)
        })?;
        let mut bits = vec![Vec::new(); 4];
        for ((bits, grads), name) in bits.iter_mut().zip(grads).zip(NAMES) {
            *bits = bytemuck::cast_slice(&grads.finish(backend, name)?).to_vec();
        }
        Ok(bits)
    }

    fn compare_as<T: Element>(&self, output: &GradientBits, rules: Rules) -> Result<(), Failure> {
        let op = TargetAttention::new(self.value_width);
        let ([a, b], (grad_out, grad_lse)) = (self.parts::<T>(), self.incoming::<T>());
        let (first, second) = reference::merge_attention_backward(
            &op,
            PartialAttention::new(Host::view(&a.0), Host::view(&a.1)),
            PartialAttention::new(Host::view(&b.0), Host::view(&b.1)),
            &widen(&grad_out),
            Some(&widen(&grad_lse)),
        )?;
        // Weights: two exponentials, a sum, a quotient. Products: `d_v` terms of rows of at most the largest number.
        let weight_error = 16.0 * U;
        let max_grad = data::max_abs(&grad_out);
        let norm = data::max_norm(&a.0, self.value_width).max(data::max_norm(&b.0, self.value_width));
        let products = data::max_norm(&grad_out, self.value_width) * norm;
        let out = Bound::uniform(weight_error * max_grad, !self.dead_parts);
        let lse_error = (weight_error + (self.value_width as f64 + 4.0) * U)
            * (2.0 * products + data::max_abs(&grad_lse));
        let lse = Bound::uniform(lse_error, false);
        let exact = [first.out, first.lse, second.out, second.lse];
        for i in (0..4).filter(|&i| self.asked[i]) {
            let bound = if i.is_multiple_of(2) { &out } else { &lse };
            compare(NAMES[i], &bytemuck::pod_collect_to_vec::<u8, f32>(&output[i]), &exact[i], bound, rules)?;
        }
        Ok(())
    }
}

fn widen<T: Element>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.to_f32().into()).collect()
}

impl Case for MergeBackwardCase {
    type Output = GradientBits;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<GradientBits, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &GradientBits, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
