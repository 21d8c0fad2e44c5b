//! Positions of every kind, and calls that are refused.

use longseq::*;

use crate::case::{Failure, Rules};

/// TIN of width 1 for one user; `f(l)` and `f(m)` as given.
fn tin<B: Backend>(
    backend: &B,
    op: &Tin,
    [targets, history, positions]: [&[f32]; 3],
    given: [Option<&[u32]>; 2],
) -> Result<Vec<f32>> {
    let (t, h, p) = (backend.upload(targets)?, backend.upload(history)?, backend.upload(positions)?);
    let places = |given: Option<&[u32]>| given.map(|places| backend.upload(places)).transpose();
    let (of_history, of_targets) = (places(given[0])?, places(given[1])?);
    let mut inputs = TinInputs::new(backend.view(&t), backend.view(&h), backend.view(&p));
    inputs.history_positions = of_history.as_ref().map(|places| backend.view(places));
    inputs.target_positions = of_targets.as_ref().map(|places| backend.view(places));
    let lengths = [history.len(), targets.len()].map(|rows| Jagged::from_lengths(&[rows / op.width.max(1)]));
    let [histories, targets] = lengths;
    let out = backend.tin(op, &backend.batch(&histories?, &targets?)?, inputs)?;
    backend.download(backend.view(&out))
}

/// The argument that an error names.
fn argument<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(
            Error::Shape { argument, .. }
            | Error::Parameter { argument, .. }
            | Error::Limit { argument, .. }
            | Error::IndexOutOfRange { argument, .. },
        ) => argument,
        other => panic!("{other:?}"),
    }
}

pub(super) fn counts_positions_from_the_newest<B: Backend>(backend: &B, _: Rules) {
    // Scores of 0: the mean of the sums.
    let op = Tin::new(1).with_scale(0.0).with_multiply_target(false).with_positions(3);
    let rows = [&[0.0][..], &[0.0, 0.0, 0.0, 0.0], &[8.0, 4.0, -2.0]];
    // The newest has 4, all others -2.
    assert_eq!(tin(backend, &op, rows, [None, None]), Ok(vec![-0.5]));
    let one = op.with_positions(1);
    assert_eq!(tin(backend, &one, [rows[0], rows[1], &[8.0]], [None, None]), Ok(vec![8.0]));
    let given: &[u32] = &[0, 0, 2, 2];
    assert_eq!(tin(backend, &op, rows, [Some(given), None]), Ok(vec![3.0]));
    let multiplied = op.with_multiply_target(true);
    assert_eq!(tin(backend, &multiplied, rows, [Some(given), None]), Ok(vec![24.0]));
    assert_eq!(tin(backend, &multiplied, rows, [Some(given), Some(&[1])]), Ok(vec![12.0]));
}

pub(super) fn finds_positions_outside<B: Backend>(backend: &B, _: Rules) {
    let op = Tin::new(1).with_positions(2);
    let rows = [&[1.0, 1.0][..], &[1.0, 2.0, 3.0], &[0.0, 0.0]];
    for place in 0..3 {
        for bad in [2, u32::MAX] {
            let mut given = [1, 0, 1];
            given[place] = bad;
            assert_eq!(argument(tin(backend, &op, rows, [Some(&given), None])), "history_positions");
        }
    }
    assert_eq!(argument(tin(backend, &op, rows, [None, Some(&[0, 2])])), "target_positions");
    backend.synchronize().expect("all errors were reported");
}

pub(super) fn refuses_what_does_not_fit<B: Backend>(backend: &B, _: Rules) {
    let rows = [&[1.0, 1.0][..], &[1.0, 2.0, 3.0], &[0.0, 0.0]];
    let run = |op: Tin, given: [Option<&[u32]>; 2]| argument(tin(backend, &op, rows, given));
    let op = Tin::new(1).with_positions(2);
    assert_eq!(run(Tin::new(0).with_positions(2), [None, None]), "width");
    assert_eq!(run(op.with_positions(0), [None, None]), "positions");
    assert_eq!(run(op.with_positions(3), [None, None]), "positions");
    assert_eq!(run(op.with_scale(f32::NAN), [None, None]), "scale");
    assert_eq!(run(op, [Some(&[0, 0]), None]), "history_positions");
    assert_eq!(run(op, [None, Some(&[0])]), "target_positions");
}

