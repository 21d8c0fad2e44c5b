//! The merge of attention over two disjoint spans of the same histories.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::Tensor;
use longseq::prelude::*;
use longseq::{
    PartialAttention, PartialAttentionGradients, Result, TargetAttention, TargetAttentionGradOut,
    TargetAttentionOutputs,
};

use crate::argument::{Argument, Float, by_float};
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::Longseq;
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::{Place, Values};
use crate::target_attention::{joined, parted, parted_values};

const NAME: &str = "merge_attention";
/// Rows and log-sum-exps of both parts.
const KINDS: [Kind; 4] = [Kind::Row, Kind::Number, Kind::Row, Kind::Number];

impl<P: Place> Longseq<P> {
    /// Merges the results of [`target_attention_with_lse`](Self::target_attention_with_lse) over two disjoint spans of the same
    /// histories, each an output `[M, H, d_v]` (or `[M, H·d_v]`) and its log-sum-exp `[M, H]`, into those of both spans; all four get gradients.
    /// Formula: [`merge_attention_into`](longseq::TargetAttentionOps::merge_attention_into).
    ///
    /// # Errors
    /// Those of [`TargetAttention::check_merge`]; a tensor on another backend of burn, or of another type or shape.
    pub fn merge_attention<const D: usize>(
        &self,
        op: &TargetAttention,
        first: (&Tensor<D>, &Tensor<2>),
        second: (&Tensor<D>, &Tensor<2>),
    ) -> Result<(Tensor<D>, Tensor<2>)> {
        op.validate()?;
        let (shape, lse_shape) = (first.0.dims(), first.1.dims());
        let out = Argument::new(NAME, "first.out", first.0).float()?;
        let dtype = out.dtype();
        let tensors = vec![
            out,
            Argument::new(NAME, "first.lse", first.1).f32()?,
            Argument::new(NAME, "second.out", second.0).float_as(dtype)?,
            Argument::new(NAME, "second.lse", second.1).f32()?,
        ];
        let merge = Merge { place: self.shared(), op: *op };
        let (rows, width) = (lse_shape[0] * lse_shape[1], op.value_width);
        let both = by_float!(dtype, T => {
            let (out, lse) = merge.forward::<T>(&self.for_call()?, &tensors, rows)?;
            record(joined::<P>(&out, &lse, width), tensors, merge)?
        });
        let (out, lse) = parted(both, width, dtype);
        Ok((out.reshape(shape), lse.reshape(lse_shape)))
    }
}

struct Merge<P: Place> {
    place: Arc<P>,
    op: TargetAttention,
}

impl<P: Place> Merge<P> {
    fn forward<T: Float>(
        &self,
        place: &P,
        tensors: &[Input<P>],
        rows: usize,
    ) -> Result<(Values<P>, Values<P>)> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &KINDS)?;
        let part = |index| PartialAttention::new(loan.row(index), loan.number(index + 1));
        let (first, second) = (part(0), part(2));
        self.op.check_merge(&first, &second)?;
        let width = self.op.value_width;
        let mut out = place.output::<T>(rows * width)?;
        let mut lse = place.output::<f32>(rows)?;
        let outputs = TargetAttentionOutputs::new(place.output_mut(&mut out));
        let outputs = outputs.with_lse(place.output_mut(&mut lse));
        place.backend().merge_attention_into(&self.op, first, second, outputs)?;
        Ok((place.finish::<T>(out, vec![rows, width])?, place.finish::<f32>(lse, vec![rows, 1])?))
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let dtype = pass.inputs[0].dtype();
        let (grad, grad_lse) = parted_values::<P>(pass.grad, self.op.value_width, dtype);
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &KINDS)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &KINDS)?;
            let part = |index| PartialAttention::new(loan.row(index), loan.number(index + 1));
            let (grad, grad_lse) = (place.lend::<T>(&grad)?, place.lend::<f32>(&grad_lse)?);
            let grad_out = TargetAttentionGradOut::new(grad.view()).with_lse(grad_lse.view());
            let (mut rows, mut numbers) = memory.views(&place);
            let mut grads = |index: usize| {
                let mut grads = PartialAttentionGradients::new();
                (grads.out, grads.lse) = (rows[index].take(), numbers[index + 1].take());
                grads
            };
            let (first, second) = (grads(0), grads(2));
            let op = &self.op;
            place.backend().merge_attention_backward_into(op, part(0), part(2), grad_out, first, second)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Merge<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
