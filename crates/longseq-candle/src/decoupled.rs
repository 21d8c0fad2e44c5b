//! Decoupled embeddings: search in attention tables, aggregation of representation tables.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{
    AggregateGradients, AggregateInputs, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledSaved,
    SearchGradients, SearchInputs, Selection,
};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::search::{SelectionOutput, SelectionTensors};
use crate::tables::{TableTensor, Tables, views};
use crate::tensors::{Argument, columns_of};

const SEARCH: &str = "decoupled_search";
const AGGREGATE: &str = "decoupled_aggregate";
const ATTEND: &str = "decoupled_attend";
/// Where the ids are among the inputs, and a selection after them.
const HISTORY_IDS: usize = 0;
const TARGET_IDS: usize = 1;
const POSITIONS: usize = 2;
const SCORES: usize = 3;
const COUNTS: usize = 4;

/// The ids of behaviours and candidates, integers; see [`LookupTensors::ids`](crate::LookupTensors::ids).
#[derive(Clone, Copy)]
pub struct IdTensors<'a> {
    /// `[N, F]`, or `[N]` with one feature.
    pub history: &'a Tensor,
    /// `[M, F]`, or `[M]`.
    pub targets: &'a Tensor,
}

impl<'a> IdTensors<'a> {
    /// Ids of behaviours, and of candidates.
    pub fn new(history: &'a Tensor, targets: &'a Tensor) -> Self {
        Self { history, targets }
    }

    fn checked(
        &self,
        operation: &'static str,
        batch: &longseq::Batch,
        features: usize,
    ) -> Result<Vec<Tensor>> {
        let (n, m) = (("N", batch.histories().rows()), ("M", batch.targets().rows()));
        let (history, features) = (Argument::new(operation, "history_ids", self.history), ("F", features));
        let targets = Argument::new(operation, "target_ids", self.targets);
        Ok(vec![columns_of(history, n, features)?.ids()?, columns_of(targets, m, features)?.ids()?])
    }
}

impl<B: Place> Longseq<B> {
    /// The best behaviours of each candidate by the scores of attention tables, one for each feature; formula: [`Decoupled`]. The
    /// selection's `scores` are in the graph: through them the tables get gradients.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Batch<B>,
        attention: &[TableTensor<'_>],
        ids: IdTensors<'_>,
    ) -> Result<SelectionTensors> {
        let mut tensors = ids.checked(SEARCH, batch.batch(), op.features())?;
        let mut kinds = vec![Kind::Id; 2];
        let attention = Tables::new(SEARCH, "attention", attention, &mut tensors, &mut kinds)?;
        let mut node = Node::new(self, SEARCH, op, batch, kinds, Some(attention), None)?;
        let kept = node.search(&self.fork()?, &tensors)?;
        let shape = kept.scores.shape().clone();
        node.kept = Some((kept.positions.clone(), kept.counts.clone()));
        let scores = kept.scores.flatten_all()?.to_vec1::<f32>()?;
        Ok(SelectionTensors { scores: record(scores, shape, tensors, Searched(node))?, ..kept })
    }

    /// The softmax-weighted sum of the representations that a selection keeps, `[M, Σ r]` of `f32`; formula: [`Decoupled`]. Tables, one for
    /// each feature, and the selection's scores get gradients.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_aggregate`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn decoupled_aggregate(
        &self,
        op: &Decoupled,
        batch: &Batch<B>,
        representation: &[TableTensor<'_>],
        ids: IdTensors<'_>,
        selection: &SelectionTensors,
    ) -> Result<Tensor> {
        let candidates = batch.batch().targets().rows();
        let mut tensors = ids.checked(AGGREGATE, batch.batch(), op.features())?;
        // Without a `top_k` longseq says that it needs one.
        let top_k = op.top_k.unwrap_or(selection.scores.dims().last().copied().unwrap_or(0));
        tensors.extend(selection.checked(AGGREGATE, candidates, top_k)?);
        let mut kinds = vec![Kind::Id, Kind::Id, Kind::Id, Kind::Number, Kind::Id];
        let tables = Tables::new(AGGREGATE, "representation", representation, &mut tensors, &mut kinds)?;
        let shape = (candidates, tables.width());
        let node = Node::new(self, AGGREGATE, op, batch, kinds, None, Some(tables))?;
        let out = node.aggregate(&self.fork()?, &tensors)?;
        record(out, shape, tensors, Aggregated(node))
    }

