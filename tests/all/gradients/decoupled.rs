//! Gradients of decoupled embeddings.

use longseq::reference::*;
use longseq::*;
use longseq_check::golden::Golden;

use super::*;

const ROWS: [usize; 2] = [6, 4];
const ATTENTION: [usize; 2] = [3, 2];
const REPRESENTATION: [usize; 2] = [2, 3];

/// Inputs of one or two features, and the gradient that comes in.
struct Case {
    op: Decoupled,
    batch: Batch,
    ids: Vec<u32>,
    target_ids: Vec<u32>,
    attention: Vec<Vec<f32>>,
    representation: Vec<Vec<f32>>,
    grad_out: Vec<f64>,
}

impl Case {
    fn new(features: usize, top_k: Option<usize>, multiply_target: bool) -> Self {
        let mut numbers = Numbers(23);
        let batch = batch(&[5, 0, 2, 1], &[2, 1, 2, 0], 1);
        let mut ids = |rows: usize| -> Vec<u32> {
            let id = |index: usize| numbers.ids(1, ROWS[index % features] as u32)[0];
            (0..rows * features).map(id).collect()
        };
        let (ids, target_ids) = (ids(batch.histories().rows()), ids(batch.targets().rows()));
        let mut tables = |widths: [usize; 2]| -> Vec<Vec<f32>> {
            (0..features).map(|f| numbers.f32(ROWS[f] * widths[f])).collect()
        };
        let (attention, representation) = (tables(ATTENTION), tables(REPRESENTATION));
        let width: usize = REPRESENTATION[..features].iter().sum();
        let grad_out = numbers.f64(batch.targets().rows() * width);
        let op = Decoupled::new(&[0.75, -1.25][..features]);
        let op = op.with_top_k(top_k).with_multiply_target(multiply_target);
        Self { op, batch, ids, target_ids, attention, representation, grad_out }
    }

