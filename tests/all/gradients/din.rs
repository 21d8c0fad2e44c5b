//! Gradients of DIN's local activation unit, and the statistics of its layers.

use longseq::reference::*;
use longseq::*;
use longseq_check::golden::Golden;

use super::*;

/// A hidden layer.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation<Vec<f32>>,
}

/// Inputs of DIN, and the gradient that comes in.
struct Case {
    op: Din,
    batch: Batch,
    targets: Vec<f32>,
    history: Vec<f32>,
    hidden: Vec<Layer>,
    output_weight: Vec<f32>,
    output_bias: Vec<f32>,
    grad_out: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Relu,
    Sigmoid,
    SharedPrelu,
    Prelu,
    Dice,
}

const KINDS: [Kind; 5] = [Kind::Relu, Kind::Sigmoid, Kind::SharedPrelu, Kind::Prelu, Kind::Dice];

impl Case {
    fn new(pooling: DinPooling, kind: Kind, units: &[usize]) -> Self {
        let mut numbers = Numbers(5);
        let batch = batch(&[3, 0, 2, 1], &[2, 1, 1, 0], 1);
        let op = Din::new(3).with_pooling(pooling);
        let targets = numbers.f32(batch.targets().rows() * op.width);
        let history = numbers.f32(batch.histories().rows() * op.width);
        let mut fan_in = 4 * op.width;
        let mut layer = |&units: &usize| {
            let (weight, bias) = (numbers.f32(units * fan_in), numbers.f32(units));
            fan_in = units;
            let activation = match kind {
                Kind::Relu => Activation::Relu,
                Kind::Sigmoid => Activation::Sigmoid,
                Kind::SharedPrelu => Activation::Prelu { alpha: numbers.f32(1) },
                Kind::Prelu => Activation::Prelu { alpha: numbers.f32(units) },
                Kind::Dice => {
                    let (gain, shift) = (numbers.f32(units), numbers.f32(units));
                    Activation::Dice { gain, shift, alpha: numbers.f32(units) }
                }
            };
            Layer { weight, bias, activation }
        };
        let hidden = units.iter().map(&mut layer).collect();
        let grad_out = numbers.f64(targets.len());
        let (output_weight, output_bias) = (numbers.f32(fan_in), numbers.f32(1));
        Self { op, batch, targets, history, hidden, output_weight, output_bias, grad_out }
    }

