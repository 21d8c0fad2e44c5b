//! Gradients of look-ups.

use longseq::reference::*;
use longseq::*;

use super::*;

const ROWS: [usize; 2] = [5, 3];
const WIDTHS: [usize; 2] = [2, 3];
const SECOND: [usize; 2] = [3, 1];

/// Inputs of a look-up in two tables and two second ones, and the gradients that come in.
struct Case {
    mean: Option<bool>,
    bags: Jagged,
    ids: Vec<u32>,
    tables: [Vec<f32>; 2],
    second: [Vec<f32>; 2],
    weights: Option<Vec<f32>>,
    grad_out: Vec<f64>,
    grad_second: Vec<f64>,
    op: Lookup,
}

impl Case {
    /// Without pooling, or with sums or means; every id several times, one of them twice in a bag.
    fn new(mean: Option<bool>) -> Self {
        let mut numbers = Numbers(17);
        let bags = jagged(&[4, 0, 1, 3], 2);
        let mut ids: Vec<u32> =
            numbers.ids(10, 5).into_iter().zip(numbers.ids(10, 3)).flat_map(|(a, b)| [a, b]).collect();
        ids[2] = ids[0];
        let rows = if mean.is_some() { 4 } else { 10 };
        let mut tables = |widths: [usize; 2]| [0, 1].map(|f| numbers.f32(ROWS[f] * widths[f]));
        let (tables, second) = (tables(WIDTHS), tables(SECOND));
        let (grad_out, grad_second) = (numbers.f64(rows * 5), numbers.f64(rows * 4));
        let (weights, op) = (None, Lookup::default());
        Self { mean, bags, ids, tables, second, weights, grad_out, grad_second, op }
    }

