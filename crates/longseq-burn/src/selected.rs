//! Attention over a selection, and histograms of similarities.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::{Int, Tensor};
use longseq::prelude::*;
use longseq::{
    Result, Search, SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients,
    SelectedAttentionInputs, SelectedAttentionOutputs, Selection, SimilarityHistogram,
};

use crate::argument::{Argument, Float, by_float, heads_of};
use crate::graph::{Differentiate, Input, Pass, plain, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, MemoryOf};
use crate::place::{Place, Values};
use crate::search::{SearchTensor, SelectionTensors, Sides};

const NAME: &str = "selected_attention";
/// Where the selection is among the inputs.
const POSITIONS: usize = 2;
const SCORES: usize = 3;
const COUNTS: usize = 4;

/// The inputs of attention over a selection: rows with their heads apart (`D` = 3) or side by side (`D` = 2). The types of `queries`, `keys` and
/// `values` are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct SelectedAttentionTensors<'a, const D: usize> {
    /// `[M, H, d]`, or `[M, H·d]`.
    pub queries: &'a Tensor<D>,
    /// `[N, H_kv, d]`, or `[N, H_kv·d]`: of all behaviours.
    pub keys: &'a Tensor<D>,
    /// `[N, H_kv, d_v]`, or `[N, H_kv·d_v]`; `None`: the keys are the values.
    pub values: Option<&'a Tensor<D>>,
    /// `[N, H]`. Of `f32`, or widened; so are the gammas.
    pub bias: Option<&'a Tensor<2>>,
    /// `[H, 3]`: `γ₁`, `γ₂`, `γ₃` of each head; `None`: 1, 0, 0.
    pub gammas: Option<&'a Tensor<2>>,
    /// What a search kept; its scores are the similarities.
    pub selection: &'a SelectionTensors,
}

impl<'a, const D: usize> SelectedAttentionTensors<'a, D> {
    /// The keys are the values, too.
    pub fn new(queries: &'a Tensor<D>, keys: &'a Tensor<D>, selection: &'a SelectionTensors) -> Self {
        Self { queries, keys, values: None, bias: None, gammas: None, selection }
    }