    fn with_inputs<R>(&self, call: impl FnOnce(&DinInputs<'_, Host, f32>) -> R) -> R {
        let hidden: Vec<DinLayer<'_, Host, f32>> = self.hidden.iter().map(view_of_layer).collect();
        let weight = Host::view(&self.output_weight);
        let bias = Host::view(&self.output_bias);
        call(&DinInputs::new(Host::view(&self.targets), Host::view(&self.history), &hidden, weight, bias))
    }

    fn loss(&self) -> f64 {
        self.with_inputs(|inputs| dot(&din(&self.op, &self.batch, inputs).unwrap(), &self.grad_out))
    }

    fn gradient(&self) -> DinGradientReference {
        self.with_inputs(|inputs| din_backward(&self.op, &self.batch, inputs, &self.grad_out).unwrap())
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let mut tensors = vec![
            ("targets", &mut self.targets),
            ("history", &mut self.history),
            ("output_weight", &mut self.output_weight),
            ("output_bias", &mut self.output_bias),
        ];
        for layer in &mut self.hidden {
            tensors.extend([("weight", &mut layer.weight), ("bias", &mut layer.bias)]);
            match &mut layer.activation {
                Activation::Prelu { alpha } => tensors.push(("alpha", alpha)),
                Activation::Dice { gain, shift, alpha } => {
                    tensors.extend([("gain", gain), ("shift", shift), ("alpha", alpha)]);
                }
                _ => {}
            }
        }
        tensors
    }

    fn compare(&mut self, gradient: DinGradientReference) -> Result<(), String> {
        let mut gradients = vec![
            ("targets", gradient.targets),
            ("history", gradient.history),
            ("output_weight", gradient.output_weight),
            ("output_bias", gradient.output_bias),
        ];
        for layer in gradient.hidden {
            gradients.extend([("weight", layer.weight), ("bias", layer.bias)]);
            match layer.activation {
                Activation::Prelu { alpha } => gradients.push(("alpha", alpha)),
                Activation::Dice { gain, shift, alpha } => {
                    gradients.extend([("gain", gain), ("shift", shift), ("alpha", alpha)]);
                }
                _ => {}
            }
        }
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

fn view_of_layer(layer: &Layer) -> DinLayer<'_, Host, f32> {
    let activation = match &layer.activation {
        Activation::Prelu { alpha } => Activation::Prelu { alpha: Host::view(alpha) },
        Activation::Dice { gain, shift, alpha } => {
            Activation::Dice { gain: Host::view(gain), shift: Host::view(shift), alpha: Host::view(alpha) }
        }
        Activation::Sigmoid => Activation::Sigmoid,
        _ => Activation::Relu,
    };
    DinLayer::new(Host::view(&layer.weight), Host::view(&layer.bias), activation)
}

#[test]
fn of_every_activation_and_pooling() {
    for kind in KINDS {
        for pooling in [DinPooling::Sum, DinPooling::Softmax] {
            for units in [&[4][..], &[4, 3]] {
                let mut case = Case::new(pooling, kind, units);
                let gradient = case.gradient();
                case.compare(gradient).unwrap_or_else(|error| panic!("{kind:?} {pooling:?}: {error}"));
            }
        }
    }
}

#[test]
fn of_three_layers() {
    let mut case = Case::new(DinPooling::Softmax, Kind::Dice, &[3, 2, 4]);
    let gradient = case.gradient();
    case.compare(gradient).unwrap();
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let mut case = Case::new(DinPooling::Sum, Kind::Dice, &[4, 3]);
    let right = case.gradient();
    // The history's part through the network left out, or the direct one.
    let mut wrong = right.clone();
    wrong.history.iter_mut().for_each(|grad| *grad *= 0.5);
    assert!(case.compare(wrong).unwrap_err().starts_with("history"));
    // A pair forgotten in a sum over all pairs.
    let mut wrong = right.clone();
    wrong.output_bias[0] -= case.grad_out[0] * f64::from(case.history[0]);
    assert!(case.compare(wrong).unwrap_err().starts_with("output_bias"));
    // The Jacobian of softmax forgotten.
    case.op.pooling = DinPooling::Softmax;
    let mut wrong = case.gradient();
    wrong.output_bias = right.output_bias;
    assert!(case.compare(wrong).unwrap_err().starts_with("output_bias"));
}

#[test]
fn rows_of_nobody_and_empty_histories_get_zeros() {
    let mut case = Case::new(DinPooling::Softmax, Kind::Sigmoid, &[4]);
    let (targets, history) = (case.targets.len(), case.history.len());
    case.targets[targets - 3..].fill(f32::NAN);
    case.history[history - 3..].fill(f32::NAN);
    case.grad_out[targets - 3..].fill(f64::NAN);
    let gradient = case.gradient();
    // The candidate of the user without behaviours; the tails; the behaviour of the user without candidates.
    assert_eq!(gradient.targets[6..9], [0.0; 3]);
    assert_eq!(gradient.targets[targets - 3..], [0.0; 3]);
    assert_eq!(gradient.history[history - 6..], [0.0; 6]);
    assert!(gradient.hidden[0].weight.iter().all(|grad| grad.is_finite()));
    let result = case.with_inputs(|inputs| din_backward(&case.op, &case.batch, inputs, &[0.0]));
    assert_eq!(shape_argument(result), "grad_out");
}

/// A score of -∞ removes a pair: the gradients are those of the batch without it.
#[test]
fn removed_pairs_add_nothing() {
    let case = |history: &[f32]| Case {
        op: Din::new(1).with_pooling(DinPooling::Softmax),
        batch: batch(&[history.len()], &[2], 0),
        targets: vec![1.0, 0.5],
        history: history.to_vec(),
        // For a behaviour of -∞, [q ; s ; q − s ; q ⊙ s] is -∞, ∞ and -∞ after the first: all of them take the sum to -∞.
        hidden: vec![Layer {
            weight: vec![0.25, 1.0, -0.5, 0.5],
            bias: vec![0.125],
            activation: Activation::Prelu { alpha: vec![0.75] },
        }],
        output_weight: vec![1.0],
        output_bias: vec![0.0],
        grad_out: vec![1.0, -0.5],
    };
    let without = case(&[0.5, -1.0]).gradient();
    let mut with = case(&[0.5, f32::NEG_INFINITY, -1.0]).gradient();
    assert_eq!(with.history.remove(1), 0.0);
    assert_eq!(with, without);
    assert!(without.history.iter().chain(&without.targets).all(|grad| grad.is_finite() && *grad != 0.0));
}

#[test]
fn statistics_of_layers() {
    let case = Case::new(DinPooling::Sum, Kind::Dice, &[4, 3]);
    let statistics = case.with_inputs(|inputs| din_statistics(&case.op, &case.batch, inputs).unwrap());
    // Every pair's numbers, by DIN itself: one candidate, one behaviour of ones in a wide enough unit would round; so by hand.
    let mut layers = [vec![], vec![]];
    for (history, targets) in case.batch.requests() {
        for (m, l) in targets.flat_map(|m| history.clone().map(move |l| (m, l))) {
            let [q, s] = [&case.targets[3 * m..3 * m + 3], &case.history[3 * l..3 * l + 3]]
                .map(|row| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let pair = |of: fn(f64, f64) -> f64| q.iter().zip(&s).map(move |(&q, &s)| of(q, s));
            let mut x: Vec<f64> = q.iter().chain(&s).copied().collect();
            x.extend(pair(|q, s| q - s));
            x.extend(pair(|q, s| q * s));
            for (layer, all) in case.hidden.iter().zip(&mut layers) {
                let unit = |(row, &bias): (&[f32], &f32)| {
                    row.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias)
                };
                let y: Vec<f64> = layer.weight.chunks(x.len()).zip(&layer.bias).map(unit).collect();
                let Activation::Dice { gain, shift, alpha } = &layer.activation else { unreachable!() };
                let dice = |(i, &y): (usize, &f64)| {
                    let p = 1.0 / (1.0 + (-(f64::from(gain[i]) * y + f64::from(shift[i]))).exp());
                    y * (p + f64::from(alpha[i]) * (1.0 - p))
                };
                x = y.iter().enumerate().map(dice).collect();
                all.push(y);
            }
        }
    }
    assert_eq!(layers[0].len(), 8);
    for (statistics, all) in statistics.iter().zip(&layers) {
        assert_eq!(statistics.count, 8);
        for (channel, mean) in statistics.mean.iter().enumerate() {
            let exact = all.iter().map(|y| y[channel]).sum::<f64>() / 8.0;
            let squares: f64 = all.iter().map(|y| (y[channel] - exact).powi(2)).sum();
            assert!((mean - exact).abs() < 1e-12);
            assert!((statistics.centred_squares[channel] - squares).abs() < 1e-11);
        }
    }
    let empty = batch(&[0], &[0], 0);
    let case = Case { batch: empty, targets: vec![], history: vec![], ..case };
    let statistics = case.with_inputs(|inputs| din_statistics(&case.op, &case.batch, inputs).unwrap());
    assert_eq!((statistics[1].count, &statistics[1].mean[..]), (0, &[0.0; 3][..]));
}

#[test]
fn match_published_ones() {
    for name in ["din_relu_sum", "din_sigmoid_softmax", "din_dice_sum", "din_dice_softmax"] {
        let golden = Golden::load(name);
        let layers = golden.meta["hidden"].as_array().expect("sizes").len();
        let activation = |i: usize| match golden.meta["activation"].as_str() {
            Some("ReLU") => Activation::Relu,
            Some("Sigmoid") => Activation::Sigmoid,
            _ => {
                let [mean, var, alpha] =
                    ["mean", "var", "alpha"].map(|part| golden.f32(&format!("dice{i}_{part}")));
                let epsilon = golden.meta["dice_eps"].as_f64().expect("a number") as f32;
                let (gain, shift) = fold_dice(&DiceStatistics::new(&mean, &var, epsilon)).unwrap();
                Activation::Dice { gain, shift, alpha }
            }
        };
        let layer = |i: usize| Layer {
            weight: golden.f32(&format!("w{i}")),
            bias: golden.f32(&format!("b{i}")),
            activation: activation(i),
        };
        let softmax = golden.flag("softmax");
        let pooling = if softmax { DinPooling::Softmax } else { DinPooling::Sum };
        let (histories, targets) =
            (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
        let case = Case {
            op: Din::new(golden.shape("history")[1]).with_pooling(pooling),
            batch: Batch::new(histories, targets).unwrap(),
            targets: golden.f32("targets"),
            history: golden.f32("history"),
            hidden: (0..layers).map(layer).collect(),
            output_weight: golden.f32(&format!("w{layers}")),
            output_bias: golden.f32(&format!("b{layers}")),
            grad_out: golden.f64("grad_out"),
        };
        let gradient = case.gradient();
        assert_published(&golden, "grad_targets", &gradient.targets);
        assert_published(&golden, "grad_history", &gradient.history);
        assert_published(&golden, &format!("grad_w{layers}"), &gradient.output_weight);
        // Softmax ignores this bias: its gradient is 0 but for rounding.
        let least = if softmax { 1.0 } else { 0.0 };
        assert_published_beside(&golden, &format!("grad_b{layers}"), &gradient.output_bias, least);
        for (i, layer) in gradient.hidden.iter().enumerate() {
            assert_published(&golden, &format!("grad_w{i}"), &layer.weight);
            assert_published(&golden, &format!("grad_b{i}"), &layer.bias);
            if let Activation::Dice { alpha, .. } = &layer.activation {
                assert_published(&golden, &format!("grad_dice{i}_alpha"), alpha);
            }
        }
    }
}
