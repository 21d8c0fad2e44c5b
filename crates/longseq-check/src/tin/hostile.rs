//! Positions of every kind, and calls that are refused.

use longseq::*;

use crate::case::Rules;

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
