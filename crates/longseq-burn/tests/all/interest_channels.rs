//! Interest channels.

use burn::tensor::{DType, FloatDType, Tensor};
use longseq::{InterestChannels, KeptAmong, Result};
use longseq_burn::{InterestChannelsTensors, Longseq};

use crate::attention::batch;
use crate::common::{Given, assert_near, check_eager, flat, gradients, ints, random, row};
use crate::eager::Users;

const WIDTH: usize = 4;
const CHANNELS: usize = 2;

/// The rows of a matrix `[c, d]` at right angles: Gram–Schmidt.
fn right_angles(axes: &Tensor<2>) -> Tensor<2> {
    let mut done: Vec<Tensor<2>> = Vec::new();
    let [count, _] = axes.dims();
    for index in 0..count {
        let axis = axes.clone().narrow(0, index, 1);
        let mut rest = axis.clone();
        for other in &done {
            rest = rest - other.clone() * (axis.clone() * other.clone()).sum_dim(1);
        }
        done.push(rest.clone() / rest.square().sum_dim(1).sqrt());
    }
    Tensor::cat(done, 0)
}

/// A candidate's axes at right angles.
fn angles_of(axes: &Tensor<3>, candidate: usize) -> Tensor<2> {
    right_angles(&axes.clone().narrow(0, candidate, 1).squeeze_dim(0))
}

/// The positions that the channels of each candidate keep.
fn choose(op: &InterestChannels, users: &Users, x: &[Given]) -> Vec<Vec<Vec<usize>>> {
    let (axes, history) = (x[0].wide().tensor::<3>(), x[1].wide().tensor::<2>());
    let mut kept = Vec::new();
    for [n, length, m, count] in users.each() {
        for candidate in m..m + count {
            let mut scores: Vec<Vec<f64>> = Vec::new();
            if length > 0 {
                let angles = angles_of(&axes, candidate);
                let products = flat(&history.clone().narrow(0, n, length).matmul(angles.transpose()));
                scores.extend(products.chunks(op.channels).map(<[f64]>::to_vec));
            }
            let best = |row: &[f64]| (0..op.channels).fold(0, |i, j| if row[j] > row[i] { j } else { i });
            let mut channels = Vec::new();
            for i in 0..op.channels {
                let is_own = |l: &usize| best(&scores[*l]) == i;
                let mut places: Vec<usize> = (0..length).collect();
                if op.among == KeptAmong::Routed {
                    places.retain(is_own);
                }
                places.sort_by(|&a, &b| scores[b][i].total_cmp(&scores[a][i]));
                places.truncate(op.top_k);
                places.retain(is_own);
                channels.push(places);
            }
            kept.push(channels);
        }
    }
    kept
}

/// Channels that keep these positions, `[M, c, d]`.
fn eager(op: &InterestChannels, users: &Users, kept: &[Vec<Vec<usize>>], x: &[Given]) -> Result<Tensor<1>> {
    let (axes, history) = (x[0].tensor::<3>(), x[1].tensor::<2>());
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each() {
        for candidate in m..m + count {
            let angles = angles_of(&axes, candidate);
            for (i, places) in kept[candidate].iter().enumerate() {
                if places.is_empty() {
                    rows.push(Tensor::<2>::zeros([1, op.width], (&axes.device(), axes.dtype())));
                    continue;
                }
                let at = places.iter().map(|&position| (position + n) as i64).collect();
                let e = history.clone().select(0, ints(at, [places.len()]));
                let scores = e.clone().matmul(angles.clone().narrow(0, i, 1).transpose());
                let sum = (e * scores).sum_dim(0) / length as f64;
                rows.push(match op.normalise {
                    true => sum.clone() / sum.square().sum_dim(1).sqrt(),
                    false => sum,
                });
            }
        }
    }
    Ok(row(Tensor::cat(rows, 0)))
}

fn inputs(users: &Users) -> Vec<Given> {
    vec![random(&[users.candidates(), CHANNELS, WIDTH], 1), random(&[users.behaviours(), WIDTH], 2)]
}

#[test]
fn axes_and_behaviours() -> Result<()> {
    let users = Users::new(&[9, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users);
    for among in [KeptAmong::Routed, KeptAmong::All] {
        for normalise in [false, true] {
            let op = InterestChannels::new(WIDTH).with_channels(CHANNELS).with_top_k(2);
            let op = op.with_among(among).with_normalise(normalise);
            let kept = choose(&op, &users, &x);
            assert!(kept.iter().flatten().any(|places| places.len() == 2));
            // No differences: a step might change what is kept.
            check_eager(
                &format!("{among:?}, {normalise}"),
                &x,
                |x| {
                    let (axes, history) = (x[0].tensor(), x[1].tensor());
                    let given = InterestChannelsTensors::new(&axes, &history);
                    Ok(row(longseq.interest_channels(&op, &batch, given)?))
                },
                |x| eager(&op, &users, &kept, x),
            )?;
        }
    }
    Ok(())
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[6], &[2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = InterestChannels::new(WIDTH).with_channels(CHANNELS);
    let x: Vec<Given> = inputs(&users).iter().map(|x| x.cast(FloatDType::F16)).collect();
    let wide: Vec<Given> = x.iter().map(Given::wide).collect();
    let kept = choose(&op, &users, &x);
    let ours = |x: &[Given]| -> Result<Tensor<1>> {
        let (axes, history) = (x[0].tensor(), x[1].tensor());
        let given = InterestChannelsTensors::new(&axes, &history);
        Ok(row(longseq.interest_channels(&op, &batch, given)?))
    };
    let eager = |x: &[Given]| eager(&op, &users, &kept, x);
    assert_eq!(ours(&x)?.dtype(), DType::F16);
    assert_near("out", &flat(&ours(&x)?), &flat(&eager(&wide)?), 2e-3);
    for (got, exact) in gradients(&x, ours)?.iter().zip(gradients(&wide, eager)?) {
        assert_near("gradient", got, &exact, 1e-2);
    }
    Ok(())
}
