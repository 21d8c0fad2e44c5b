//! Decoupled embeddings: search in attention tables, aggregation of representation tables.

use std::sync::Arc;

use burn_core::tensor::{Int, Tensor};
use longseq::prelude::*;
use longseq::{
    AggregateGradients, AggregateInputs, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledSaved,
    Result, SearchGradients, SearchInputs, Selection,
};

use crate::argument::Argument;
use crate::graph::{Differentiate, Input, Pass, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan};
use crate::place::{Place, Values};
use crate::search::{Kept, SelectionOutput, SelectionTensors};
use crate::tables::{Tables, views};

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
    /// `[N, F]`.
    pub history: &'a Tensor<2, Int>,
    /// `[M, F]`.
    pub targets: &'a Tensor<2, Int>,
}

impl<'a> IdTensors<'a> {
    /// Ids of behaviours, and of candidates.
    pub fn new(history: &'a Tensor<2, Int>, targets: &'a Tensor<2, Int>) -> Self {
        Self { history, targets }
    }

    fn checked<P: Place>(
        &self,
        operation: &'static str,
        batch: &longseq::Batch,
        features: usize,
    ) -> Result<Vec<Input<P>>> {
        let (n, m) = (("N", batch.histories().rows()), ("M", batch.targets().rows()));
        let (history, features) = (Argument::new(operation, "history_ids", self.history), ("F", features));
        let targets = Argument::new(operation, "target_ids", self.targets);
        Ok(vec![history.of_shape(&[&[n, features]])?.ids()?, targets.of_shape(&[&[m, features]])?.ids()?])
    }
}

impl<P: Place> Longseq<P> {
    /// The best behaviours of each candidate by the scores of attention tables, one for each feature; formula: [`Decoupled`]. The
    /// selection's `scores` are in the graph: through them the tables get gradients.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_search`]; a tensor on another backend of burn, or of another type or shape.
    pub fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &Batch<P>,
        attention: &[&Tensor<2>],
        ids: IdTensors<'_>,
    ) -> Result<SelectionTensors> {
        let mut tensors = ids.checked(SEARCH, batch.batch(), op.features())?;
        let mut kinds = vec![Kind::Id; 2];
        let attention = Tables::new(SEARCH, "attention", attention, &mut tensors, &mut kinds)?;
        let mut node = Node::new(self, SEARCH, op, batch, kinds, Some(attention), None)?;
        let kept = node.search(&self.for_call()?, &tensors)?;
        let scores = kept.scores.clone();
        node.kept = Some([kept.positions.clone(), kept.scores.clone(), kept.counts.clone()]);
        let scores = Tensor::from_dispatch(record(scores, tensors, Searched(node))?);
        Ok(SelectionTensors { scores, ..kept.tensors() })
    }

    /// The softmax-weighted sum of the representations that a selection keeps, `[M, Σ r]` of `f32`; formula: [`Decoupled`]. Tables, one for
    /// each feature, and the selection's scores get gradients.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_aggregate`]; a tensor on another backend of burn, or of another type or shape.
    pub fn decoupled_aggregate(
        &self,
        op: &Decoupled,
        batch: &Batch<P>,
        representation: &[&Tensor<2>],
        ids: IdTensors<'_>,
        selection: &SelectionTensors,
    ) -> Result<Tensor<2>> {
        let candidates = batch.batch().targets().rows();
        let mut tensors = ids.checked(AGGREGATE, batch.batch(), op.features())?;
        // Without a `top_k` longseq says that it needs one.
        let top_k = op.top_k.unwrap_or(selection.scores.dims()[1]);
        tensors.extend(selection.checked(AGGREGATE, candidates, top_k)?);
        let mut kinds = vec![Kind::Id, Kind::Id, Kind::Id, Kind::Number, Kind::Id];
        let tables = Tables::new(AGGREGATE, "representation", representation, &mut tensors, &mut kinds)?;
        let node = Node::new(self, AGGREGATE, op, batch, kinds, None, Some(tables))?;
        let out = node.aggregate(&self.for_call()?, &tensors)?;
        Ok(Tensor::from_dispatch(record(out, tensors, Aggregated(node))?))
    }

    /// Search and aggregation, `[M, Σ r]` of `f32`; formula: [`Decoupled`]. Both sets of tables get gradients.
    ///
    /// With a `top_k` this is [`decoupled_search`](Self::decoupled_search) and [`decoupled_aggregate`](Self::decoupled_aggregate), so that
    /// the backward pass need not search again; without, all behaviours count, in one call.
    ///
    /// # Errors
    /// Those of [`Decoupled::check_attend`]; a tensor on another backend of burn, or of another type or shape.
    pub fn decoupled_attend(
        &self,
        op: &Decoupled,
        batch: &Batch<P>,
        attention: &[&Tensor<2>],
        representation: &[&Tensor<2>],
        ids: IdTensors<'_>,
    ) -> Result<Tensor<2>> {
        if op.top_k.is_some() {
            let kept = self.decoupled_search(op, batch, attention, ids)?;
            return self.decoupled_aggregate(op, batch, representation, ids, &kept);
        }
        let mut tensors = ids.checked(ATTEND, batch.batch(), op.features())?;
        let mut kinds = vec![Kind::Id; 2];
        let attention = Tables::new(ATTEND, "attention", attention, &mut tensors, &mut kinds)?;
        let tables = Tables::new(ATTEND, "representation", representation, &mut tensors, &mut kinds)?;
        let node = Node::new(self, ATTEND, op, batch, kinds, Some(attention), Some(tables))?;
        let out = node.attend(&self.for_call()?, &tensors)?;
        Ok(Tensor::from_dispatch(record(out, tensors, Attended(node))?))
    }
}

