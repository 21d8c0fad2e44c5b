//! Attention over a selection, and histograms of similarities.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use longseq::{
    Search, SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients, SelectedAttentionInputs,
    SelectedAttentionOutputs, Selection, SimilarityHistogram,
};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::search::{SearchTensor, SelectionTensors, Sides};
use crate::tensors::{Argument, Float, by_float, columns_of, heads_of};

const NAME: &str = "selected_attention";
/// Where the selection is among the inputs.
const POSITIONS: usize = 2;
const SCORES: usize = 3;
const COUNTS: usize = 4;

/// The inputs of attention over a selection. The types of `queries`, `keys` and `values` are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct SelectedAttentionTensors<'a> {
    /// `[M, H, d]`, or `[M, H·d]`.
    pub queries: &'a Tensor,
    /// `[N, H_kv, d]`, or `[N, H_kv·d]`: of all behaviours.
    pub keys: &'a Tensor,
    /// `[N, H_kv, d_v]`, or `[N, H_kv·d_v]`; `None`: the keys are the values.
    pub values: Option<&'a Tensor>,
    /// `[N, H]`, or `[N]` with one head. Of `f32`, or widened; so are the gammas.
    pub bias: Option<&'a Tensor>,
    /// `[H, 3]`: `γ₁`, `γ₂`, `γ₃` of each head; `None`: 1, 0, 0.
    pub gammas: Option<&'a Tensor>,
    /// What a search kept; its scores are the similarities.
    pub selection: &'a SelectionTensors,
}

impl<'a> SelectedAttentionTensors<'a> {
    /// The keys are the values, too.
    pub fn new(queries: &'a Tensor, keys: &'a Tensor, selection: &'a SelectionTensors) -> Self {
        Self { queries, keys, values: None, bias: None, gammas: None, selection }
    }

    /// Sets values of their own.
    pub fn with_values(self, values: &'a Tensor) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Adds a bias to the scores.
    pub fn with_bias(self, bias: &'a Tensor) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Sets how scores and similarities add up.
    pub fn with_gammas(self, gammas: &'a Tensor) -> Self {
        Self { gammas: Some(gammas), ..self }
    }
}

impl<B: Place> Longseq<B> {
    /// Attention over a selection, `[M, H, d_v]` (`[M, H·d_v]` where queries are `[M, H·d]`); formula: [`SelectedAttention`]. Queries, keys, values, bias, gammas and the
    /// selection's scores get gradients; the choice itself has none.
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn selected_attention(
        &self,
        op: &SelectedAttention,
        batch: &Batch<B>,
        inputs: SelectedAttentionTensors<'_>,
    ) -> Result<Tensor> {
        let (attention, tensors) = Attention::new(self, op, batch, &inputs)?;
        let rows = batch.batch().targets().rows();
        let shape = match inputs.queries.rank() {
            2 => vec![rows, op.heads * op.value_width],
            _ => vec![rows, op.heads, op.value_width],
        };
        by_float!(tensors[0].dtype(), T => {
            let out = attention.forward::<T>(&self.fork()?, &tensors)?;
            record(out, shape, tensors, attention)
        })
    }

    /// Histograms of a selection's similarities, `[M, 2n + 1]` of `u32`; formula: [`SimilarityHistogram`].
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check`]; a tensor that is not on the CPU, or of another type or shape.
    pub fn similarity_histogram(
        &self,
        op: &SimilarityHistogram,
        batch: &Batch<B>,
        selection: &SelectionTensors,
    ) -> Result<Tensor> {
        const NAME: &str = "similarity_histogram";
        let candidates = batch.batch().targets().rows();
        let [positions, scores, counts] = selection.checked(NAME, candidates, op.top_k)?;
        let (backend, inner) = (self.fork()?, self.own(NAME, batch)?);
        let kinds = [Kind::Id, Kind::Number, Kind::Id];
        read(&[positions, scores.detach(), counts], |parts| {
            let loan = Loan::<B, f32>::new(&backend, parts, &kinds)?;
            let selection = Selection::new(loan.id(0), loan.number(1), loan.id(2));
            op.check(batch.batch(), &selection).wrapped()?;
            let mut out = backend.output::<u32>(op.output_length(batch.batch()).wrapped()?).wrapped()?;
            backend
                .similarity_histogram_into(op, &inner, selection, backend.output_mut(&mut out))
                .wrapped()?;
            Tensor::from_vec(backend.finish::<u32>(out).wrapped()?, (candidates, op.bins()), &Device::Cpu)
        })
    }

    /// Histograms of the similarities of each user's newest behaviours, `[M, 2n + 1]` of `u32`; formula:
    /// [`newest_histogram_into`](longseq::SelectedOps::newest_histogram_into).
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check_newest`]; a tensor that is not on the CPU, or of another type.
    pub fn newest_histogram(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Batch<B>,
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
    ) -> Result<Tensor> {
        let (backend, inner) = (self.fork()?, self.own("newest_histogram", batch)?);
        let candidates = batch.batch().targets().rows();
        let sides = Sides::new(queries, keys, None)?;
        read(&sides.tensors, |parts| {
            let lent = sides.lend(&backend, parts)?;
            let inputs = lent.inputs();
            op.check_newest(search, batch.batch(), &inputs).wrapped()?;
            let mut out = backend.output::<u32>(op.output_length(batch.batch()).wrapped()?).wrapped()?;
            backend
                .newest_histogram_into(op, search, &inner, inputs, backend.output_mut(&mut out))
                .wrapped()?;
            Tensor::from_vec(backend.finish::<u32>(out).wrapped()?, (candidates, op.bins()), &Device::Cpu)
        })
    }
}

/// Attention over a selection in the graph. Its inputs: queries, keys, the selection, then values, bias and gammas where there are any.
struct Attention<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: SelectedAttention,
    kinds: Vec<Kind>,
    values: Option<usize>,
    bias: Option<usize>,
    gammas: Option<usize>,
}

