//! Interest channels.

use candle_core::{DType, Result, Tensor};
use longseq::{InterestChannels, KeptAmong};
use longseq_candle::{InterestChannelsTensors, Longseq};

use crate::attention::batch;
use crate::common::{assert_near, check_chosen, flat, gradients, random};
use crate::eager::{self, Users};

const WIDTH: usize = 4;
const CHANNELS: usize = 2;

/// The rows of a matrix `[c, d]` at right angles, in `f64`: Gram–Schmidt.
pub(crate) fn right_angles(axes: &Tensor) -> Result<Tensor> {
    let mut done: Vec<Tensor> = Vec::new();
    for index in 0..axes.dim(0)? {
        let axis = axes.narrow(0, index, 1)?;
        let mut rest = axis.clone();
        for other in &done {
            rest = rest.sub(&other.broadcast_mul(&axis.mul(other)?.sum_keepdim(1)?)?)?;
        }
        done.push(rest.broadcast_div(&rest.sqr()?.sum_keepdim(1)?.sqrt()?)?);
    }
    Tensor::cat(&done, 0)
}

/// The positions that the channels of each candidate keep.
pub(crate) fn choose(
    op: &InterestChannels,
    users: &Users,
    axes: &Tensor,
    history: &Tensor,
) -> Result<Vec<Vec<Vec<u32>>>> {
    let (axes, history) = (eager::wide(axes)?, eager::wide(history)?);
    let mut kept = Vec::new();
    for [n, length, m, count] in users.each() {
        for candidate in m..m + count {
            let angles = right_angles(&axes.get(candidate)?)?;
            let scores: Vec<Vec<f64>> = match length {
                0 => Vec::new(),
                _ => history.narrow(0, n, length)?.matmul(&angles.t()?)?.to_vec2()?,
            };
            let best = |row: &Vec<f64>| (0..op.channels).fold(0, |i, j| if row[j] > row[i] { j } else { i });
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
                channels.push(places.into_iter().map(|l| l as u32).collect());
            }
            kept.push(channels);
        }
    }
    Ok(kept)
}

/// Channels that keep these positions, `[M, c, d]`.
pub(crate) fn eager(
    op: &InterestChannels,
    users: &Users,
    kept: &[Vec<Vec<u32>>],
    axes: &Tensor,
    history: &Tensor,
) -> Result<Tensor> {
    let mut candidates = Vec::new();
    for [n, length, m, count] in users.each() {
        for candidate in m..m + count {
            let angles = right_angles(&axes.get(candidate)?)?;
            let mut rows = Vec::new();
            for (i, places) in kept[candidate].iter().enumerate() {
                if places.is_empty() {
                    rows.push(Tensor::zeros((1, op.width), axes.dtype(), axes.device())?);
                    continue;
                }
                let at: Vec<u32> = places.iter().map(|&position| position + n as u32).collect();
                let e = history.index_select(&Tensor::new(at, axes.device())?, 0)?;
                let scores = e.matmul(&angles.narrow(0, i, 1)?.t()?)?;
                let row = (e.broadcast_mul(&scores)?.sum_keepdim(0)? / length as f64)?;
                rows.push(match op.normalise {
                    true => row.broadcast_div(&row.sqr()?.sum_keepdim(1)?.sqrt()?)?,
                    false => row,
                });
            }
            candidates.push(Tensor::cat(&rows, 0)?);
        }
    }
    Tensor::stack(&candidates, 0)
}

fn inputs(users: &Users) -> Result<[Tensor; 2]> {
    let axes = random(&[users.candidates(), CHANNELS, WIDTH], 1)?;
    Ok([axes, random(&[users.behaviours(), WIDTH], 2)?])
}

#[test]
fn axes_and_behaviours() -> Result<()> {
    let users = Users::new(&[9, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    for among in [KeptAmong::Routed, KeptAmong::All] {
        for normalise in [false, true] {
            let op = InterestChannels::new(WIDTH).with_channels(CHANNELS).with_top_k(2);
            let op = op.with_among(among).with_normalise(normalise);
            let kept = choose(&op, &users, &x[0], &x[1])?;
            assert!(kept.iter().flatten().any(|places| places.len() == 2));
            check_chosen(
                &format!("{among:?}, {normalise}"),
                &x,
                |x| longseq.interest_channels(&op, &batch, InterestChannelsTensors::new(&x[0], &x[1])),
                |x| eager(&op, &users, &kept, &x[0], &x[1]),
            )?;
        }
    }
    Ok(())
}

#[test]
fn flat_axes_of_16_bits() -> Result<()> {
    let users = Users::new(&[6], &[2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = InterestChannels::new(WIDTH).with_channels(CHANNELS);
    let [axes, history] = inputs(&users)?;
    let x = [axes.reshape((2, CHANNELS * WIDTH))?.to_dtype(DType::F16)?, history.to_dtype(DType::F16)?];
    let wide = [eager::wide(&x[0].reshape((2, CHANNELS, WIDTH))?)?, eager::wide(&x[1])?];
    let kept = choose(&op, &users, &wide[0], &wide[1])?;
    let ours =
        |x: &[Tensor]| longseq.interest_channels(&op, &batch, InterestChannelsTensors::new(&x[0], &x[1]));
    let eager = |x: &[Tensor]| eager(&op, &users, &kept, &x[0], &x[1]);
    assert_eq!(ours(&x)?.dtype(), DType::F16);
    assert_near("out", &flat(&ours(&x)?)?, &flat(&eager(&wide)?)?, 2e-3);
    for (got, exact) in gradients(&x, ours)?.iter().zip(gradients(&wide, eager)?) {
        assert_near("gradient", got, &exact, 1e-2);
    }
    Ok(())
}
