//! DIN's local activation unit.

use burn::tensor::{FloatDType, Tensor};
use longseq::{Activation, Din, DinPooling, Result};
use longseq_burn::{Batch, DinLayerTensors, DinTensors, Longseq, fold_dice};

use crate::attention::batch;
use crate::common::{Given, assert_near, check_eager, check_gradients, flat, gradients, random, row};
use crate::eager::{self, Hidden, Users};

const WIDTH: usize = 3;
const UNITS: [usize; 2] = [4, 2];

/// Two layers, the first with Dice, the second with PReLU (one alpha) or a smooth activation.
fn inputs(users: &Users) -> Vec<Given> {
    let [first, second] = UNITS;
    vec![
        random(&[users.candidates(), WIDTH], 1),
        random(&[users.behaviours(), WIDTH], 2),
        random(&[1, second], 3),
        random(&[1], 4),
        random(&[first, 4 * WIDTH], 5),
        random(&[first], 6),
        random(&[second, first], 7),
        random(&[second], 8),
        // Dice: gain, shift, alpha.
        random(&[first], 9),
        random(&[first], 10),
        random(&[first], 11),
        // PReLU.
        random(&[1], 12),
    ]
}

/// The inputs as tensors of their ranks.
struct Network {
    targets: Tensor<2>,
    history: Tensor<2>,
    weights: [Tensor<2>; 3],
    biases: [Tensor<1>; 3],
    dice: [Tensor<1>; 3],
    alpha: Option<Tensor<1>>,
}

impl Network {
    /// Without PReLU's alpha, the second layer's activation is smooth.
    fn new(x: &[Given]) -> Self {
        Self {
            targets: x[0].tensor(),
            history: x[1].tensor(),
            weights: [4, 6, 2].map(|index: usize| x[index].tensor()),
            biases: [5, 7, 3].map(|index: usize| x[index].tensor()),
            dice: [8, 9, 10].map(|index: usize| x[index].tensor()),
            alpha: x.get(11).map(Given::tensor),
        }
    }

    fn activations(&self) -> [Activation<&Tensor<1>>; 2] {
        let [gain, shift, alpha] = &self.dice;
        let second = match &self.alpha {
            Some(alpha) => Activation::Prelu { alpha },
            None => Activation::Sigmoid,
        };
        [Activation::Dice { gain, shift, alpha }, second]
    }

    fn layers(&self) -> [DinLayerTensors<'_>; 2] {
        let [first, second] = self.activations();
        [
            DinLayerTensors::new(&self.weights[0], &self.biases[0], first),
            DinLayerTensors::new(&self.weights[1], &self.biases[1], second),
        ]
    }

    fn ours(&self, longseq: &Longseq, batch: &Batch, op: &Din) -> Result<Tensor<1>> {
        let hidden = self.layers();
        let output = (&self.weights[2], &self.biases[2]);
        let inputs = DinTensors::new(&self.targets, &self.history, &hidden, output.0, output.1);
        Ok(row(longseq.din(op, batch, inputs)?))
    }

    fn hidden(&self) -> [Hidden<'_>; 2] {
        let [first, second] = self.activations();
        [(&self.weights[0], &self.biases[0], first), (&self.weights[1], &self.biases[1], second)]
    }

    fn eager(&self, users: &Users, op: &Din) -> Result<Tensor<1>> {
        let output = (&self.weights[2], &self.biases[2]);
        Ok(row(eager::din(op.pooling, users, &self.targets, &self.history, &self.hidden(), output)))
    }
}