    /// Sets values of their own.
    pub fn with_values(self, values: &'a Tensor<D>) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Adds a bias to the scores.
    pub fn with_bias(self, bias: &'a Tensor<2>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Sets how scores and similarities add up.
    pub fn with_gammas(self, gammas: &'a Tensor<2>) -> Self {
        Self { gammas: Some(gammas), ..self }
    }
}

impl<P: Place> Longseq<P> {
    /// Attention over a selection, `[M, H, d_v]` (`[M, H·d_v]` where queries are `[M, H·d]`); formula: [`SelectedAttention`]. Queries, keys, values,
    /// bias, gammas and the selection's scores get gradients; the choice itself has none.
    ///
    /// # Errors
    /// Those of [`SelectedAttention::check`]; a tensor on another backend of burn, or of another type or shape.
    pub fn selected_attention<const D: usize>(
        &self,
        op: &SelectedAttention,
        batch: &Batch<P>,
        inputs: SelectedAttentionTensors<'_, D>,
    ) -> Result<Tensor<D>> {
        let (attention, tensors) = Attention::new(self, op, batch, &inputs)?;
        let rows = batch.batch().targets().rows();
        let shape = match D {
            1 => vec![rows],
            2 => vec![rows, op.heads * op.value_width],
            _ => vec![rows, op.heads, op.value_width],
        };
        by_float!(tensors[0].dtype(), T => {
            let out = attention.forward::<T>(&self.for_call()?, &tensors, shape)?;
            Ok(Tensor::from_dispatch(record(out, tensors, attention)?))
        })
    }

    /// Histograms of a selection's similarities, `[M, 2n + 1]` of `u32`; formula: [`SimilarityHistogram`].
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check`]; a tensor on another backend of burn, or of another type or shape.
    pub fn similarity_histogram(
        &self,
        op: &SimilarityHistogram,
        batch: &Batch<P>,
        selection: &SelectionTensors,
    ) -> Result<Tensor<2, Int>> {
        const NAME: &str = "similarity_histogram";
        let candidates = batch.batch().targets().rows();
        let tensors = values(&selection.checked::<P>(NAME, candidates, op.top_k)?);
        let (place, inner) = (self.for_call()?, self.own(NAME, batch)?);
        let loan = Loan::<P, f32>::new(&place, &tensors, &[Kind::Id, Kind::Number, Kind::Id])?;
        let selection = Selection::new(loan.id(0), loan.number(1), loan.id(2));
        op.check(batch.batch(), &selection)?;
        let mut out = place.output::<u32>(op.output_length(batch.batch())?)?;
        place.backend().similarity_histogram_into(op, &inner, selection, place.output_mut(&mut out))?;
        Ok(plain::<P, 2, _>(place.finish::<u32>(out, vec![candidates, op.bins()])?))
    }

    /// Histograms of the similarities of each user's newest behaviours, `[M, 2n + 1]` of `u32`; formula:
    /// [`newest_histogram_into`](longseq::SelectedOps::newest_histogram_into).
    ///
    /// # Errors
    /// Those of [`SimilarityHistogram::check_newest`]; a tensor on another backend of burn, or of another type.
    pub fn newest_histogram(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &Batch<P>,
        queries: SearchTensor<'_>,
        keys: SearchTensor<'_>,
    ) -> Result<Tensor<2, Int>> {
        let (place, inner) = (self.for_call()?, self.own("newest_histogram", batch)?);
        let candidates = batch.batch().targets().rows();
        let sides = Sides::<P>::new(queries, keys, None)?;
        let lent = sides.lend(&place)?;
        let inputs = lent.inputs();
        op.check_newest(search, batch.batch(), &inputs)?;
        let mut out = place.output::<u32>(op.output_length(batch.batch())?)?;
        let view = place.output_mut(&mut out);
        place.backend().newest_histogram_into(op, search, &inner, inputs, view)?;
        Ok(plain::<P, 2, _>(place.finish::<u32>(out, vec![candidates, op.bins()])?))
    }
}

/// Attention over a selection in the graph. Its inputs: queries, keys, the selection, then values, bias and gammas where there are any.
struct Attention<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: SelectedAttention,
    kinds: Vec<Kind>,
    values: Option<usize>,
    bias: Option<usize>,
    gammas: Option<usize>,
}

impl<P: Place> Attention<P> {
    fn new<const D: usize>(
        longseq: &Longseq<P>,
        op: &SelectedAttention,
        batch: &Batch<P>,
        inputs: &SelectedAttentionTensors<'_, D>,
    ) -> Result<(Self, Vec<Input<P>>)> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let argument = |name, tensor: &Tensor<D>| Argument::new(NAME, name, tensor);
        let queries = heads_of(argument("queries", inputs.queries), m, op.heads, op.width)?.float()?;
        let dtype = queries.dtype();
        let keys = heads_of(argument("keys", inputs.keys), n, op.kv_heads, op.width)?.float_as(dtype)?;
        let mut tensors = vec![queries, keys];
        tensors.extend(inputs.selection.checked(NAME, m.1, op.top_k)?);
        let mut kinds = vec![Kind::Row, Kind::Row, Kind::Id, Kind::Number, Kind::Id];
        let mut add = |tensor: Input<P>, kind| {
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
            let given = Argument::new(NAME, "bias", given).of_shape(&[&[n, ("H", op.heads)]])?;
            bias = Some(add(given.f32()?, Kind::Number));
        }
        if let Some(given) = inputs.gammas {
            let shape = [("H", op.heads), ("3", 3)];
            let given = Argument::new(NAME, "gammas", given).of_shape(&[&shape])?;
            gammas = Some(add(given.f32()?, Kind::Number));
        }
        let (place, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok((Self { place, batch, op: *op, kinds, values, bias, gammas }, tensors))
    }

    fn inputs<'b, T: Float>(&self, loan: &'b Loan<'_, P, T>) -> SelectedAttentionInputs<'b, MemoryOf<P>, T> {
        let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
        let mut inputs = SelectedAttentionInputs::new(loan.row(0), loan.row(1), selection);
        inputs.values = self.values.map(|index| loan.row(index));
        inputs.bias = self.bias.map(|index| loan.number(index));
        inputs.gammas = self.gammas.map(|index| loan.number(index));
        inputs
    }

    fn forward<T: Float>(&self, place: &P, tensors: &[Input<P>], shape: Vec<usize>) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let inputs = self.inputs(&loan);
        let batch = (*self.batch).as_ref();
        self.op.check(batch, &inputs)?;
        let mut out = place.output::<T>(self.op.output_length(batch)?)?;
        let outputs = SelectedAttentionOutputs::new(place.output_mut(&mut out));
        place.backend().selected_attention_into(&self.op, &self.batch, inputs, outputs)?;
        place.finish::<T>(out, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let grad = place.lend::<T>(pass.grad)?;
            let (mut rows, mut numbers) = memory.views(&place);
            let mut grads = SelectedAttentionGradients::new();
            (grads.queries, grads.keys) = (rows[0].take(), rows[1].take());
            grads.similarities = numbers[SCORES].take();
            grads.values = self.values.and_then(|index| rows[index].take());
            grads.bias = self.bias.and_then(|index| numbers[index].take());
            grads.gammas = self.gammas.and_then(|index| numbers[index].take());
            let (inputs, grad_out) = (self.inputs(&loan), SelectedAttentionGradOut::new(grad.view()));
            place.backend().selected_attention_backward_into(
                &self.op,
                &self.batch,
                inputs,
                grad_out,
                grads,
            )?;
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
