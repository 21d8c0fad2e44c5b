//! Target attention, and the merge of two of its results.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use longseq::{
    TargetAttention, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionInputs,
    TargetAttentionOutputs, TargetAttentionSaved, Weighting,
};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::tensors::{Argument, Float, by_float, columns_of, heads_of};

const NAME: &str = "target_attention";

/// The inputs of target attention. The types of `queries`, `keys` and `values` are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct TargetAttentionTensors<'a> {
    /// `[M, H, d]`, or `[M, H·d]`.
    pub queries: &'a Tensor,
    /// `[N, H_kv, d]`, or `[N, H_kv·d]`.
    pub keys: &'a Tensor,
    /// `[N, H_kv, d_v]`, or `[N, H_kv·d_v]`; `None`: the keys are the values.
    pub values: Option<&'a Tensor>,
    /// `[N, H]`, or `[N]` with one head; added to the scaled dot products. Of `f32`, or widened.
    pub bias: Option<&'a Tensor>,
}

impl<'a> TargetAttentionTensors<'a> {
    /// Queries and keys; the keys are the values.
    pub fn new(queries: &'a Tensor, keys: &'a Tensor) -> Self {
        Self { queries, keys, values: None, bias: None }
    }

    /// Sets values of their own.
    pub fn with_values(self, values: &'a Tensor) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Adds a bias to the scores.
    pub fn with_bias(self, bias: &'a Tensor) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

impl<B: Place> Longseq<B> {
    /// Target attention, `[M, H, d_v]` (`[M, H·d_v]` where queries are `[M, H·d]`); formula: [`TargetAttention`]. Queries, keys, values and bias get gradients.
    ///
    /// # Errors
    /// Those of [`TargetAttention::check`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn target_attention(
        &self,
        op: &TargetAttention,
        batch: &Batch<B>,
        inputs: TargetAttentionTensors<'_>,
    ) -> Result<Tensor> {
        let attention = Attention::new(self, op, batch, &inputs, false)?;
        let tensors = attention.tensors(&inputs)?;
        let shape = attention.out_shape(&inputs);
        by_float!(tensors[0].dtype(), T => {
            let (out, lse) = attention.forward::<T>(&self.fork()?, &tensors)?;
            record(out, shape, tensors, attention.with_lse(lse))
        })
    }

    /// The same with the log-sum-exp of the scores, `[M, H]` of `f32`, which has gradients, too. Softmax only.
    ///
    /// Both are parts of one tensor of `f32`, as a custom op of candle has one result; they are copied out of it.
    ///
    /// # Errors
    /// As [`target_attention`](Self::target_attention).
    pub fn target_attention_with_lse(
        &self,
        op: &TargetAttention,
        batch: &Batch<B>,
        inputs: TargetAttentionTensors<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let attention = Attention::new(self, op, batch, &inputs, true)?;
        let tensors = attention.tensors(&inputs)?;
        let shape = attention.out_shape(&inputs);
        let dtype = tensors[0].dtype();
        let (rows, width) = (batch.batch().targets().rows() * op.heads, op.value_width);
        let both = by_float!(dtype, T => {
            let (out, lse) = attention.forward::<T>(&self.fork()?, &tensors)?;
            record(joined(&out, &lse, width), (rows, width + 1), tensors, attention.with_lse(Vec::new()))
        })?;
        let out = both.narrow(1, 0, width)?.contiguous()?.to_dtype(dtype)?.reshape(shape)?;
        let lse = both.narrow(1, width, 1)?.contiguous()?.reshape((rows / op.heads, op.heads))?;
        Ok((out, lse))
    }
}

/// Rows, each followed by its log-sum-exp.
pub(crate) fn joined<T: Float>(out: &[T], lse: &[f32], width: usize) -> Vec<f32> {
    let mut both = Vec::with_capacity(lse.len() * (width + 1));
    for (row, lse) in out.chunks(width).zip(lse) {
        both.extend(row.iter().map(|&x| longseq::Element::to_f32(x)));
        both.push(*lse);
    }
    both
}

/// The parts of [`joined`]: rows of `dtype`, and their log-sum-exps.
pub(crate) fn parted(both: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let width = both.dim(1)? - 1;
    let out = both.narrow(1, 0, width)?.contiguous()?.to_dtype(dtype)?;
    Ok((out, both.narrow(1, width, 1)?.contiguous()?))
}

/// Target attention in the graph. Its inputs: queries, keys, then values and bias where there are any.
struct Attention<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: TargetAttention,
    kinds: Vec<Kind>,
    values: Option<usize>,
    bias: Option<usize>,
    /// Whether each row of the result is followed by its log-sum-exp.
    with_lse: bool,
    /// `[M, H]`, otherwise, with softmax.
    lse: Vec<f32>,
}

impl<B: Place> Attention<B> {
    fn new(
        longseq: &Longseq<B>,
        op: &TargetAttention,
        batch: &Batch<B>,
        inputs: &TargetAttentionTensors<'_>,
        with_lse: bool,
    ) -> Result<Self> {
        op.validate().wrapped()?;
        let mut kinds = vec![Kind::Row; 2];
        let mut add = |kind| {
            kinds.push(kind);
            kinds.len() - 1
        };
        let values = inputs.values.map(|_| add(Kind::Row));
        let bias = inputs.bias.map(|_| add(Kind::Number));
        let (backend, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok(Self { backend, batch, op: *op, kinds, values, bias, with_lse, lse: Vec::new() })
    }

    fn with_lse(self, lse: Vec<f32>) -> Self {
        Self { lse, ..self }
    }

    /// The inputs, checked.
    fn tensors(&self, inputs: &TargetAttentionTensors<'_>) -> Result<Vec<Tensor>> {
        let (op, batch) = (&self.op, (*self.batch).as_ref());
        let (m, n) = (("M", batch.targets().rows()), ("N", batch.histories().rows()));
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let queries = heads_of(argument("queries", inputs.queries), m, op.heads, op.width)?.float()?;
        let dtype = queries.dtype();
        let keys = heads_of(argument("keys", inputs.keys), n, op.kv_heads, op.width)?.float_as(dtype)?;
        let mut tensors = vec![queries, keys];
        if let Some(values) = inputs.values {
            let values = heads_of(argument("values", values), n, op.kv_heads, op.value_width)?;
            tensors.push(values.float_as(dtype)?);
        }
        if let Some(bias) = inputs.bias {
            tensors.push(columns_of(argument("bias", bias), n, ("H", op.heads))?.f32()?);
        }
        Ok(tensors)
    }

    /// Heads are apart where those of the queries are.
    fn out_shape(&self, inputs: &TargetAttentionTensors<'_>) -> Vec<usize> {
        let rows = (*self.batch).as_ref().targets().rows();
        match inputs.queries.rank() {
            2 => vec![rows, self.op.heads * self.op.value_width],
            _ => vec![rows, self.op.heads, self.op.value_width],
        }
    }

    fn inputs<'b, T: Float>(&self, loan: &'b Loan<'_, B, T>) -> TargetAttentionInputs<'b, B::Memory, T> {
        let mut inputs = TargetAttentionInputs::new(loan.row(0), loan.row(1));
        inputs.values = self.values.map(|index| loan.row(index));
        inputs.bias = self.bias.map(|index| loan.number(index));
        inputs
    }

    /// Output and log-sum-exp (empty without softmax).
    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<(Vec<T>, Vec<f32>)> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let inputs = self.inputs(&loan);
            let (op, batch) = (&self.op, (*self.batch).as_ref());
            op.check(batch, &inputs).wrapped()?;
            let length = op.output_length(batch).wrapped()?;
            let has_lse = op.weighting == Weighting::Softmax || self.with_lse;
            let mut out = backend.output::<T>(length).wrapped()?;
            let mut lse =
                backend.output::<f32>(if has_lse { length / op.value_width } else { 0 }).wrapped()?;
            let mut outputs = TargetAttentionOutputs::new(backend.output_mut(&mut out));
            if has_lse {
                outputs = outputs.with_lse(backend.output_mut(&mut lse));
            }
            backend.target_attention_into(op, &self.batch, inputs, outputs).wrapped()?;
            Ok((backend.finish::<T>(out).wrapped()?, backend.finish::<f32>(lse).wrapped()?))
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let inputs = pass.inputs.len();
        let tensors = if self.with_lse {
            let dtype = pass.inputs[0].dtype();
            let ((out, lse), (grad, grad_lse)) = (parted(pass.out, dtype)?, parted(pass.grad, dtype)?);
            pass.inputs_and(&[&out, &grad, &lse, &grad_lse])
        } else {
            pass.inputs_and(&[pass.out, pass.grad])
        };
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&tensors, |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let (out, grad) = (parts.of::<T>(inputs)?, parts.of::<T>(inputs + 1)?);
            let (lse, grad_lse) = match self.with_lse {
                true => (parts.of::<f32>(inputs + 2)?, parts.of::<f32>(inputs + 3)?),
                false => (&self.lse[..], &[][..]),
            };
            let (out, grad) = (backend.lend(out).wrapped()?, backend.lend(grad).wrapped()?);
            let (lse, grad_lse) = (backend.lend(lse).wrapped()?, backend.lend(grad_lse).wrapped()?);
            let saved = match self.op.weighting {
                Weighting::Softmax => TargetAttentionSaved::new(out.view(), lse.view()),
                _ => TargetAttentionSaved::none(),
            };
            let mut grad_out = TargetAttentionGradOut::new(grad.view());
            if self.with_lse {
                grad_out = grad_out.with_lse(grad_lse.view());
            }
            let (mut rows, mut numbers) = memory.views(&backend);
            let mut grads = TargetAttentionGradients::new();
            (grads.queries, grads.keys) = (rows[0].take(), rows[1].take());
            grads.values = self.values.and_then(|index| rows[index].take());
            grads.bias = self.bias.and_then(|index| numbers[index].take());
            let inputs = self.inputs(&loan);
            backend
                .target_attention_backward_into(&self.op, &self.batch, inputs, saved, grad_out, grads)
                .wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Attention<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