    /// Search and aggregation, `[M, Σ r]` of `f32`; formula: [`Decoupled`]. Both sets of tables get gradients.
    ///
    /// With a `top_k` this is [`decoupled_search`](Self::decoupled_search) and [`decoupled_aggregate`](Self::decoupled_aggregate), so that
    /// the backward pass need not search again; without, all behaviours count, in one call.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`], in longseq's words; a tensor that is not on the CPU, or of another type or shape.
    pub fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Batch<B>,
        attention: &[TableTensor<'_>],
        representation: &[TableTensor<'_>],
        ids: IdTensors<'_>,
    ) -> Result<Tensor> {
        if op.top_k.is_some() {
            let kept = self.decoupled_search(op, batch, attention, ids)?;
            return self.decoupled_aggregate(op, batch, representation, ids, &kept);
        }
        let mut tensors = ids.checked(ATTEND, batch.batch(), op.features())?;
        let mut kinds = vec![Kind::Id; 2];
        let attention = Tables::new(ATTEND, "attention", attention, &mut tensors, &mut kinds)?;
        let tables = Tables::new(ATTEND, "representation", representation, &mut tensors, &mut kinds)?;
        let shape = (batch.batch().targets().rows(), tables.width());
        let node = Node::new(self, ATTEND, op, batch, kinds, Some(attention), Some(tables))?;
        let out = node.attend(&self.fork()?, &tensors)?;
        record(out, shape, tensors, Attended(node))
    }
}

/// An operation in the graph. Its inputs: ids of behaviours and candidates, a selection if there is one, tables.
struct Node<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: Decoupled,
    kinds: Vec<Kind>,
    attention: Tables,
    representation: Tables,
    /// What the search kept: positions and counts.
    kept: Option<(Tensor, Tensor)>,
}

struct Searched<B: Place>(Node<B>);
struct Aggregated<B: Place>(Node<B>);
struct Attended<B: Place>(Node<B>);

impl<B: Place> Node<B> {
    fn new(
        longseq: &Longseq<B>,
        operation: &'static str,
        op: &Decoupled,
        batch: &Batch<B>,
        kinds: Vec<Kind>,
        attention: Option<Tables>,
        representation: Option<Tables>,
    ) -> Result<Self> {
        let (backend, batch) = (longseq.shared(), longseq.own(operation, batch)?);
        let (attention, representation) = (attention.unwrap_or_default(), representation.unwrap_or_default());
        Ok(Self { backend, batch, op: op.clone(), kinds, attention, representation, kept: None })
    }

    fn search(&self, backend: &B, tensors: &[Tensor]) -> Result<SelectionTensors> {
        read(tensors, |parts| {
            let loan = Loan::<B, f32>::new(backend, parts, &self.kinds)?;
            let lent = self.attention.lend(backend, parts)?;
            let tables = views(&lent);
            let inputs = SearchInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let batch = (*self.batch).as_ref();
            let top_k = self.op.check_search(batch, &inputs).wrapped()?;
            let length = self.op.selection_length(batch).wrapped()?;
            let mut output = SelectionOutput::new(backend, length, batch.targets().rows())?;
            backend.decoupled_search_into(&self.op, &self.batch, inputs, output.out(backend)).wrapped()?;
            output.finish(backend, top_k)
        })
    }

