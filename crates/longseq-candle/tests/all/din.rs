//! DIN's local activation unit.

use candle_core::{DType, Result, Tensor};
use longseq::{Activation, Din, DinPooling};
use longseq_candle::{Batch, DinLayerTensors, DinTensors, Longseq, fold_dice};

use crate::attention::batch;
use crate::common::{assert_near, check_chosen, check_eager, check_gradients, flat, gradients, random};
use crate::eager::{self, Users};

const WIDTH: usize = 3;
const UNITS: [usize; 2] = [4, 2];

/// Two layers, the first with Dice, the second with PReLU (one alpha) or the given smooth activation: the tensors, and how many there are
/// before the layers' vectors.
fn inputs(users: &Users) -> Result<Vec<Tensor>> {
    let [first, second] = UNITS;
    Ok(vec![
        random(&[users.candidates(), WIDTH], 1)?,
        random(&[users.behaviours(), WIDTH], 2)?,
        random(&[1, second], 3)?,
        random(&[1], 4)?,
        random(&[first, 4 * WIDTH], 5)?,
        random(&[first], 6)?,
        random(&[second, first], 7)?,
        random(&[second], 8)?,
        // Dice: gain, shift, alpha.
        random(&[first], 9)?,
        random(&[first], 10)?,
        random(&[first], 11)?,
        // PReLU.
        random(&[1], 12)?,
    ])
}

fn activations(x: &[Tensor], is_smooth: bool) -> [Activation<&Tensor>; 2] {
    let dice = Activation::Dice { gain: &x[8], shift: &x[9], alpha: &x[10] };
    [dice, if is_smooth { Activation::Sigmoid } else { Activation::Prelu { alpha: &x[11] } }]
}

fn ours(longseq: &Longseq, batch: &Batch, op: &Din, x: &[Tensor], is_smooth: bool) -> Result<Tensor> {
    let [first, second] = activations(x, is_smooth);
    let hidden = [DinLayerTensors::new(&x[4], &x[5], first), DinLayerTensors::new(&x[6], &x[7], second)];
    longseq.din(op, batch, DinTensors::new(&x[0], &x[1], &hidden, &x[2], &x[3]))
}

fn eager(users: &Users, op: &Din, x: &[Tensor], is_smooth: bool) -> Result<Tensor> {
    let [first, second] = activations(x, is_smooth);
    let hidden = [(&x[4], &x[5], first), (&x[6], &x[7], second)];
    eager::din(op.pooling, users, &x[0], &x[1], &hidden, (&x[2], &x[3]))
}