    fn with_inputs<R>(&self, call: impl FnOnce(&DecoupledInputs<'_, Host>) -> R) -> R {
        let (attention, representation) =
            (tables(&self.attention, ATTENTION), tables(&self.representation, REPRESENTATION));
        let (ids, target_ids) = (Host::view(&self.ids), Host::view(&self.target_ids));
        call(&DecoupledInputs::new(&attention, &representation, ids, target_ids))
    }

    fn loss(&self) -> f64 {
        let out = self.with_inputs(|inputs| decoupled_attend(&self.op, &self.batch, inputs).unwrap());
        dot(&out, &self.grad_out)
    }

    fn gradient(&self) -> DecoupledGradientReference {
        self.with_inputs(|inputs| {
            decoupled_attend_backward(&self.op, &self.batch, inputs, &self.grad_out).unwrap()
        })
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let attention = self.attention.iter_mut().map(|table| ("attention", table));
        attention.chain(self.representation.iter_mut().map(|table| ("representation", table))).collect()
    }

    fn compare(&mut self, gradient: &DecoupledGradientReference) -> Result<(), String> {
        let attention = dense_tables(&gradient.attention, ATTENTION);
        let representation = dense_tables(&gradient.representation, REPRESENTATION);
        let mut gradients: Vec<_> = attention.into_iter().map(|grad| ("attention", grad)).collect();
        gradients.extend(representation.into_iter().map(|grad| ("representation", grad)));
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

fn tables(data: &[Vec<f32>], widths: [usize; 2]) -> Vec<Table<'_, Host>> {
    let table = |f: usize| Table::new(ROWS[f], widths[f], TableData::F32(Host::view(&data[f])));
    (0..data.len()).map(table).collect()
}

fn dense_tables(gradients: &[SparseGradientReference], widths: [usize; 2]) -> Vec<Vec<f64>> {
    gradients.iter().enumerate().map(|(f, gradient)| dense(gradient, ROWS[f], widths[f])).collect()
}

#[test]
fn of_every_option() {
    for features in [1, 2] {
        for top_k in [None, Some(1), Some(3), Some(20)] {
            for multiply_target in [false, true] {
                let mut case = Case::new(features, top_k, multiply_target);
                let gradient = case.gradient();
                case.compare(&gradient).unwrap_or_else(|error| panic!("{:?}: {error}", case.op));
            }
        }
    }
}

#[test]
fn ids_outside_have_none() {
    for multiply_target in [false, true] {
        let mut case = Case::new(2, Some(3), multiply_target);
        case.ids[2] = 6;
        case.ids[11] = 4;
        case.target_ids[3] = u32::MAX;
        let result = case
            .with_inputs(|inputs| decoupled_attend_backward(&case.op, &case.batch, inputs, &case.grad_out));
        assert!(matches!(result, Err(Error::IndexOutOfRange { position: 2, id: 6, .. })));
        case.op = case.op.with_ids(IdPolicy::Zero);
        let gradient = case.gradient();
        case.compare(&gradient).unwrap();
    }
}

/// Only kept behaviours have rows, and candidates that have a kept behaviour.
#[test]
fn have_the_rows_that_were_read() {
    let mut case = Case::new(1, Some(1), true);
    case.op = case.op.with_ids(IdPolicy::Zero);
    case.batch = batch(&[2, 0], &[1, 1], 1);
    (case.ids, case.target_ids) = (vec![1, 2, 5], vec![3, 4, 5]);
    case.grad_out.truncate(6);
    case.grad_out[4..].fill(f64::NAN);
    let score =
        |id: usize| -> f32 { (0..3).map(|j| case.attention[0][3 * id + j] * case.attention[0][9 + j]).sum() };
    let kept = if score(1) >= score(2) { 1 } else { 2 };
    let gradient = case.gradient();
    assert_eq!(gradient.representation[0].ids, [kept, 3]);
    assert_eq!(gradient.attention[0].ids, [kept, 3]);
    assert!(gradient.representation[0].rows.iter().all(|grad| grad.is_finite()));
}

/// The aggregation of a selection, with the selection's scores among its inputs.
struct Aggregate {
    case: Case,
    positions: Vec<u32>,
    scores: Vec<f32>,
    counts: Vec<u32>,
}

impl Aggregate {
    fn new(features: usize, multiply_target: bool) -> Self {
        let case = Case::new(features, Some(3), multiply_target);
        let positions = vec![4, 0, 2, 1, 3, 0, 9, 9, 9, 1, 0, 9, 0, 9, 9, 9, 9, 9];
        let scores = Numbers(29).f32(positions.len());
        Self { case, positions, scores, counts: vec![3, 2, 0, 2, 1, 9] }
    }

    fn call<R>(&self, call: impl FnOnce(&AggregateInputs<'_, Host>, &Selection<'_, Host>) -> R) -> R {
        let [positions, counts] = [&self.positions, &self.counts].map(|ids| Host::view(ids));
        let selection = Selection::new(positions, Host::view(&self.scores), counts);
        let representation = tables(&self.case.representation, REPRESENTATION);
        let (ids, target_ids) = (Host::view(&self.case.ids), Host::view(&self.case.target_ids));
        call(&AggregateInputs::new(&representation, ids, target_ids), &selection)
    }

    fn loss(&self) -> f64 {
        let Case { op, batch, .. } = &self.case;
        let out = self.call(|inputs, selection| decoupled_aggregate(op, batch, inputs, selection).unwrap());
        dot(&out, &self.case.grad_out)
    }

    fn gradient(&self) -> longseq::Result<DecoupledAggregateGradientReference> {
        let Case { op, batch, grad_out, .. } = &self.case;
        self.call(|inputs, selection| decoupled_aggregate_backward(op, batch, inputs, selection, grad_out))
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let representation = self.case.representation.iter_mut().map(|table| ("representation", table));
        representation.chain([("scores", &mut self.scores)]).collect()
    }
}

#[test]
fn of_the_aggregation() {
    for features in [1, 2] {
        for multiply_target in [false, true] {
            let mut aggregate = Aggregate::new(features, multiply_target);
            let gradient = aggregate.gradient().unwrap();
            let representation = dense_tables(&gradient.representation, REPRESENTATION);
            let mut gradients: Vec<_> =
                representation.into_iter().map(|grad| ("representation", grad)).collect();
            gradients.push(("scores", gradient.scores));
            compare_with_differences(&mut aggregate, Aggregate::tensors, Aggregate::loss, &gradients)
                .unwrap();
        }
    }
}

/// The search that kept what the aggregation reads, with the gradients of its scores as the loss's.
struct Search {
    case: Case,
    grad_scores: Vec<f64>,
}

impl Search {
    fn new(features: usize) -> Self {
        let case = Case::new(features, Some(3), false);
        let grad_scores = Numbers(31).f64(3 * case.batch.targets().rows());
        Self { case, grad_scores }
    }

    fn found(&self) -> SelectionReference {
        self.case.with_inputs(|inputs| {
            let search = SearchInputs::new(inputs.attention, inputs.history_ids, inputs.target_ids);
            decoupled_search(&self.case.op, &self.case.batch, &search).unwrap()
        })
    }

    fn loss(&self) -> f64 {
        let found = self.found();
        let kept = found.scores.iter().zip(&self.grad_scores).filter(|(score, _)| score.is_finite());
        kept.map(|(score, grad)| score * grad).sum()
    }

    fn gradient(&self) -> Vec<SparseGradientReference> {
        let Case { op, batch, .. } = &self.case;
        let found = self.found();
        let scores: Vec<f32> = found.scores.iter().map(|&score| score as f32).collect();
        let selection =
            Selection::new(Host::view(&found.positions), Host::view(&scores), Host::view(&found.counts));
        self.case.with_inputs(|inputs| {
            let search = SearchInputs::new(inputs.attention, inputs.history_ids, inputs.target_ids);
            decoupled_search_backward(op, batch, &search, &selection, &self.grad_scores).unwrap()
        })
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        self.case.attention.iter_mut().map(|table| ("attention", table)).collect()
    }
}

#[test]
fn of_the_search() {
    for features in [1, 2] {
        let mut search = Search::new(features);
        let gradient = dense_tables(&search.gradient(), ATTENTION);
        let gradients: Vec<_> = gradient.into_iter().map(|grad| ("attention", grad)).collect();
        compare_with_differences(&mut search, Search::tensors, Search::loss, &gradients).unwrap();
    }
}

/// What a score of -∞ removes gets zeros, though its row holds NaN, and no row of its own.
#[test]
fn removed_behaviours_get_zeros() {
    let mut aggregate = Aggregate::new(1, true);
    aggregate.case.op = aggregate.case.op.with_ids(IdPolicy::Zero);
    // The first candidate's second behaviour, and all of the third user's first candidate's.
    [1, 9, 10].iter().for_each(|&slot| aggregate.scores[slot] = f32::NEG_INFINITY);
    aggregate.case.ids[0] = 5;
    aggregate.case.ids[1..].iter_mut().for_each(|id| *id = if *id == 5 { 4 } else { *id });
    aggregate.case.target_ids.iter_mut().for_each(|id| *id = if *id == 5 { 4 } else { *id });
    aggregate.counts[1] = 1;
    aggregate.case.representation[0][10..12].fill(f32::NAN);
    let gradient = aggregate.gradient().unwrap();
    assert!(!gradient.representation[0].ids.contains(&5));
    assert!(gradient.representation[0].rows.iter().chain(&gradient.scores).all(|grad| grad.is_finite()));
    assert_eq!((gradient.scores[1], &gradient.scores[9..11]), (0.0, &[0.0; 2][..]));
    assert!(gradient.scores[0] != 0.0);
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let mut case = Case::new(2, Some(3), true);
    let right = case.gradient();
    // The candidate's own representation: as if it were a constant factor.
    let mut wrong = right.clone();
    let id = case.target_ids[0];
    let row = wrong.representation[0].ids.binary_search(&id).unwrap();
    wrong.representation[0].rows[2 * row] = 0.0;
    assert!(case.compare(&wrong).unwrap_err().starts_with("representation"));
    // One side of the product of attention rows.
    let mut wrong = right.clone();
    wrong.attention[1].rows.iter_mut().for_each(|grad| *grad *= 0.5);
    assert!(case.compare(&wrong).unwrap_err().starts_with("attention"));
    // A gradient of all behaviours where three are kept.
    case.op = case.op.with_top_k(None);
    let wrong = case.gradient();
    case.op = case.op.with_top_k(Some(3));
    assert!(case.compare(&wrong).unwrap_err().starts_with("attention"));
}

#[test]
fn need_gradients_of_the_right_size() {
    let mut aggregate = Aggregate::new(2, false);
    aggregate.case.grad_out.pop();
    assert_eq!(shape_argument(aggregate.gradient()), "grad_out");
    let case = aggregate.case;
    let result =
        case.with_inputs(|inputs| decoupled_attend_backward(&case.op, &case.batch, inputs, &case.grad_out));
    assert_eq!(shape_argument(result), "grad_out");
}

#[test]
fn match_published_ones() {
    for name in ["decoupled_k20_da8_dr16", "decoupled_k5_da16_dr48"] {
        let golden = Golden::load(name);
        let features = ["item", "category", "time"];
        let data = |kind: &str| {
            features.map(|feature| {
                let name = format!("{kind}_{feature}");
                (golden.shape(&name), golden.f32(&name))
            })
        };
        let (attention, representation) = (data("attention"), data("representation"));
        let [item, category, time] = attention.each_ref().map(|table| table.0[1]);
        let op = Decoupled::dare(item, category, time)
            .with_top_k(Some(golden.number("k")))
            .with_multiply_target(true);
        let batch =
            Batch::new(golden.jagged("offsets", "ids"), golden.jagged("target_offsets", "target_ids"));
        let (ids, target_ids) = (golden.u32("ids"), golden.u32("target_ids"));
        let [attention_tables, representation_tables] =
            [&attention, &representation].map(|tables| tables.each_ref().map(published_table));
        let (ids, target_ids) = (Host::view(&ids), Host::view(&target_ids));
        let inputs = DecoupledInputs::new(&attention_tables, &representation_tables, ids, target_ids);
        let grad_out = golden.f64("grad_out_topk_times_target");
        let gradient = decoupled_attend_backward(&op, &batch.unwrap(), &inputs, &grad_out).unwrap();
        for (f, feature) in features.iter().enumerate() {
            let (got, (shape, _)) = (&gradient.attention[f], &attention[f]);
            assert_published(&golden, &format!("grad_attention_{feature}"), &dense(got, shape[0], shape[1]));
            let (got, (shape, _)) = (&gradient.representation[f], &representation[f]);
            let got = dense(got, shape[0], shape[1]);
            assert_published(&golden, &format!("grad_representation_{feature}"), &got);
        }
    }
}

fn published_table((shape, data): &(Vec<usize>, Vec<f32>)) -> Table<'_, Host> {
    Table::new(shape[0], shape[1], TableData::F32(Host::view(data)))
}
