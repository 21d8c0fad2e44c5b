//! Steps of optimisers, against numbers worked out by hand.

use longseq::reference::{UpdatedRowsReference, update_rows};
use longseq::*;

/// A step on a table of 3 rows of 2, of which rows 0 and 2 have gradients (3, 4) and (0, -2); the weights are 1.
fn step(op: Optimiser, mut state: Vec<Vec<f32>>) -> UpdatedRowsReference {
    let mut table = [1.0f32; 6];
    let (ids, rows, count) = ([0, 2, 77], [3.0, 4.0, 0.0, -2.0, 9.0, 9.0], [2]);
    let gradient = SparseGradient::new(Host::view(&ids), Host::view(&rows), Host::view(&count));
    let state = match &mut state[..] {
        [] => OptimiserState::Empty,
        [sums] => OptimiserState::Sums(Host::view_mut(sums)),
        [first, second, ..] => {
            OptimiserState::Moments { first: Host::view_mut(first), second: Host::view_mut(second) }
        }
    };
    let table = TableMut::new(3, 2, Host::view_mut(&mut table));
    update_rows(&op, &table, &state, gradient).expect("a valid step")
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64]) {
    let close =
        got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() <= 1e-6 * expected.abs());
    assert!(got.len() == expected.len() && close, "{got:?} instead of {expected:?}");
}

#[test]
fn of_sgd() {
    let got = step(Optimiser::sgd(0.5), vec![]);
    assert_close(&got.table, &[-0.5, -1.0, 1.0, 1.0, 1.0, 2.0]);
    // With decay, 1 - 0.5·0.5 of a weight remains, of the rows that were met.
    let got = step(Optimiser::sgd(0.5).with_weight_decay(0.5), vec![]);
    assert_close(&got.table, &[-0.75, -1.25, 1.0, 1.0, 0.75, 1.75]);
    assert!(got.state.is_empty());
}

#[test]
fn of_row_wise_adagrad() {
    // Means of squares: (9 + 16)/2 = 12.5 and (0 + 4)/2 = 2; roots of 3.5 + 12.5 and 7 + 2: 4 and 3.
    let got = step(Optimiser::row_wise_adagrad(0.5).with_eps(1.0), vec![vec![3.5, 5.0, 7.0]]);
    assert_close(&got.state[0], &[16.0, 5.0, 9.0]);
    assert_close(
        &got.table,
        &[1.0 - 0.5 * 3.0 / 5.0, 1.0 - 0.5 * 4.0 / 5.0, 1.0, 1.0, 1.0, 1.0 + 0.5 * 2.0 / 4.0],
    );
}

#[test]
fn of_adagrad() {
    // Sums: 16 + 9, 9 + 16, and 1 + 0, 0 + 4.
    let got = step(Optimiser::adagrad(1.0), vec![vec![16.0, 9.0, 8.0, 8.0, 1.0, 0.0]]);
    assert_close(&got.state[0], &[25.0, 25.0, 8.0, 8.0, 1.0, 4.0]);
    assert_close(&got.table, &[0.4, 0.2, 1.0, 1.0, 1.0, 2.0]);
}

#[test]
fn of_adam() {
    // At the first step from zeros the moments are the gradient and its square: each weight moves by the rate.
    let op = Optimiser::adam(0.25, 1).with_betas(0.75, 0.875);
    let got = step(op, vec![vec![0.0; 6], vec![0.0; 6]]);
    assert_close(&got.table, &[0.75, 0.75, 1.0, 1.0, 1.0, 1.25]);
    assert_close(&got.state[0], &[0.75, 1.0, 0.0, 0.0, 0.0, -0.5]);
    assert_close(&got.state[1], &[1.125, 2.0, 0.0, 0.0, 0.0, 0.5]);
    // β₁ = 1/2, β₂ = 3/4, step 2: the corrections are 1/(1 - 1/4) = 4/3 and 1/(1 - 9/16) = 16/7.
    let op = Optimiser::adam(1.0, 2).with_betas(0.5, 0.75);
    let got = step(op, vec![vec![1.0, 0.0, 5.0, 5.0, 0.0, 0.0], vec![1.0, 0.0, 5.0, 5.0, 0.0, 4.0]]);
    assert_close(&got.state[0], &[2.0, 2.0, 5.0, 5.0, 0.0, -1.0]);
    assert_close(&got.state[1], &[3.0, 4.0, 5.0, 5.0, 0.0, 4.0]);
    let root = (16.0f64 / 7.0).sqrt();
    let moved = |m: f64, v: f64| 1.0 - m * 4.0 / 3.0 / (v.sqrt() * root);
    assert_close(&got.table, &[moved(2.0, 3.0), moved(2.0, 4.0), 1.0, 1.0, 1.0, moved(-1.0, 4.0)]);
}