#[test]
fn weights_and_the_vectors_of_activations() -> Result<()> {
    let users = Users::new(&[3, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let op = Din::new(WIDTH).with_pooling(pooling);
        let what = format!("{pooling:?}");
        check_eager(&what, &x, |x| ours(&longseq, &batch, &op, x, false), |x| eager(&users, &op, x, false))?;
        let x = &x[..11];
        check_gradients(&what, x, |x| ours(&longseq, &batch, &op, x, true), |x| eager(&users, &op, x, true))?;
    }
    Ok(())
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[3, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    // Rows and weights are rounded; biases and vectors stay as they are.
    let rounded = |x: &[Tensor], dtype| -> Result<Vec<Tensor>> {
        let is_row = |index| [0, 1, 2, 4, 6].contains(&index);
        let round =
            |(index, x): (usize, &Tensor)| if is_row(index) { x.to_dtype(dtype) } else { Ok(x.clone()) };
        x.iter().enumerate().map(round).collect()
    };
    for (dtype, bound) in [(DType::F16, 5e-3), (DType::BF16, 4e-2)] {
        let x = rounded(&inputs(&users)?, dtype)?;
        let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
        let got = gradients(&x, |x| ours(&longseq, &batch, &op, x, false))?;
        let exact = gradients(&wide, |x| eager(&users, &op, x, false))?;
        for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
            assert_near(&format!("{dtype:?}: gradient {index}"), got, &exact, bound);
        }
    }
    Ok(())
}

#[test]
fn statistics_and_the_fold_of_dice() -> Result<()> {
    let users = Users::new(&[3, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    let x = inputs(&users)?;
    let [first, second] = activations(&x, true);
    let hidden = [DinLayerTensors::new(&x[4], &x[5], first), DinLayerTensors::new(&x[6], &x[7], second)];
    let tensors = DinTensors::new(&x[0], &x[1], &hidden, &x[2], &x[3]);
    let pairs = batch.batch().pairs() as f64;
    let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
    for (layer, &units) in UNITS.iter().enumerate() {
        let (mean, squares) = longseq.din_statistics(&op, &batch, tensors, layer)?;
        let [first, second] = activations(&wide, true);
        let hidden = [(&wide[4], &wide[5], first), (&wide[6], &wide[7], second)];
        let mut numbers = Vec::new();
        for [n, length, m, count] in users.each() {
            let (q, s) = (wide[0].narrow(0, m, count)?, wide[1].narrow(0, n, length)?);
            numbers.push(eager::din_network(&q, &s, &hidden, (&wide[2], &wide[3]), Some(layer))?);
        }
        let numbers = Tensor::cat(&numbers, 0)?;
        let exact = numbers.mean(0)?;
        assert_near("mean", &flat(&mean)?, &flat(&exact)?, 1e-5);
        let centred = numbers.broadcast_sub(&exact)?.sqr()?.sum(0)?;
        assert_near("squares", &flat(&squares)?, &flat(&centred)?, 1e-5);
        // gain·x + shift = γ·(x − mean)/√(variance + ε) + β
        let variance = (squares / pairs)?;
        let (gamma, beta) = (random(&[units], 20)?, random(&[units], 21)?);
        let (gain, shift) = fold_dice(&mean, &variance, 1e-8, Some(&gamma), Some(&beta))?;
        let x = 0.7;
        let folded = ((&gain * x)? + shift)?;
        let plain = ((mean.neg()? + x)? / (variance + 1e-8)?.sqrt()?)?.mul(&gamma)?.add(&beta)?;
        assert_near("fold", &flat(&folded)?, &flat(&plain)?, 1e-5);
    }
    Ok(())
}

#[test]
fn gamma_and_beta_of_dice_have_gradients() -> Result<()> {
    let users = Users::new(&[3], &[2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    let x = inputs(&users)?;
    let (mean, variance) = (random(&[4], 30)?, random(&[4], 31)?.sqr()?);
    let folded = |x: &[Tensor], gamma: &Tensor, beta: &Tensor| -> Result<Vec<Tensor>> {
        let (mean, variance) = (mean.to_dtype(gamma.dtype())?, variance.to_dtype(gamma.dtype())?);
        let (gain, shift) = fold_dice(&mean, &variance, 1e-3, Some(gamma), Some(beta))?;
        let mut x: Vec<Tensor> = x.iter().map(|x| x.to_dtype(gamma.dtype())).collect::<Result<_>>()?;
        (x[8], x[9]) = (gain, shift);
        Ok(x)
    };
    check_gradients(
        "gamma, beta",
        &[random(&[4], 32)?, random(&[4], 33)?],
        |given| ours(&longseq, &batch, &op, &folded(&x, &given[0], &given[1])?, true),
        |given| eager(&users, &op, &folded(&x, &given[0], &given[1])?, true),
    )
}

/// The first layer's activation, one of all kinds.
fn first_activation(kind: usize, x: &[Tensor]) -> Activation<&Tensor> {
    match kind {
        0 => Activation::Dice { gain: &x[8], shift: &x[9], alpha: &x[10] },
        1 => Activation::Prelu { alpha: &x[11] },
        2 => Activation::Sigmoid,
        _ => Activation::Relu,
    }
}

/// The numbers of a hidden layer of all pairs.
fn eager_numbers(
    users: &Users,
    x: &[Tensor],
    hidden: &[(&Tensor, &Tensor, Activation<&Tensor>)],
    layer: usize,
) -> Result<Tensor> {
    let mut numbers = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[1] > 0) {
        let (q, s) = (x[0].narrow(0, m, count)?, x[1].narrow(0, n, length)?);
        numbers.push(eager::din_network(&q, &s, hidden, (&x[2], &x[3]), Some(layer))?);
    }
    Tensor::cat(&numbers, 0)
}

/// Both layers' statistics: the second's gradients go through the first.
#[test]
fn statistics_have_gradients() -> Result<()> {
    let users = Users::new(&[3, 0, 2], &[2, 1, 2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    let x = inputs(&users)?;
    for (layer, kind) in [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)] {
        let ours = |x: &[Tensor]| {
            let first = DinLayerTensors::new(&x[4], &x[5], first_activation(kind, x));
            let hidden = [first, DinLayerTensors::new(&x[6], &x[7], Activation::Sigmoid)];
            let tensors = DinTensors::new(&x[0], &x[1], &hidden, &x[2], &x[3]);
            let (mean, squares) = longseq.din_statistics(&op, &batch, tensors, layer)?;
            Tensor::stack(&[mean, squares], 0)
        };
        let eager = |x: &[Tensor]| {
            let hidden = [(&x[4], &x[5], first_activation(kind, x)), (&x[6], &x[7], Activation::Sigmoid)];
            let numbers = eager_numbers(&users, x, &hidden, layer)?;
            let mean = numbers.mean(0)?;
            let squares = numbers.broadcast_sub(&mean)?.sqr()?.sum(0)?;
            Tensor::stack(&[mean, squares], 0)
        };
        check_chosen(&format!("layer {layer}, activation {kind}"), &x, ours, eager)?;
    }
    Ok(())
}

#[test]
fn statistics_of_more_pairs_than_their_gradients_hold_at_a_time() -> Result<()> {
    let (longseq, op) = (Longseq::cpu(), Din::new(WIDTH));
    // One long history, and many candidates.
    for (length, count) in [(9000, 2), (7, 1500)] {
        let users = Users::new(&[length], &[count]);
        let batch = batch(&longseq, &users)?;
        let x = inputs(&users)?;
        let ours = |x: &[Tensor]| {
            let [first, _] = activations(x, true);
            let hidden = [DinLayerTensors::new(&x[4], &x[5], first)];
            let output = random(&[1, UNITS[0]], 40)?;
            let tensors = DinTensors::new(&x[0], &x[1], &hidden, &output, &x[3]);
            Ok(longseq.din_statistics(&op, &batch, tensors, 0)?.0)
        };
        let eager = |x: &[Tensor]| {
            let [first, _] = activations(x, true);
            let hidden = [(&x[4], &x[5], first)];
            eager_numbers(&users, x, &hidden, 0)?.mean(0)
        };
        let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
        let exact = gradients(&wide, eager)?;
        for (index, (got, exact)) in gradients(&x, ours)?.iter().zip(exact).enumerate() {
            assert_near(&format!("{length} behaviours: gradient {index}"), got, &exact, 1e-5);
        }
    }
    Ok(())
}