/// An operation in the graph. Its inputs: ids of behaviours and candidates, a selection if there is one, tables.
struct Node<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: Decoupled,
    kinds: Vec<Kind>,
    attention: Tables,
    representation: Tables,
    /// What the search kept: positions, scores and counts.
    kept: Option<[Values<P>; 3]>,
}

struct Searched<P: Place>(Node<P>);
struct Aggregated<P: Place>(Node<P>);
struct Attended<P: Place>(Node<P>);

impl<P: Place> Node<P> {
    fn new(
        longseq: &Longseq<P>,
        operation: &'static str,
        op: &Decoupled,
        batch: &Batch<P>,
        kinds: Vec<Kind>,
        attention: Option<Tables>,
        representation: Option<Tables>,
    ) -> Result<Self> {
        let (place, batch) = (longseq.shared(), longseq.own(operation, batch)?);
        let (attention, representation) = (attention.unwrap_or_default(), representation.unwrap_or_default());
        Ok(Self { place, batch, op: op.clone(), kinds, attention, representation, kept: None })
    }

    fn search(&self, place: &P, tensors: &[Input<P>]) -> Result<Kept<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, f32>::new(place, &tensors, &self.kinds)?;
        let lent = self.attention.lend(place, &tensors)?;
        let tables = views(&lent);
        let inputs = SearchInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
        let batch = (*self.batch).as_ref();
        let top_k = self.op.check_search(batch, &inputs)?;
        let length = self.op.selection_length(batch)?;
        let mut output = SelectionOutput::new(place, length, batch.targets().rows())?;
        place.backend().decoupled_search_into(&self.op, &self.batch, inputs, output.out(place))?;
        output.finish(place, top_k)
    }

    fn aggregate(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, f32>::new(place, &tensors, &self.kinds)?;
        let lent = self.representation.lend(place, &tensors)?;
        let tables = views(&lent);
        let inputs = AggregateInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
        let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
        let batch = (*self.batch).as_ref();
        self.op.check_aggregate(batch, &inputs, &selection)?;
        let length = self.op.output_length(batch, &tables)?;
        let mut out = place.output::<f32>(length)?;
        let view = place.output_mut(&mut out);
        place.backend().decoupled_aggregate_into(&self.op, &self.batch, inputs, selection, view)?;
        place.finish::<f32>(out, vec![batch.targets().rows(), self.representation.width()])
    }

    fn attend(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, f32>::new(place, &tensors, &self.kinds)?;
        let lent = [self.attention.lend(place, &tensors)?, self.representation.lend(place, &tensors)?];
        let (attention, representation) = (views(&lent[0]), views(&lent[1]));
        let (history, targets) = (loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
        let inputs = DecoupledInputs::new(&attention, &representation, history, targets);
        let batch = (*self.batch).as_ref();
        self.op.check_attend(batch, &inputs)?;
        let length = self.op.output_length(batch, &representation)?;
        let mut out = place.output::<f32>(length)?;
        let view = place.output_mut(&mut out);
        place.backend().decoupled_attend_into(&self.op, &self.batch, inputs, view)?;
        place.finish::<f32>(out, vec![batch.targets().rows(), self.representation.width()])
    }
}

