//! The merge of attention over two disjoint spans of the same histories.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionOutputs,
};

use crate::error::Wrapped;
use crate::handle::Longseq;
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::target_attention::{joined, parted};
use crate::tensors::{Argument, Float, by_float};

const NAME: &str = "merge_attention";
/// Rows and log-sum-exps of both parts.
const KINDS: [Kind; 4] = [Kind::Row, Kind::Number, Kind::Row, Kind::Number];

impl<B: Place> Longseq<B> {
    /// Merges the results of [`target_attention_with_lse`](Self::target_attention_with_lse) over two disjoint spans of the same
    /// histories, each an output `[M, H, d_v]` (or of one head or joined heads `[M, H·d_v]`) and its log-sum-exp `[M, H]`, into those of
    /// both spans; all four get gradients. Formula: [`merge_attention_into`](longseq::TargetAttentionOps::merge_attention_into).
    ///
    /// # Errors
    /// Those of [`TargetAttention::check_merge`]; a tensor that is not on the CPU, or of another type or shape.
    pub fn merge_attention(
        &self,
        op: &TargetAttention,
        first: (&Tensor, &Tensor),
        second: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor)> {
        op.validate().wrapped()?;
        let shape = first.0.shape().clone();
        let out = Argument::new(NAME, "first.out", first.0).float()?;
        let dtype = out.dtype();
        let tensors = vec![
            out,
            Argument::new(NAME, "first.lse", first.1).f32()?,
            Argument::new(NAME, "second.out", second.0).float_as(dtype)?,
            Argument::new(NAME, "second.lse", second.1).f32()?,
        ];
        let merge = Merge { backend: self.shared(), op: *op };
        let (rows, width) = (first.1.elem_count(), op.value_width);
        let both = by_float!(dtype, T => {
            let (out, lse) = merge.forward::<T>(&self.fork()?, &tensors, rows)?;
            record(joined(&out, &lse, width), (rows, width + 1), tensors, merge)
        })?;
        let (out, lse) = parted(&both, dtype)?;
        Ok((out.reshape(shape)?, lse.reshape(first.1.shape())?))
    }
}

struct Merge<B: Place> {
    backend: Arc<B>,
    op: TargetAttention,
}

impl<B: Place> Merge<B> {
    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor], rows: usize) -> Result<(Vec<T>, Vec<f32>)> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &KINDS)?;
            let part = |index| PartialAttention::new(loan.row(index), loan.number(index + 1));
            let (first, second) = (part(0), part(2));
            self.op.check_merge(&first, &second).wrapped()?;
            let mut out = backend.output::<T>(rows * self.op.value_width).wrapped()?;
            let mut lse = backend.output::<f32>(rows).wrapped()?;
            let outputs = TargetAttentionOutputs::new(backend.output_mut(&mut out));
            let outputs = outputs.with_lse(backend.output_mut(&mut lse));
            backend.merge_attention_into(&self.op, first, second, outputs).wrapped()?;
            Ok((backend.finish::<T>(out).wrapped()?, backend.finish::<f32>(lse).wrapped()?))
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let (grad, grad_lse) = parted(pass.grad, pass.inputs[0].dtype())?;
        let tensors = pass.inputs_and(&[&grad, &grad_lse]);
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &KINDS)?;
        read(&tensors, |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &KINDS)?;
            let part = |index| PartialAttention::new(loan.row(index), loan.number(index + 1));
            let grad = backend.lend(parts.of::<T>(KINDS.len())?).wrapped()?;
            let grad_lse = backend.lend(parts.of::<f32>(KINDS.len() + 1)?).wrapped()?;
            let grad_out = TargetAttentionGradOut::new(grad.view()).with_lse(grad_lse.view());
            let (mut rows, mut numbers) = memory.views(&backend);
            let mut grads = |index: usize| {
                let mut grads = PartialAttentionGradients::new();
                (grads.out, grads.lse) = (rows[index].take(), numbers[index + 1].take());
                grads
            };
            let (first, second) = (grads(0), grads(2));
            backend
                .merge_attention_backward_into(&self.op, part(0), part(2), grad_out, first, second)
                .wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Merge<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