    fn bags(&self) -> Bags<'_, Jagged> {
        match self.mean {
            None => Bags::Each,
            Some(false) => Bags::Sum(&self.bags),
            Some(true) => Bags::Mean(&self.bags),
        }
    }

    fn with_inputs<R>(&self, call: impl FnOnce(&LookupInputs<'_, Host>) -> R) -> R {
        let tables = tables(&self.tables, WIDTHS);
        let second = self::tables(&self.second, SECOND);
        let inputs = LookupInputs::new(Host::view(&self.ids), &tables).with_second_tables(&second);
        call(&match &self.weights {
            Some(weights) => inputs.with_weights(Host::view(weights)),
            None => inputs,
        })
    }

    fn loss(&self) -> f64 {
        let (out, second) = self.with_inputs(|inputs| lookup(&self.op, self.bags(), inputs).unwrap());
        dot(&out, &self.grad_out) + dot(&second.unwrap(), &self.grad_second)
    }

    fn gradient(&self) -> LookupGradientReference {
        self.with_inputs(|inputs| {
            lookup_backward(&self.op, self.bags(), inputs, &self.grad_out, Some(&self.grad_second)).unwrap()
        })
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let ([a, b], [c, d]) = (&mut self.tables, &mut self.second);
        let tables = [("tables[0]", a), ("tables[1]", b), ("second_tables[0]", c), ("second_tables[1]", d)];
        tables.into_iter().chain(self.weights.as_mut().map(|weights| ("weights", weights))).collect()
    }

    fn compare(&mut self, gradient: &LookupGradientReference) -> Result<(), String> {
        let mut gradients = vec![
            ("tables[0]", dense(&gradient.tables[0], ROWS[0], WIDTHS[0])),
            ("tables[1]", dense(&gradient.tables[1], ROWS[1], WIDTHS[1])),
            ("second_tables[0]", dense(&gradient.second_tables[0], ROWS[0], SECOND[0])),
            ("second_tables[1]", dense(&gradient.second_tables[1], ROWS[1], SECOND[1])),
        ];
        if self.weights.is_some() {
            gradients.push(("weights", gradient.weights.clone()));
        }
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

fn tables(data: &[Vec<f32>; 2], widths: [usize; 2]) -> [Table<'_, Host>; 2] {
    [0, 1].map(|f| Table::new(ROWS[f], widths[f], TableData::F32(Host::view(&data[f]))))
}

const POOLINGS: [Option<bool>; 3] = [None, Some(false), Some(true)];

#[test]
fn of_every_pooling() {
    for mean in POOLINGS {
        let mut case = Case::new(mean);
        let gradient = case.gradient();
        case.compare(&gradient).unwrap_or_else(|error| panic!("{mean:?}: {error}"));
    }
}

#[test]
fn of_weights() {
    for policy in [IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip] {
        let mut case = Case::new(Some(false));
        case.weights = Some(Numbers(5).f32(20));
        case.op = case.op.with_ids(policy);
        if policy != IdPolicy::Error {
            (case.ids[4], case.ids[7]) = (5, u32::MAX);
        }
        let gradient = case.gradient();
        case.compare(&gradient).unwrap_or_else(|error| panic!("{policy:?}: {error}"));
        // The weight of the next id.
        let mut wrong = gradient;
        wrong.weights.rotate_left(1);
        assert!(case.compare(&wrong).unwrap_err().starts_with("weights"));
    }
    assert!(Case::new(Some(false)).gradient().weights.is_empty());
}

#[test]
fn ids_outside_have_none() {
    let zero = POOLINGS.map(|mean| (mean, IdPolicy::Zero));
    for (mean, policy) in zero.into_iter().chain(POOLINGS.map(|mean| (mean, IdPolicy::Skip))) {
        let mut case = Case::new(mean);
        case.op = case.op.with_ids(policy);
        case.ids[4] = 5;
        case.ids[7] = u32::MAX;
        let gradient = case.gradient();
        case.compare(&gradient).unwrap_or_else(|error| panic!("{mean:?}: {error}"));
        let result = case.with_inputs(|inputs| {
            lookup_backward(&Lookup::default(), case.bags(), inputs, &case.grad_out, Some(&case.grad_second))
        });
        assert!(matches!(result, Err(Error::IndexOutOfRange { position: 4, id: 5, .. })));
    }
}

/// Ids that no bag has are not among the gradient's, whatever the rows of nobody hold.
#[test]
fn have_the_rows_that_were_read() {
    let mut case = Case::new(Some(false));
    case.ids.iter_mut().step_by(2).for_each(|id| *id = if *id == 3 { 2 } else { *id });
    case.ids[16..].fill(u32::MAX);
    let read = |f: usize| -> Vec<u32> {
        let ids: std::collections::BTreeSet<u32> =
            case.ids[..16].iter().skip(f).step_by(2).copied().collect();
        ids.into_iter().collect()
    };
    let gradient = case.gradient();
    for (f, table) in gradient.tables.iter().enumerate() {
        assert_eq!(table.ids, read(f));
        assert_eq!(gradient.second_tables[f].ids, read(f));
    }
    assert!(!gradient.tables[0].ids.contains(&3));
    case.compare(&gradient).unwrap();
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    // Duplicate ids overwritten instead of added: only the last bag's gradient arrives.
    let mut case = Case::new(Some(false));
    let right = case.gradient();
    let whole = case.grad_out.clone();
    case.grad_out[..15].fill(0.0);
    let overwritten = case.gradient();
    case.grad_out = whole;
    assert!(case.compare(&overwritten).unwrap_err().starts_with("tables[0]"));
    case.compare(&right).unwrap();
    // The length of a bag forgotten.
    let mut case = Case::new(Some(true));
    assert!(case.compare(&right).unwrap_err().starts_with("tables[0]"));
}

#[test]
fn need_gradients_of_the_right_size() {
    let case = Case::new(Some(true));
    let call = |grad_out: &[f64], grad_second: Option<&[f64]>| {
        case.with_inputs(|inputs| lookup_backward(&case.op, case.bags(), inputs, grad_out, grad_second))
    };
    assert_eq!(shape_argument(call(&case.grad_out[1..], Some(&case.grad_second))), "grad_out");
    assert_eq!(shape_argument(call(&case.grad_out, Some(&case.grad_second[1..]))), "grad_second");
    assert_eq!(shape_argument(call(&case.grad_out, None)), "grad_second");
    let tables = tables(&case.tables, WIDTHS);
    let inputs = LookupInputs::new(Host::view(&case.ids), &tables);
    let result = lookup_backward(&case.op, case.bags(), &inputs, &case.grad_out, Some(&case.grad_second));
    assert_eq!(shape_argument(result), "grad_second");
    let gradient = lookup_backward(&case.op, case.bags(), &inputs, &case.grad_out, None).unwrap();
    assert_eq!((gradient.tables, gradient.second_tables), (case.gradient().tables, vec![]));
}
