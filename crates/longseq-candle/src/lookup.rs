//! Look-ups in embedding tables, of bags or of single ids.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{Bags, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupOutputs, LookupSaved};

use crate::error::{Wrapped, wrong};
use crate::handle::{JaggedRows, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::tables::{TableTensor, Tables, views};
use crate::tensors::{Argument, columns_of};

const NAME: &str = "lookup";

/// The inputs of a look-up.
#[derive(Clone, Copy)]
pub struct LookupTensors<'a> {
    /// `[N, F]` integers, or `[N]` with one table. `u32` is read as it is; other types are converted, and a negative id is one outside
    /// of the table, as padding is.
    pub ids: &'a Tensor,
    /// `F` tables.
    pub tables: &'a [TableTensor<'a>],
    /// `[N, F]`, or `[N]`: a factor on the row of each id, for [`Bags::Sum`]. Of `f32`, or widened.
    pub weights: Option<&'a Tensor>,
}

impl<'a> LookupTensors<'a> {
    /// Ids and the tables that they are looked up in.
    pub fn new(ids: &'a Tensor, tables: &'a [TableTensor<'a>]) -> Self {
        Self { ids, tables, weights: None }
    }

    /// Multiplies the row of each id by a weight.
    pub fn with_weights(self, weights: &'a Tensor) -> Self {
        Self { weights: Some(weights), ..self }
    }
}

impl<B: Place> Longseq<B> {
    /// Rows of tables, or their sums or means over bags, `[N or bags, Σ width]` of `f32`; formula: [`Lookup`]. Tables and weights get gradients.
    ///
    /// Without bags (`Bags::Each`) each row of ids gives a row.
    ///
    /// # Errors
    /// Those of [`Lookup::check`], in longseq's words; [`IndexOutOfRange`](longseq::Error::IndexOutOfRange) by [`longseq::IdPolicy`]; a
    /// tensor that is not on the CPU, or of another type or shape.
    pub fn lookup(
        &self,
        op: &Lookup,
        bags: Bags<'_, JaggedRows<B>>,
        inputs: LookupTensors<'_>,
    ) -> Result<Tensor> {
        let own = |bags| self.own_rows(NAME, "bags", bags);
        let bags: OwnBags<B> = match bags {
            Bags::Each => OwnBags::Each,
            Bags::Sum(bags) => OwnBags::Sum(own(bags)?),
            Bags::Mean(bags) => OwnBags::Mean(own(bags)?),
            _ => return Err(wrong(NAME, "bags", "each, sum or mean", "another kind")),
        };
        let n = match &bags {
            OwnBags::Each => inputs.ids.dims().first().copied().unwrap_or(0),
            OwnBags::Sum(bags) | OwnBags::Mean(bags) => (**bags).as_ref().rows(),
        };
        let (n, features) = (("N", n), ("F", inputs.tables.len()));
        let ids = columns_of(Argument::new(NAME, "ids", inputs.ids), n, features)?.ids()?;
        let (mut tensors, mut kinds) = (vec![ids], vec![Kind::Id]);
        if let Some(weights) = inputs.weights {
            let weights = Argument::new(NAME, "weights", weights);
            tensors.push(columns_of(weights, n, features)?.f32()?);
            kinds.push(Kind::Number);
        }
        let tables = Tables::new(NAME, "tables", inputs.tables, &mut tensors, &mut kinds)?;
        let (backend, op, is_weighted) = (self.shared(), *op, inputs.weights.is_some());
        let node = LookupNode { backend, bags, op, kinds, tables, is_weighted };
        let (rows, out) = node.forward(&self.fork()?, &tensors)?;
        record(out, (rows, node.tables.width()), tensors, node)
    }
}

/// Bags that stay in a graph.
enum OwnBags<B: Place> {
    Each,
    Sum(Arc<B::Jagged>),
    Mean(Arc<B::Jagged>),
}

impl<B: Place> OwnBags<B> {
    fn bags(&self) -> Bags<'_, B::Jagged> {
        match self {
            Self::Each => Bags::Each,
            Self::Sum(bags) => Bags::Sum(bags),
            Self::Mean(bags) => Bags::Mean(bags),
        }
    }
}

/// A look-up in the graph. Its inputs: ids, weights if there are any, tables.
struct LookupNode<B: Place> {
    backend: Arc<B>,
    bags: OwnBags<B>,
    op: Lookup,
    kinds: Vec<Kind>,
    tables: Tables,
    is_weighted: bool,
}

impl<B: Place> LookupNode<B> {
    /// The number of rows, and the rows.
    fn forward(&self, backend: &B, tensors: &[Tensor]) -> Result<(usize, Vec<f32>)> {
        read(tensors, |parts| {
            let loan = Loan::<B, f32>::new(backend, parts, &self.kinds)?;
            let lent = self.tables.lend(backend, parts)?;
            let tables = views(&lent);
            let mut inputs = LookupInputs::new(loan.id(0), &tables);
            inputs.weights = self.is_weighted.then(|| loan.number(1));
            let rows = self.op.check(&self.bags.bags(), &inputs).wrapped()?;
            let mut out = backend.output::<f32>(self.op.output_length(rows, &tables).wrapped()?).wrapped()?;
            let outputs = LookupOutputs::new(backend.output_mut(&mut out));
            backend.lookup_into(&self.op, self.bags.bags(), inputs, outputs).wrapped()?;
            Ok((rows, backend.finish::<f32>(out).wrapped()?))
        })
    }
}

impl<B: Place> Backward for LookupNode<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let used = match &self.bags {
            OwnBags::Each => pass.out.dim(0)?,
            OwnBags::Sum(bags) | OwnBags::Mean(bags) => (**bags).as_ref().total(),
        };
        let mut memory = GradientMemory::<B, f32>::new(&backend, pass, &self.kinds)?;
        let mut table_memory = self.tables.gradient_memory(&backend, pass, used)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, f32>::new(&backend, parts, &self.kinds)?;
            let lent = self.tables.lend(&backend, parts)?;
            let tables = views(&lent);
            let mut inputs = LookupInputs::new(loan.id(0), &tables);
            inputs.weights = self.is_weighted.then(|| loan.number(1));
            let grad = backend.lend(parts.of::<f32>(pass.inputs.len())?).wrapped()?;
            let (_, mut numbers) = memory.views(&backend);
            let mut grads = LookupGradients::new();
            grads.tables = table_memory.views(&backend);
            grads.weights = if self.is_weighted { numbers[1].take() } else { None };
            let (saved, grad_out) = (LookupSaved::new(), LookupGradOut::new(grad.view()));
            backend.lookup_backward_into(&self.op, self.bags.bags(), inputs, saved, grad_out, grads).wrapped()
        })?;
        let mut grads = memory.finish(&backend, pass)?;
        self.tables.finish(table_memory, &backend, pass, &mut grads)?;
        Ok(grads)
    }
}