#[test]
fn weights_and_the_vectors_of_activations() -> Result<()> {
    let users = Users::new(&[3, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users);
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let op = Din::new(WIDTH).with_pooling(pooling);
        let what = format!("{pooling:?}");
        let ours = |x: &[Given]| Network::new(x).ours(&longseq, &batch, &op);
        let eager = |x: &[Given]| Network::new(x).eager(&users, &op);
        check_eager(&what, &x, ours, eager)?;
        check_gradients(&what, &x[..11], ours, eager)?;
    }
    Ok(())
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[3, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    for (dtype, bound) in [(FloatDType::F16, 5e-3), (FloatDType::BF16, 4e-2)] {
        // Rows and weights are rounded; biases and vectors stay as they are.
        let is_row = |index| [0, 1, 2, 4, 6].contains(&index);
        let round = |(index, x): (usize, &Given)| if is_row(index) { x.cast(dtype) } else { x.clone() };
        let x: Vec<Given> = inputs(&users).iter().enumerate().map(round).collect();
        let wide: Vec<Given> = x.iter().map(Given::wide).collect();
        let got = gradients(&x, |x| Network::new(x).ours(&longseq, &batch, &op))?;
        let exact = gradients(&wide, |x| Network::new(x).eager(&users, &op))?;
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
    let x = &inputs(&users)[..11];
    let network = Network::new(x);
    let hidden = network.layers();
    let output = (&network.weights[2], &network.biases[2]);
    let tensors = DinTensors::new(&network.targets, &network.history, &hidden, output.0, output.1);
    let pairs = batch.batch().pairs() as f64;
    let wide = Network::new(&x.iter().map(Given::wide).collect::<Vec<_>>());
    for (layer, units) in UNITS.into_iter().enumerate() {
        let (mean, squares) = longseq.din_statistics(&op, &batch, tensors, layer)?;
        let mut numbers = Vec::new();
        for [n, length, m, count] in users.each() {
            let (q, s) =
                (wide.targets.clone().narrow(0, m, count), wide.history.clone().narrow(0, n, length));
            let output = (&wide.weights[2], &wide.biases[2]);
            numbers.push(eager::din_network(&q, &s, &wide.hidden(), output, Some(layer)));
        }
        let numbers = Tensor::cat(numbers, 0);
        let exact = numbers.clone().mean_dim(0);
        assert_near("mean", &flat(&mean), &flat(&exact), 1e-5);
        let centred = (numbers - exact).square().sum_dim(0);
        assert_near("squares", &flat(&squares), &flat(&centred), 1e-5);
        // gain·x + shift = γ·(x − mean)/√(variance + ε) + β
        let variance = squares / pairs;
        let (gamma, beta) = (random(&[units], 20).tensor::<1>(), random(&[units], 21).tensor::<1>());
        let (gain, shift) = fold_dice(&mean, &variance, 1e-8, Some(&gamma), Some(&beta));
        let x = 0.7;
        let folded = gain * x + shift;
        let plain = (-mean + x) / (variance + 1e-8).sqrt() * gamma + beta;
        assert_near("fold", &flat(&folded), &flat(&plain), 1e-5);
    }
    Ok(())
}

#[test]
fn gamma_and_beta_of_dice_have_gradients() -> Result<()> {
    let users = Users::new(&[3], &[2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Din::new(WIDTH);
    let x = inputs(&users);
    let folded = |given: &[Given], is_wide: bool| {
        let of = |x: &Given| if is_wide { x.wide() } else { x.clone() };
        let (mean, variance) = (of(&random(&[4], 30)).tensor::<1>(), of(&random(&[4], 31)).tensor::<1>());
        let (gamma, beta) = (given[0].tensor::<1>(), given[1].tensor::<1>());
        let (gain, shift) = fold_dice(&mean, &variance.square(), 1e-3, Some(&gamma), Some(&beta));
        let mut network = Network::new(&x[..11].iter().map(of).collect::<Vec<_>>());
        (network.dice[0], network.dice[1]) = (gain, shift);
        network
    };
    check_gradients(
        "gamma, beta",
        &[random(&[4], 32), random(&[4], 33)],
        |given| folded(given, false).ours(&longseq, &batch, &op),
        |given| folded(given, true).eager(&users, &op),
    )
}
