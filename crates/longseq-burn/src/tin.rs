//! TIN: target attention over behaviours with temporal positions.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::{Int, Tensor};
use longseq::prelude::*;
use longseq::{Result, Tin, TinGradients, TinInputs, TinOutputs, TinSaved};

use crate::argument::{Argument, Float, by_float};
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, MemoryOf};
use crate::place::{Place, Values};

const NAME: &str = "tin";

/// The inputs of TIN. The types of `targets`, `history` and `positions` are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct TinTensors<'a> {
    /// `[M, d]`.
    pub targets: &'a Tensor<2>,
    /// `[N, d]`.
    pub history: &'a Tensor<2>,
    /// `[P, d]`: the table of positions.
    pub positions: &'a Tensor<2>,
    /// `[N]` integers below `P`; `None`: counted from the newest behaviour.
    pub history_positions: Option<&'a Tensor<1, Int>>,
    /// `[M]` integers below `P`; `None`: 0.
    pub target_positions: Option<&'a Tensor<1, Int>>,
}

impl<'a> TinTensors<'a> {
    /// Rows of candidates, of behaviours and of positions, which are counted from the newest behaviour.
    pub fn new(targets: &'a Tensor<2>, history: &'a Tensor<2>, positions: &'a Tensor<2>) -> Self {
        Self { targets, history, positions, history_positions: None, target_positions: None }
    }

    /// Gives the position of each behaviour.
    pub fn with_history_positions(self, history_positions: &'a Tensor<1, Int>) -> Self {
        Self { history_positions: Some(history_positions), ..self }
    }

    /// Gives the position of each candidate.
    pub fn with_target_positions(self, target_positions: &'a Tensor<1, Int>) -> Self {
        Self { target_positions: Some(target_positions), ..self }
    }
}

impl<P: Place> Longseq<P> {
    /// TIN, `[M, d]`; formula: [`Tin`]. Candidates, behaviours and the table of positions get gradients.
    ///
    /// # Errors
    /// Those of [`Tin::check`]; a tensor on another backend of burn, or of another type or shape.
    pub fn tin(&self, op: &Tin, batch: &Batch<P>, inputs: TinTensors<'_>) -> Result<Tensor<2>> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let d = ("d", op.width);
        let argument = |name, tensor: &Tensor<2>| Argument::new(NAME, name, tensor);
        let targets = argument("targets", inputs.targets).of_shape(&[&[m, d]])?.float()?;
        let dtype = targets.dtype();
        let history = argument("history", inputs.history).of_shape(&[&[n, d]])?.float_as(dtype)?;
        let table = argument("positions", inputs.positions).of_shape(&[&[("P", op.positions), d]])?;
        let mut tensors: Vec<Input<P>> = vec![targets, history, table.float_as(dtype)?];
        let mut kinds = vec![Kind::Row; 3];
        let given = [
            ("history_positions", inputs.history_positions, n),
            ("target_positions", inputs.target_positions, m),
        ];
        let mut places = [None; 2];
        for (place, (name, given, rows)) in places.iter_mut().zip(given) {
            if let Some(given) = given {
                tensors.push(Argument::new(NAME, name, given).of_shape(&[&[rows]])?.ids()?);
                kinds.push(Kind::Id);
                *place = Some(kinds.len() - 1);
            }
        }
        let [history_positions, target_positions] = places;
        let (place, batch) = (self.shared(), self.own(NAME, batch)?);
        let mut tin =
            TinNode { place, batch, op: *op, kinds, history_positions, target_positions, saved: None };
        let out = by_float!(dtype, T => tin.forward::<T>(&self.for_call()?, &tensors)?);
        Ok(Tensor::from_dispatch(record(out, tensors, tin)?))
    }
}

/// TIN in the graph. Its inputs: targets, history, positions, then given positions.
struct TinNode<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: Tin,
    kinds: Vec<Kind>,
    history_positions: Option<usize>,
    target_positions: Option<usize>,
    /// What the backward pass needs: `[M, d]`, `[M]`.
    saved: Option<(Values<P>, Values<P>)>,
}

impl<P: Place> TinNode<P> {
    fn inputs<'b, T: Float>(&self, loan: &'b Loan<'_, P, T>) -> TinInputs<'b, MemoryOf<P>, T> {
        let mut inputs = TinInputs::new(loan.row(0), loan.row(1), loan.row(2));
        inputs.history_positions = self.history_positions.map(|index| loan.id(index));
        inputs.target_positions = self.target_positions.map(|index| loan.id(index));
        inputs
    }

    /// The output; what the backward pass needs is kept.
    fn forward<T: Float>(&mut self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let inputs = self.inputs(&loan);
        let batch = (*self.batch).as_ref();
        self.op.check(batch, &inputs)?;
        let (length, candidates) = (self.op.output_length(batch)?, batch.targets().rows());
        let mut out = place.output::<T>(length)?;
        let mut pooled = place.output::<T>(length)?;
        let mut lse = place.output::<f32>(candidates)?;
        let outputs = TinOutputs::new(place.output_mut(&mut out))
            .with_saved(place.output_mut(&mut pooled), place.output_mut(&mut lse));
        place.backend().tin_into(&self.op, &self.batch, inputs, outputs)?;
        let shape = vec![candidates, self.op.width];
        let saved = (place.finish::<T>(pooled, shape.clone())?, place.finish::<f32>(lse, vec![candidates])?);
        self.saved = Some(saved);
        place.finish::<T>(out, shape)
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        if let Some((pooled, lse)) = &self.saved {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let grad = place.lend::<T>(pass.grad)?;
            let (pooled, lse) = (place.lend::<T>(pooled)?, place.lend::<f32>(lse)?);
            let saved = TinSaved::new(pooled.view(), lse.view());
            let (mut rows, _) = memory.views(&place);
            let mut grads = TinGradients::new();
            (grads.targets, grads.history) = (rows[0].take(), rows[1].take());
            grads.positions = rows[2].take();
            let inputs = self.inputs(&loan);
            place.backend().tin_backward_into(&self.op, &self.batch, inputs, saved, grad.view(), grads)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for TinNode<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