impl<B: Place> Attention<B> {
    fn new(
        longseq: &Longseq<B>,
        op: &SelectedAttention,
        batch: &Batch<B>,
        inputs: &SelectedAttentionTensors<'_>,
    ) -> Result<(Self, Vec<Tensor>)> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let queries = heads_of(argument("queries", inputs.queries), m, op.heads, op.width)?.float()?;
        let dtype = queries.dtype();
        let keys = heads_of(argument("keys", inputs.keys), n, op.kv_heads, op.width)?.float_as(dtype)?;
        let mut tensors = vec![queries, keys];
        tensors.extend(inputs.selection.checked(NAME, m.1, op.top_k)?);
        let mut kinds = vec![Kind::Row, Kind::Row, Kind::Id, Kind::Number, Kind::Id];
        let mut add = |tensor: Tensor, kind| {
            tensors.push(tensor);
            kinds.push(kind);
            kinds.len() - 1
        };
        let (mut values, mut bias, mut gammas) = (None, None, None);
        if let Some(given) = inputs.values {
            let given = heads_of(argument("values", given), n, op.kv_heads, op.value_width)?;
            values = Some(add(given.float_as(dtype)?, Kind::Row));
        }
        if let Some(given) = inputs.bias {
            bias = Some(add(columns_of(argument("bias", given), n, ("H", op.heads))?.f32()?, Kind::Number));
        }
        if let Some(given) = inputs.gammas {
            let shape = [("H", op.heads), ("3", 3)];
            gammas = Some(add(argument("gammas", given).of_shape(&[&shape])?.f32()?, Kind::Number));
        }
        let (backend, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok((Self { backend, batch, op: *op, kinds, values, bias, gammas }, tensors))
    }

    fn inputs<'b, T: Float>(&self, loan: &'b Loan<'_, B, T>) -> SelectedAttentionInputs<'b, B::Memory, T> {
        let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
        let mut inputs = SelectedAttentionInputs::new(loan.row(0), loan.row(1), selection);
        inputs.values = self.values.map(|index| loan.row(index));
        inputs.bias = self.bias.map(|index| loan.number(index));
        inputs.gammas = self.gammas.map(|index| loan.number(index));
        inputs
    }

    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let inputs = self.inputs(&loan);
            let batch = (*self.batch).as_ref();
            self.op.check(batch, &inputs).wrapped()?;
            let mut out = backend.output::<T>(self.op.output_length(batch).wrapped()?).wrapped()?;
            let outputs = SelectedAttentionOutputs::new(backend.output_mut(&mut out));
            backend.selected_attention_into(&self.op, &self.batch, inputs, outputs).wrapped()?;
            backend.finish::<T>(out).wrapped()
        })
    }

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let grad = backend.lend(parts.of::<T>(pass.inputs.len())?).wrapped()?;
            let (mut rows, mut numbers) = memory.views(&backend);
            let mut grads = SelectedAttentionGradients::new();
            (grads.queries, grads.keys) = (rows[0].take(), rows[1].take());
            grads.similarities = numbers[SCORES].take();
            grads.values = self.values.and_then(|index| rows[index].take());
            grads.bias = self.bias.and_then(|index| numbers[index].take());
            grads.gammas = self.gammas.and_then(|index| numbers[index].take());
            let (inputs, grad_out) = (self.inputs(&loan), SelectedAttentionGradOut::new(grad.view()));
            backend.selected_attention_backward_into(&self.op, &self.batch, inputs, grad_out, grads).wrapped()
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
