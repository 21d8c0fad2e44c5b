//! TIN: target attention over behaviours with temporal positions.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{Tin, TinGradients, TinInputs, TinOutputs, TinSaved};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::tensors::{Argument, Float, by_float, columns_of};

const NAME: &str = "tin";

/// The inputs of TIN. The types of `targets`, `history` and `positions` are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct TinTensors<'a> {
    /// `[M, d]`.
    pub targets: &'a Tensor,
    /// `[N, d]`.
    pub history: &'a Tensor,
    /// `[P, d]`: the table of positions.
    pub positions: &'a Tensor,
    /// `[N]` integers below `P`; `None`: counted from the newest behaviour.
    pub history_positions: Option<&'a Tensor>,
    /// `[M]` integers below `P`; `None`: 0.
    pub target_positions: Option<&'a Tensor>,
}

impl<'a> TinTensors<'a> {
    /// Rows of candidates, of behaviours and of positions, which are counted from the newest behaviour.
    pub fn new(targets: &'a Tensor, history: &'a Tensor, positions: &'a Tensor) -> Self {
        Self { targets, history, positions, history_positions: None, target_positions: None }
    }

    /// Gives the position of each behaviour.
    pub fn with_history_positions(self, history_positions: &'a Tensor) -> Self {
        Self { history_positions: Some(history_positions), ..self }
    }

    /// Gives the position of each candidate.
    pub fn with_target_positions(self, target_positions: &'a Tensor) -> Self {
        Self { target_positions: Some(target_positions), ..self }
    }
}

impl<B: Place> Longseq<B> {
    /// TIN, `[M, d]`; formula: [`Tin`]. Candidates, behaviours and the table of positions get gradients.
    ///
    /// # Errors
    /// Those of [`Tin::check`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn tin(&self, op: &Tin, batch: &Batch<B>, inputs: TinTensors<'_>) -> Result<Tensor> {
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let d = ("d", op.width);
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let targets = argument("targets", inputs.targets).of_shape(&[&[m, d]])?.float()?;
        let dtype = targets.dtype();
        let history = argument("history", inputs.history).of_shape(&[&[n, d]])?.float_as(dtype)?;
        let table = argument("positions", inputs.positions).of_shape(&[&[("P", op.positions), d]])?;
        let mut tensors = vec![targets, history, table.float_as(dtype)?];
        let mut kinds = vec![Kind::Row; 3];
        let given = [
            ("history_positions", inputs.history_positions, n),
            ("target_positions", inputs.target_positions, m),
        ];
        let mut places = [None; 2];
        for (place, (name, given, rows)) in places.iter_mut().zip(given) {
            if let Some(given) = given {
                tensors.push(columns_of(argument(name, given), rows, ("1", 1))?.ids()?);
                kinds.push(Kind::Id);
                *place = Some(kinds.len() - 1);
            }
        }
        let [history_positions, target_positions] = places;
        let (backend, batch) = (self.shared(), self.own(NAME, batch)?);
        let op = *op;
        by_float!(dtype, T => {
            let mut tin = TinNode::<B, T> {
                backend, batch, op, kinds, history_positions, target_positions, pooled: Vec::new(), lse: Vec::new(),
            };
            let out = tin.forward(&self.fork()?, &tensors)?;
            record(out, (m.1, d.1), tensors, tin)
        })
    }
}

/// TIN in the graph. Its inputs: targets, history, positions, then given positions.
struct TinNode<B: Place, T> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: Tin,
    kinds: Vec<Kind>,
    history_positions: Option<usize>,
    target_positions: Option<usize>,
    /// `[M, d]`.
    pooled: Vec<T>,
    /// `[M]`.
    lse: Vec<f32>,
}

impl<B: Place, T: Float> TinNode<B, T> {
    fn inputs<'b>(&self, loan: &'b Loan<'_, B, T>) -> TinInputs<'b, B::Memory, T> {
        let mut inputs = TinInputs::new(loan.row(0), loan.row(1), loan.row(2));
        inputs.history_positions = self.history_positions.map(|index| loan.id(index));
        inputs.target_positions = self.target_positions.map(|index| loan.id(index));
        inputs
    }

    /// The output; what the backward pass needs is kept.
    fn forward(&mut self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        let (out, pooled, lse) = read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let inputs = self.inputs(&loan);
            let batch = (*self.batch).as_ref();
            self.op.check(batch, &inputs).wrapped()?;
            let length = self.op.output_length(batch).wrapped()?;
            let mut out = backend.output::<T>(length).wrapped()?;
            let mut pooled = backend.output::<T>(length).wrapped()?;
            let mut lse = backend.output::<f32>(batch.targets().rows()).wrapped()?;
            let outputs = TinOutputs::new(backend.output_mut(&mut out))
                .with_saved(backend.output_mut(&mut pooled), backend.output_mut(&mut lse));
            backend.tin_into(&self.op, &self.batch, inputs, outputs).wrapped()?;
            let finish = |output| backend.finish::<T>(output).wrapped();
            Ok((finish(out)?, finish(pooled)?, backend.finish::<f32>(lse).wrapped()?))
        })?;
        (self.pooled, self.lse) = (pooled, lse);
        Ok(out)
    }
}

impl<B: Place, T: Float> Backward for TinNode<B, T> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let tensors = pass.inputs_and(&[pass.grad]);
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&tensors, |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let grad = backend.lend(parts.of::<T>(pass.inputs.len())?).wrapped()?;
            let pooled = backend.lend(&self.pooled[..]).wrapped()?;
            let lse = backend.lend(&self.lse[..]).wrapped()?;
            let saved = TinSaved::new(pooled.view(), lse.view());
            let (mut rows, _) = memory.views(&backend);
            let mut grads = TinGradients::new();
            (grads.targets, grads.history) = (rows[0].take(), rows[1].take());
            grads.positions = rows[2].take();
            let inputs = self.inputs(&loan);
            backend.tin_backward_into(&self.op, &self.batch, inputs, saved, grad.view(), grads).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}