/// A backward pass of TIN of width 1 for one user: the lengths of what comes in and goes out, 0 where a gradient is not asked for.
struct Gradients<'a> {
    op: Tin,
    /// Candidates, behaviours, positions.
    rows: [&'a [f32]; 3],
    given: [Option<&'a [u32]>; 2],
    /// `pooled`, `lse`, `grad_out`; then the gradients of candidates, behaviours and positions.
    lengths: [usize; 6],
}

impl Gradients<'_> {
    /// The gradients, after a forward pass that saves what is right.
    fn run<B: Backend>(&self, backend: &B) -> Result<[Vec<f32>; 3]> {
        let Self { op, rows: [targets, history, positions], given, lengths } = self;
        let (t, h, p) = (backend.upload(targets)?, backend.upload(history)?, backend.upload(positions)?);
        let places = |given: Option<&[u32]>| given.map(|places| backend.upload(places)).transpose();
        let (of_history, of_targets) = (places(given[0])?, places(given[1])?);
        let mut inputs = TinInputs::new(backend.view(&t), backend.view(&h), backend.view(&p));
        inputs.history_positions = of_history.as_ref().map(|places| backend.view(places));
        inputs.target_positions = of_targets.as_ref().map(|places| backend.view(places));
        let [histories, targets] = [history, targets].map(|rows| Jagged::from_lengths(&[rows.len()]));
        let batch = backend.batch(&histories?, &targets?)?;
        let mut saved = [backend.zeros::<f32>(lengths[0])?, backend.zeros::<f32>(lengths[1])?];
        let mut out = backend.zeros::<f32>(lengths[0])?;
        let [pooled, lse] = &mut saved;
        let outputs = TinOutputs::new(backend.view_mut(&mut out));
        let outputs = outputs.with_saved(backend.view_mut(pooled), backend.view_mut(lse));
        // What does not fit here is for the backward pass to refuse.
        let _ = backend.tin_into(op, &batch, inputs, outputs);
        let _ = backend.synchronize();
        let ones = backend.upload(&vec![1.0; lengths[2]])?;
        let zeros = |i: usize| backend.zeros::<f32>(lengths[i]);
        let mut out = [zeros(3)?, zeros(4)?, zeros(5)?];
        let mut grads = TinGradients::new();
        let mut views = out.each_mut().map(|rows| Some(backend.view_mut(rows)));
        grads.targets = views[0].take().filter(|_| lengths[3] > 0);
        grads.history = views[1].take().filter(|_| lengths[4] > 0);
        grads.positions = views[2].take().filter(|_| lengths[5] > 0);
        let saved = TinSaved::new(backend.view(&saved[0]), backend.view(&saved[1]));
        backend.tin_backward_into(op, &batch, inputs, saved, backend.view(&ones), grads)?;
        let [targets, history, positions] = &out;
        let get = |rows: &Buffer<B, f32>| backend.download(backend.view(rows));
        Ok([get(targets)?, get(history)?, get(positions)?])
    }
}

/// Gradients where all scores are 0: weights are equal, and sums by position are those of a few numbers.
///
/// # Errors
/// Gradients that are not.
pub fn check_sums_by_position<B: Backend>(backend: &B, _: Rules) -> Result<(), Failure> {
    let op = Tin::new(1).with_scale(0.0).with_positions(3);
    let rows = [&[0.0][..], &[0.0; 4], &[8.0, 4.0, -2.0]];
    let run =
        |given: [Option<&[u32]>; 2], lengths: [usize; 6]| Gradients { op, rows, given, lengths }.run(backend);
    let all = [1, 1, 1, 1, 4, 3];
    let given: [Option<&[u32]>; 2] = [Some(&[0, 0, 2, 2]), Some(&[1])];
    // ṽ = 8 and a = -0.5; ṽ = 4 and a = 3.
    for (given, expected) in [
        ([None, None], [vec![-0.5], vec![2.0; 4], vec![-0.5, 2.0, 6.0]]),
        (given, [vec![3.0], vec![1.0; 4], vec![2.0, 3.0, 2.0]]),
    ] {
        for asked in 0..8 {
            let mut lengths = all;
            (3..6).filter(|place| asked >> (place - 3) & 1 == 0).for_each(|place| lengths[place] = 0);
            for (got, expected) in run(given, lengths)?.iter().zip(&expected) {
                let is_near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-5;
                if !got.iter().zip(expected).all(is_near) {
                    return Err(Failure::new(format!("{got:?}, expected {expected:?}, of {lengths:?}")));
                }
            }
        }
    }
    Ok(())
}

