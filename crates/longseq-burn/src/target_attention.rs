//! Target attention.

use std::sync::Arc;

use burn_core::backend::ops::FloatTensorOps;
use burn_core::backend::{DispatchTensor, TensorMetadata};
use burn_core::tensor::{DType, FloatDType, Tensor};
use longseq::prelude::*;
use longseq::{
    Result, TargetAttention, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionInputs,
    TargetAttentionOutputs, TargetAttentionSaved, Weighting,
};

use crate::argument::{Argument, Float, by_float, heads_of};
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, MemoryOf};
use crate::place::{Place, Values};
use crate::tensors::Tensors;

const NAME: &str = "target_attention";

/// The inputs of target attention: rows with their heads apart (`D` = 3) or side by side (`D` = 2). The types of `queries`, `keys` and `values`
/// are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct TargetAttentionTensors<'a, const D: usize> {
    /// `[M, H, d]`, or `[M, H·d]`.
    pub queries: &'a Tensor<D>,
    /// `[N, H_kv, d]`, or `[N, H_kv·d]`.
    pub keys: &'a Tensor<D>,
    /// `[N, H_kv, d_v]`, or `[N, H_kv·d_v]`; `None`: the keys are the values.
    pub values: Option<&'a Tensor<D>>,
    /// `[N, H]`; added to the scaled dot products. Of `f32`, or widened.
    pub bias: Option<&'a Tensor<2>>,
}

impl<'a, const D: usize> TargetAttentionTensors<'a, D> {
    /// Queries and keys; the keys are the values.
    pub fn new(queries: &'a Tensor<D>, keys: &'a Tensor<D>) -> Self {
        Self { queries, keys, values: None, bias: None }
    }