impl<P: Place> Differentiate<P> for Searched<P> {
    fn name(&self) -> &'static str {
        SEARCH
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let node = &self.0;
        let place = node.place.for_call()?;
        let Some([positions, scores, counts]) = &node.kept else { return Ok(vec![None; pass.inputs.len()]) };
        let mut memory = node.attention.gradient_memory(&place, pass)?;
        {
            let loan = Loan::<P, f32>::new(&place, pass.inputs, &node.kinds)?;
            let lent = node.attention.lend(&place, pass.inputs)?;
            let tables = views(&lent);
            let inputs = SearchInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let positions = place.lend::<u32>(positions)?;
            let scores = place.lend::<f32>(scores)?;
            let counts = place.lend::<u32>(counts)?;
            let grad = place.lend::<f32>(pass.grad)?;
            let selection = Selection::new(positions.view(), scores.view(), counts.view());
            let mut grads = SearchGradients::new();
            grads.attention = memory.views(&place);
            place.backend().decoupled_search_backward_into(
                &node.op,
                &node.batch,
                inputs,
                selection,
                grad.view(),
                grads,
            )?;
        }
        let mut grads = vec![None; pass.inputs.len()];
        node.attention.finish(memory, &place, &mut grads)?;
        Ok(grads)
    }
}

impl<P: Place> Differentiate<P> for Aggregated<P> {
    fn name(&self) -> &'static str {
        AGGREGATE
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let node = &self.0;
        let place = node.place.for_call()?;
        let mut memory = GradientMemory::<P, f32>::new(&place, pass, &node.kinds)?;
        let mut table_memory = node.representation.gradient_memory(&place, pass)?;
        {
            let loan = Loan::<P, f32>::new(&place, pass.inputs, &node.kinds)?;
            let lent = node.representation.lend(&place, pass.inputs)?;
            let tables = views(&lent);
            let inputs = AggregateInputs::new(&tables, loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let selection = Selection::new(loan.id(POSITIONS), loan.number(SCORES), loan.id(COUNTS));
            let grad = place.lend::<f32>(pass.grad)?;
            let (_, mut numbers) = memory.views(&place);
            let mut grads = AggregateGradients::new();
            grads.representation = table_memory.views(&place);
            grads.scores = numbers[SCORES].take();
            let (op, batch) = (&node.op, &node.batch);
            place.backend().decoupled_aggregate_backward_into(
                op,
                batch,
                inputs,
                selection,
                grad.view(),
                grads,
            )?;
        }
        let mut grads = memory.finish(&place, pass)?;
        node.representation.finish(table_memory, &place, &mut grads)?;
        Ok(grads)
    }
}

impl<P: Place> Differentiate<P> for Attended<P> {
    fn name(&self) -> &'static str {
        ATTEND
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let node = &self.0;
        let place = node.place.for_call()?;
        let mut attention_memory = node.attention.gradient_memory(&place, pass)?;
        let mut memory = node.representation.gradient_memory(&place, pass)?;
        {
            let loan = Loan::<P, f32>::new(&place, pass.inputs, &node.kinds)?;
            let lent =
                [node.attention.lend(&place, pass.inputs)?, node.representation.lend(&place, pass.inputs)?];
            let (attention, representation) = (views(&lent[0]), views(&lent[1]));
            let (history, targets) = (loan.id(HISTORY_IDS), loan.id(TARGET_IDS));
            let inputs = DecoupledInputs::new(&attention, &representation, history, targets);
            let grad = place.lend::<f32>(pass.grad)?;
            let mut grads = DecoupledGradients::new();
            grads.attention = attention_memory.views(&place);
            grads.representation = memory.views(&place);
            let (op, batch, saved) = (&node.op, &node.batch, DecoupledSaved::new());
            place.backend().decoupled_attend_backward_into(op, batch, inputs, saved, grad.view(), grads)?;
        }
        let mut grads = vec![None; pass.inputs.len()];
        node.attention.finish(attention_memory, &place, &mut grads)?;
        node.representation.finish(memory, &place, &mut grads)?;
        Ok(grads)
    }
}