    fn aggregate(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<f32>> {
        read(tensors, |parts| {
            let loan = Loan::<B, f32>::new(backend, parts, &self.kinds)?;
            let lent = self.representation.lend(backend, parts)?;
            let tables = views(&lent);
            let inputs = AggregateInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
            let batch = (*self.batch).as_ref();
            self.op.check_aggregate(batch, &inputs, &selection).wrapped()?;
            let length = self.op.output_length(batch, &tables).wrapped()?;
            let mut out = backend.output::<f32>(length).wrapped()?;
            let view = backend.output_mut(&mut out);
            backend.decoupled_aggregate_into(&self.op, &self.batch, inputs, selection, view).wrapped()?;
            backend.finish::<f32>(out).wrapped()
        })
    }

    fn attend(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<f32>> {
        read(tensors, |parts| {
            let loan = Loan::<B, f32>::new(backend, parts, &self.kinds)?;
            let lent = [self.attention.lend(backend, parts)?, self.representation.lend(backend, parts)?];
            let (attention, representation) = (views(&lent[0]), views(&lent[1]));
            let (history, targets) = (loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let inputs = DecoupledInputs::new(&attention, &representation, history, targets);
            let batch = (*self.batch).as_ref();
            self.op.check_attend(batch, &inputs).wrapped()?;
            let length = self.op.output_length(batch, &representation).wrapped()?;
            let mut out = backend.output::<f32>(length).wrapped()?;
            let view = backend.output_mut(&mut out);
            backend.decoupled_attend_into(&self.op, &self.batch, inputs, view).wrapped()?;
            backend.finish::<f32>(out).wrapped()
        })
    }

    /// The most rows that a sparse gradient has.
    fn capacity(&self) -> usize {
        self.op.gradient_capacity((*self.batch).as_ref())
    }
}

impl<B: Place> Backward for Searched<B> {
    fn name(&self) -> &'static str {
        SEARCH
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let node = &self.0;
        let backend = node.backend.fork().wrapped()?;
        let Some((positions, counts)) = &node.kept else { candle_core::bail!("{SEARCH}: nothing was kept") };
        let mut memory = node.attention.gradient_memory(&backend, pass, node.capacity())?;
        let first = pass.inputs.len();
        read(&pass.inputs_and(&[positions, pass.out, counts, pass.grad]), |parts| {
            let loan = Loan::<B, f32>::new(&backend, parts, &node.kinds)?;
            let lent = node.attention.lend(&backend, parts)?;
            let tables = views(&lent);
            let inputs = SearchInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let positions = backend.lend(parts.of::<u32>(first)?).wrapped()?;
            let scores = backend.lend(parts.of::<f32>(first + 1)?).wrapped()?;
            let counts = backend.lend(parts.of::<u32>(first + 2)?).wrapped()?;
            let grad = backend.lend(parts.of::<f32>(first + 3)?).wrapped()?;
            let selection = Selection::new(positions.view(), scores.view(), counts.view());
            let mut grads = SearchGradients::new();
            grads.attention = memory.views(&backend);
            backend
                .decoupled_search_backward_into(&node.op, &node.batch, inputs, selection, grad.view(), grads)
                .wrapped()
        })?;
        let mut grads = vec![None; first];
        node.attention.finish(memory, &backend, pass, &mut grads)?;
        Ok(grads)
    }
}

impl<B: Place> Backward for Aggregated<B> {
    fn name(&self) -> &'static str {
        AGGREGATE
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let node = &self.0;
        let backend = node.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, f32>::new(&backend, pass, &node.kinds)?;
        let mut table_memory = node.representation.gradient_memory(&backend, pass, node.capacity())?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, f32>::new(&backend, parts, &node.kinds)?;
            let lent = node.representation.lend(&backend, parts)?;
            let tables = views(&lent);
            let inputs = AggregateInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
            let grad = backend.lend(parts.of::<f32>(pass.inputs.len())?).wrapped()?;
            let (_, mut numbers) = memory.views(&backend);
            let mut grads = AggregateGradients::new();
            grads.representation = table_memory.views(&backend);
            grads.scores = numbers[SCORES].take();
            let (op, batch) = (&node.op, &node.batch);
            backend
                .decoupled_aggregate_backward_into(op, batch, inputs, selection, grad.view(), grads)
                .wrapped()
        })?;
        let mut grads = memory.finish(&backend, pass)?;
        node.representation.finish(table_memory, &backend, pass, &mut grads)?;
        Ok(grads)
    }
}

impl<B: Place> Backward for Attended<B> {
    fn name(&self) -> &'static str {
        ATTEND
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let node = &self.0;
        let backend = node.backend.fork().wrapped()?;
        let mut attention_memory = node.attention.gradient_memory(&backend, pass, node.capacity())?;
        let mut memory = node.representation.gradient_memory(&backend, pass, node.capacity())?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, f32>::new(&backend, parts, &node.kinds)?;
            let lent = [node.attention.lend(&backend, parts)?, node.representation.lend(&backend, parts)?];
            let (attention, representation) = (views(&lent[0]), views(&lent[1]));
            let (history, targets) = (loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let inputs = DecoupledInputs::new(&attention, &representation, history, targets);
            let grad = backend.lend(parts.of::<f32>(pass.inputs.len())?).wrapped()?;
            let mut grads = DecoupledGradients::new();
            grads.attention = attention_memory.views(&backend);
            grads.representation = memory.views(&backend);
            let (op, batch, saved) = (&node.op, &node.batch, DecoupledSaved::new());
            backend.decoupled_attend_backward_into(op, batch, inputs, saved, grad.view(), grads).wrapped()
        })?;
        let mut grads = vec![None; pass.inputs.len()];
        node.attention.finish(attention_memory, &backend, pass, &mut grads)?;
        node.representation.finish(memory, &backend, pass, &mut grads)?;
        Ok(grads)
    }
}
