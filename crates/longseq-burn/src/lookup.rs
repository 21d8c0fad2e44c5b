//! Look-ups in embedding tables, of bags or of single ids.

use std::sync::Arc;

use burn_core::tensor::{Int, Tensor};
use longseq::prelude::*;
use longseq::{
    Bags, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupOutputs, LookupSaved, Result,
};

use crate::argument::Argument;
use crate::error::wrong;
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::{JaggedRows, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::{Place, Values};
use crate::tables::{Tables, views};

const NAME: &str = "lookup";

/// The inputs of a look-up.
#[derive(Clone, Copy)]
pub struct LookupTensors<'a> {
    /// `[N, F]`. `u32`, and `i32` of which none is negative, are read as they are; other types are converted, and a negative id is one outside
    /// of the table, as padding is.
    pub ids: &'a Tensor<2, Int>,
    /// `F` tables `[rows, width]` of `f32`, `f16` or `bf16`.
    pub tables: &'a [&'a Tensor<2>],
    /// `[N, F]`: a factor on the row of each id, for [`Bags::Sum`]. Of `f32`, or widened.
    pub weights: Option<&'a Tensor<2>>,
}

impl<'a> LookupTensors<'a> {
    /// Ids and the tables that they are looked up in.
    pub fn new(ids: &'a Tensor<2, Int>, tables: &'a [&'a Tensor<2>]) -> Self {
        Self { ids, tables, weights: None }
    }

    /// Multiplies the row of each id by a weight.
    pub fn with_weights(self, weights: &'a Tensor<2>) -> Self {
        Self { weights: Some(weights), ..self }
    }
}

impl<P: Place> Longseq<P> {
    /// Rows of tables, or their sums or means over bags, `[N or bags, Σ width]` of `f32`; formula: [`Lookup`]. Tables and weights get gradients;
    /// that of a table is as large as the table.
    ///
    /// Without bags (`Bags::Each`) each row of ids gives a row.
    ///
    /// # Errors
    /// Those of [`Lookup::check`]; [`IndexOutOfRange`](longseq::Error::IndexOutOfRange) by [`longseq::IdPolicy`]; a tensor on another backend of
    /// burn, or of another type or shape.
    pub fn lookup(
        &self,
        op: &Lookup,
        bags: Bags<'_, JaggedRows<P>>,
        inputs: LookupTensors<'_>,
    ) -> Result<Tensor<2>> {
        let own = |bags| self.own_rows(NAME, "bags", bags);
        let bags: OwnBags<P> = match bags {
            Bags::Each => OwnBags::Each,
            Bags::Sum(bags) => OwnBags::Sum(own(bags)?),
            Bags::Mean(bags) => OwnBags::Mean(own(bags)?),
            _ => return Err(wrong(NAME, "bags", "each, sum or mean", "another kind")),
        };
        let n = match &bags {
            OwnBags::Each => inputs.ids.dims()[0],
            OwnBags::Sum(bags) | OwnBags::Mean(bags) => (**bags).as_ref().rows(),
        };
        let shape = [("N", n), ("F", inputs.tables.len())];
        let ids = Argument::new(NAME, "ids", inputs.ids).of_shape(&[&shape])?.ids()?;
        let (mut tensors, mut kinds) = (vec![ids], vec![Kind::Id]);
        if let Some(weights) = inputs.weights {
            tensors.push(Argument::new(NAME, "weights", weights).of_shape(&[&shape])?.f32()?);
            kinds.push(Kind::Number);
        }
        let tables = Tables::new(NAME, "tables", inputs.tables, &mut tensors, &mut kinds)?;
        let (place, op, is_weighted) = (self.shared(), *op, inputs.weights.is_some());
        let node = LookupNode { place, bags, op, kinds, tables, is_weighted };
        let out = node.forward(&self.for_call()?, &tensors)?;
        Ok(Tensor::from_dispatch(record(out, tensors, node)?))
    }
}

/// Bags that stay in a graph.
enum OwnBags<P: Place> {
    Each,
    Sum(Arc<<P::Backend as DeviceOps>::Jagged>),
    Mean(Arc<<P::Backend as DeviceOps>::Jagged>),
}

impl<P: Place> OwnBags<P> {
    fn bags(&self) -> Bags<'_, <P::Backend as DeviceOps>::Jagged> {
        match self {
            Self::Each => Bags::Each,
            Self::Sum(bags) => Bags::Sum(bags),
            Self::Mean(bags) => Bags::Mean(bags),
        }
    }
}

/// A look-up in the graph. Its inputs: ids, weights if there are any, tables.
struct LookupNode<P: Place> {
    place: Arc<P>,
    bags: OwnBags<P>,
    op: Lookup,
    kinds: Vec<Kind>,
    tables: Tables,
    is_weighted: bool,
}

impl<P: Place> LookupNode<P> {
    fn forward(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, f32>::new(place, &tensors, &self.kinds)?;
        let lent = self.tables.lend(place, &tensors)?;
        let tables = views(&lent);
        let mut inputs = LookupInputs::new(loan.id(0), &tables);
        inputs.weights = self.is_weighted.then(|| loan.number(1));
        let rows = self.op.check(&self.bags.bags(), &inputs)?;
        let mut out = place.output::<f32>(self.op.output_length(rows, &tables)?)?;
        let outputs = LookupOutputs::new(place.output_mut(&mut out));
        place.backend().lookup_into(&self.op, self.bags.bags(), inputs, outputs)?;
        place.finish::<f32>(out, vec![rows, self.tables.width()])
    }
}

impl<P: Place> Differentiate<P> for LookupNode<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, f32>::new(&place, pass, &self.kinds)?;
        let mut table_memory = self.tables.gradient_memory(&place, pass)?;
        {
            let loan = Loan::<P, f32>::new(&place, pass.inputs, &self.kinds)?;
            let lent = self.tables.lend(&place, pass.inputs)?;
            let tables = views(&lent);
            let mut inputs = LookupInputs::new(loan.id(0), &tables);
            inputs.weights = self.is_weighted.then(|| loan.number(1));
            let grad = place.lend::<f32>(pass.grad)?;
            let (_, mut numbers) = memory.views(&place);
            let mut grads = LookupGradients::new();
            grads.tables = table_memory.views(&place);
            grads.weights = if self.is_weighted { numbers[1].take() } else { None };
            let (saved, grad_out) = (LookupSaved::new(), LookupGradOut::new(grad.view()));
            let bags = self.bags.bags();
            place.backend().lookup_backward_into(&self.op, bags, inputs, saved, grad_out, grads)?;
        }
        let mut grads = memory.finish(&place, pass)?;
        self.tables.finish(table_memory, &place, &mut grads)?;
        Ok(grads)
    }
}