pub(super) fn adds_up_by_position<B: Backend>(backend: &B, rules: Rules) {
    check_sums_by_position(backend, rules).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Gradients where all scores are −6400: a log-sum-exp is too coarse for their weights, which are equal.
///
/// # Errors
/// Gradients that are not.
pub fn check_equal_large_scores<B: Backend>(backend: &B, _: Rules) -> Result<(), Failure> {
    let op = Tin::new(1).with_scale(-100.0);
    let rows = [&[0.0][..], &[0.0; 4], &[8.0]];
    let got = Gradients { op, rows, given: [None, None], lengths: [1, 1, 1, 1, 4, 1] }.run(backend)?;
    for (got, expected) in got.concat().into_iter().zip([8.0, 2.0, 2.0, 2.0, 2.0, 16.0]) {
        if !((got - expected).abs() <= 1e-5) {
            return Err(Failure::new(format!("{got}, expected {expected}")));
        }
    }
    Ok(())
}

pub(super) fn weighs_equal_large_scores<B: Backend>(backend: &B, rules: Rules) {
    check_equal_large_scores(backend, rules).unwrap_or_else(|failure| panic!("{failure}"));
}

pub(super) fn finds_positions_outside_of_gradients<B: Backend>(backend: &B, _: Rules) {
    let op = Tin::new(1).with_positions(2);
    let rows = [&[1.0, 1.0][..], &[1.0, 2.0, 3.0], &[0.0, 0.0]];
    let run = |given: [Option<&[u32]>; 2], lengths: [usize; 6]| {
        argument(Gradients { op, rows, given, lengths }.run(backend))
    };
    for place in 0..3 {
        for bad in [2, u32::MAX] {
            let mut given = [1, 0, 1];
            given[place] = bad;
            assert_eq!(run([Some(&given), None], [2, 2, 2, 2, 3, 2]), "history_positions");
            assert_eq!(run([Some(&given), None], [2, 2, 2, 2, 0, 0]), "history_positions");
        }
    }
    assert_eq!(run([None, Some(&[0, 2])], [2, 2, 2, 0, 0, 2]), "target_positions");
    backend.synchronize().expect("all errors were reported");
}

/// One number too many or too few of each argument, and parameters that are none.
pub(super) fn refuses_gradients_that_do_not_fit<B: Backend>(backend: &B, _: Rules) {
    let op = Tin::new(1).with_positions(2);
    let rows = [&[1.0, 1.0][..], &[1.0, 2.0, 3.0], &[0.0, 0.0]];
    let right = [2, 2, 2, 2, 3, 2];
    let run = |op: Tin, given: [Option<&[u32]>; 2], lengths: [usize; 6]| {
        argument(Gradients { op, rows, given, lengths }.run(backend))
    };
    let names =
        ["saved.pooled", "saved.lse", "grad_out", "grads.targets", "grads.history", "grads.positions"];
    for (place, name) in names.into_iter().enumerate() {
        for wrong in [right[place] - 1, right[place] + 1] {
            let mut lengths = right;
            lengths[place] = wrong;
            assert_eq!(run(op, [None, None], lengths), name, "{lengths:?}");
        }
    }
    for (op, given, name) in [
        (Tin::new(0).with_positions(2), [None, None], "width"),
        (Tin::new(2).with_positions(2), [None, None], "targets"),
        (op.with_positions(0), [None, None], "positions"),
        (op.with_positions(3), [None, None], "positions"),
        (op.with_scale(f32::INFINITY), [None, None], "scale"),
        (op, [Some(&[0, 0][..]), None], "history_positions"),
        (op, [None, Some(&[0][..])], "target_positions"),
    ] {
        assert_eq!(run(op, given, right), name);
    }
}