    /// Sets values of their own.
    pub fn with_values(self, values: &'a Tensor<D>) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Adds a bias to the scores.
    pub fn with_bias(self, bias: &'a Tensor<2>) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

impl<P: Place> Longseq<P> {
    /// Target attention, `[M, H, d_v]` (`[M, H·d_v]` where queries are `[M, H·d]`); formula: [`TargetAttention`]. Queries, keys, values and bias
    /// get gradients.
    ///
    /// # Errors
    /// Those of [`TargetAttention::check`]; a tensor on another backend of burn, or of another type or shape.
    pub fn target_attention<const D: usize>(
        &self,
        op: &TargetAttention,
        batch: &Batch<P>,
        inputs: TargetAttentionTensors<'_, D>,
    ) -> Result<Tensor<D>> {
        let mut attention = Attention::new(self, op, batch, &inputs, false)?;
        let tensors = attention.tensors(&inputs)?;
        let shape = attention.out_shape(D);
        by_float!(tensors[0].dtype(), T => {
            let (out, lse) = attention.forward::<T>(&self.for_call()?, &tensors, shape)?;
            attention.saved = lse.map(|lse| (out.clone(), lse));
            Ok(Tensor::from_dispatch(record(out, tensors, attention)?))
        })
    }

    /// The same with the log-sum-exp of the scores, `[M, H]` of `f32`, which has gradients, too. Softmax only.
    ///
    /// Both are parts of one tensor of `f32`, as a step of burn has one result; they are copied out of it.
    ///
    /// # Errors
    /// As [`target_attention`](Self::target_attention).
    pub fn target_attention_with_lse<const D: usize>(
        &self,
        op: &TargetAttention,
        batch: &Batch<P>,
        inputs: TargetAttentionTensors<'_, D>,
    ) -> Result<(Tensor<D>, Tensor<2>)> {
        let mut attention = Attention::new(self, op, batch, &inputs, true)?;
        let tensors = attention.tensors(&inputs)?;
        let shape = attention.out_shape(D);
        let (candidates, width) = (batch.batch().targets().rows(), op.value_width);
        let dtype = tensors[0].dtype();
        let both = by_float!(dtype, T => {
            let (out, lse) = attention.forward::<T>(&self.for_call()?, &tensors, shape.clone())?;
            let lse = lse.expect("there was memory for it");
            let both = joined::<P>(&out, &lse, width);
            attention.saved = Some((out, lse));
            record(both, tensors, attention)?
        });
        let (out, lse) = parted(both, width, dtype);
        let shape: [usize; D] = std::array::from_fn(|dim| shape[dim]);
        Ok((out.reshape(shape), lse.reshape([candidates, op.heads])))
    }
}

/// Rows as `f32`, each followed by its log-sum-exp.
pub(crate) fn joined<P: Place>(out: &Values<P>, lse: &Values<P>, width: usize) -> Values<P> {
    let rows = lse.shape().num_elements();
    let out = P::Burn::float_cast(out.clone(), FloatDType::F32);
    let out = P::Burn::float_reshape(out, [rows, width].into());
    let lse = P::Burn::float_reshape(lse.clone(), [rows, 1].into());
    P::Burn::float_cat(vec![out, lse], 1)
}

/// The parts of [`joined`] in the graph: rows of `dtype`, and their log-sum-exps as a column.
pub(crate) fn parted(both: DispatchTensor, width: usize, dtype: DType) -> (Tensor<2>, Tensor<2>) {
    let both = Tensor::<2>::from_dispatch(both);
    let out = both.clone().narrow(1, 0, width);
    let out = match dtype {
        DType::F16 => out.cast(FloatDType::F16),
        DType::BF16 => out.cast(FloatDType::BF16),
        _ => out,
    };
    (out, both.narrow(1, width, 1))
}

/// The parts of the gradient of [`joined`], outside of the graph, contiguous.
pub(crate) fn parted_values<P: Place>(
    both: &Values<P>,
    width: usize,
    dtype: DType,
) -> (Values<P>, Values<P>) {
    let rows = both.shape()[0];
    let part = |start: usize, end: usize| {
        let part = P::Burn::float_slice(both.clone(), &[(0..rows).into(), (start..end).into()]);
        <P::Burn as Tensors>::contiguous(part)
    };
    let out = match dtype {
        DType::F16 => P::Burn::float_cast(part(0, width), FloatDType::F16),
        DType::BF16 => P::Burn::float_cast(part(0, width), FloatDType::BF16),
        _ => part(0, width),
    };
    (out, part(width, width + 1))
}

/// Target attention in the graph. Its inputs: queries, keys, then values and bias where there are any.
struct Attention<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: TargetAttention,
    kinds: Vec<Kind>,
    values: Option<usize>,
    bias: Option<usize>,
    /// Whether each row of the result is followed by its log-sum-exp.
    with_lse: bool,
    /// With softmax, output and log-sum-exp.
    saved: Option<(Values<P>, Values<P>)>,
}

impl<P: Place> Attention<P> {
    fn new<const D: usize>(
        longseq: &Longseq<P>,
        op: &TargetAttention,
        batch: &Batch<P>,
        inputs: &TargetAttentionTensors<'_, D>,
        with_lse: bool,
    ) -> Result<Self> {
        op.validate()?;
        let mut kinds = vec![Kind::Row; 2];
        let mut add = |kind| {
            kinds.push(kind);
            kinds.len() - 1
        };
        let values = inputs.values.map(|_| add(Kind::Row));
        let bias = inputs.bias.map(|_| add(Kind::Number));
        let (place, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok(Self { place, batch, op: *op, kinds, values, bias, with_lse, saved: None })
    }

    /// The inputs, checked.
    fn tensors<const D: usize>(&self, inputs: &TargetAttentionTensors<'_, D>) -> Result<Vec<Input<P>>> {
        let (op, batch) = (&self.op, (*self.batch).as_ref());
        let (m, n) = (("M", batch.targets().rows()), ("N", batch.histories().rows()));
        let argument = |name, tensor: &Tensor<D>| Argument::new(NAME, name, tensor);
        let queries = heads_of(argument("queries", inputs.queries), m, op.heads, op.width)?.float()?;
        let dtype = queries.dtype();
        let keys = heads_of(argument("keys", inputs.keys), n, op.kv_heads, op.width)?.float_as(dtype)?;
        let mut tensors = vec![queries, keys];
        if let Some(values) = inputs.values {
            let values = heads_of(argument("values", values), n, op.kv_heads, op.value_width)?;
            tensors.push(values.float_as(dtype)?);
        }
        if let Some(bias) = inputs.bias {
            let bias = Argument::new(NAME, "bias", bias);
            tensors.push(bias.of_shape(&[&[n, ("H", op.heads)]])?.f32()?);
        }
        Ok(tensors)
    }

    /// Heads are apart where those of the queries are.
    fn out_shape(&self, rank: usize) -> Vec<usize> {
        let rows = (*self.batch).as_ref().targets().rows();
        match rank {
            1 => vec![rows],
            2 => vec![rows, self.op.heads * self.op.value_width],
            _ => vec![rows, self.op.heads, self.op.value_width],
        }
    }

    fn inputs<'b, T: Float>(&self, loan: &'b Loan<'_, P, T>) -> TargetAttentionInputs<'b, MemoryOf<P>, T> {
        let mut inputs = TargetAttentionInputs::new(loan.row(0), loan.row(1));
        inputs.values = self.values.map(|index| loan.row(index));
        inputs.bias = self.bias.map(|index| loan.number(index));
        inputs
    }

    /// Output, and with softmax the log-sum-exp.
    fn forward<T: Float>(
        &self,
        place: &P,
        tensors: &[Input<P>],
        shape: Vec<usize>,
    ) -> Result<(Values<P>, Option<Values<P>>)> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let inputs = self.inputs(&loan);
        let (op, batch) = (&self.op, (*self.batch).as_ref());
        op.check(batch, &inputs)?;
        let length = op.output_length(batch)?;
        let has_lse = op.weighting == Weighting::Softmax || self.with_lse;
        let rows = length / op.value_width;
        let mut out = place.output::<T>(length)?;
        let mut lse = place.output::<f32>(if has_lse { rows } else { 0 })?;
        let mut outputs = TargetAttentionOutputs::new(place.output_mut(&mut out));
        if has_lse {
            outputs = outputs.with_lse(place.output_mut(&mut lse));
        }
        place.backend().target_attention_into(op, &self.batch, inputs, outputs)?;
        let out = place.finish::<T>(out, shape)?;
        let lse = has_lse.then(|| place.finish::<f32>(lse, vec![rows, 1])).transpose()?;
        Ok((out, lse))
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let (grad, grad_lse) = match self.with_lse {
            true => {
                let parts = parted_values::<P>(pass.grad, self.op.value_width, pass.inputs[0].dtype());
                (parts.0, Some(parts.1))
            }
            false => (pass.grad.clone(), None),
        };
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let saved = match &self.saved {
                Some((out, lse)) => Some((place.lend::<T>(out)?, place.lend::<f32>(lse)?)),
                None => None,
            };
            let saved = match &saved {
                Some((out, lse)) => TargetAttentionSaved::new(out.view(), lse.view()),
                None => TargetAttentionSaved::none(),
            };
            let grad = place.lend::<T>(&grad)?;
            let grad_lse = grad_lse.as_ref().map(|grad| place.lend::<f32>(grad)).transpose()?;
            let mut grad_out = TargetAttentionGradOut::new(grad.view());
            if let Some(grad_lse) = &grad_lse {
                grad_out = grad_out.with_lse(grad_lse.view());
            }
            let (mut rows, mut numbers) = memory.views(&place);
            let mut grads = TargetAttentionGradients::new();
            (grads.queries, grads.keys) = (rows[0].take(), rows[1].take());
            grads.values = self.values.and_then(|index| rows[index].take());
            grads.bias = self.bias.and_then(|index| numbers[index].take());
            let inputs = self.inputs(&loan);
            let (op, batch) = (&self.op, &self.batch);
            place.backend().target_attention_backward_into(op, batch, inputs, saved, grad_out, grads)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Attention<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
