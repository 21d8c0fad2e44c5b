//! Gradients of TIN.

use longseq::reference::*;
use longseq::*;

use super::*;

/// Inputs of TIN, and the gradient that comes in.
struct Case {
    op: Tin,
    batch: Batch,
    targets: Vec<f32>,
    history: Vec<f32>,
    positions: Vec<f32>,
    given: [Option<Vec<u32>>; 2],
    grad_out: Vec<f64>,
}

/// Fewer positions than the longest history has behaviours.
const POSITIONS: usize = 4;

impl Case {
    /// Users with and without behaviours and candidates, rows of nobody, positions from the newest.
    fn new(op: Tin) -> Self {
        let op = op.with_positions(POSITIONS);
        let mut numbers = Numbers(7);
        let batch = batch(&[6, 0, 3, 1, 2], &[2, 3, 1, 2, 0], 1);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        Self {
            op,
            targets: numbers.f32(m * op.width),
            history: numbers.f32(n * op.width),
            positions: numbers.f32(POSITIONS * op.width),
            given: [None, None],
            grad_out: numbers.f64(m * op.width),
            batch,
        }
    }

    fn with_given_positions(self) -> Self {
        let mut numbers = Numbers(5);
        let rows = [self.batch.histories().rows(), self.batch.targets().rows()];
        let given = rows.map(|rows| Some(numbers.ids(rows, POSITIONS as u32)));
        Self { given, ..self }
    }

    fn inputs(&self) -> TinInputs<'_, Host, f32> {
        let (targets, history) = (Host::view(&self.targets), Host::view(&self.history));
        let mut inputs = TinInputs::new(targets, history, Host::view(&self.positions));
        inputs.history_positions = self.given[0].as_deref().map(Host::view);
        inputs.target_positions = self.given[1].as_deref().map(Host::view);
        inputs
    }

    fn loss(&self) -> f64 {
        let result = tin(&self.op, &self.batch, &self.inputs()).expect("a valid case");
        dot(&result.out, &self.grad_out)
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        vec![
            ("targets", &mut self.targets),
            ("history", &mut self.history),
            ("positions", &mut self.positions),
        ]
    }

    fn gradient(&self) -> TinGradientReference {
        tin_backward(&self.op, &self.batch, &self.inputs(), &self.grad_out).expect("a valid case")
    }

    fn compare(&mut self, gradient: TinGradientReference) -> Result<(), String> {
        let gradients =
            [("targets", gradient.targets), ("history", gradient.history), ("positions", gradient.positions)];
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

#[test]
fn of_every_option() {
    for multiply_target in [true, false] {
        let op = Tin::new(5).with_multiply_target(multiply_target);
        for mut case in [Case::new(op), Case::new(op.with_scale(0.75)).with_given_positions()] {
            let gradient = case.gradient();
            case.compare(gradient).unwrap_or_else(|error| panic!("{op:?}: {error}"));
        }
    }
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let mut case = Case::new(Tin::new(3));
    let right = case.gradient();
    // The candidates' part of the first position.
    let mut wrong = right.clone();
    for row in case.gradient().targets.chunks(3) {
        wrong.positions[..3].iter_mut().zip(row).for_each(|(sum, grad)| *sum -= grad);
    }
    assert!(case.compare(wrong).is_err());
    // The product with the mean.
    let mut wrong = right;
    wrong.targets = Case::new(Tin::new(3).with_multiply_target(false)).gradient().targets;
    assert!(case.compare(wrong).is_err());
}
